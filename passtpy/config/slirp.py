# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads slirp4netns' command line: its network becomes one of ours.

Options and messages are those of slirp4netns 1.2, for callers that look at both: they
read --help to learn what there is. Nothing is printed here.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)
from typing import Any, Final

from passtpy.addr import Mac, parse_mac
from passtpy.config.getopt import Getopt, GetoptError, Grammar
from passtpy.config.model import AttachPath, AttachPid, Config
from passtpy.config.values import read_ifname, read_socket_path
from passtpy.errors import ConfigError, UsageError
from passtpy.log import LogLevel
from passtpy.record import record

DEFAULT_CIDR: Final = "10.0.2.0/24"
DEFAULT_MTU: Final = 1500
MAX_MTU: Final = 65521
HOST, DNS, DHCP_FIRST, DHCP_LAST, GUEST = 2, 3, 15, 30, 100  # within the network
HOST6, DNS6, GUEST6 = map(IPv6Address, ("fd00::2", "fd00::3", "fd00::100"))
_NETWORK6: Final = IPv6Network("fd00::/64")
_SHORT: Final = {
    "c": "configure",
    "e": "exit-fd",
    "r": "ready-fd",
    "m": "mtu",
    "6": "enable-ipv6",
    "a": "api-socket",
    "h": "help",
    "v": "version",
}
_VALUED: Final = frozenset(
    (
        *("exit-fd", "ready-fd", "mtu", "api-socket", "cidr", "netns-type"),
        *("userns-path", "outbound-addr", "outbound-addr6", "macaddress"),
        "target-type",
    )
)
_SWITCHES: Final = (
    *("configure", "enable-ipv6", "disable-host-loopback", "enable-sandbox"),
    *("enable-seccomp", "disable-dns", "help", "version"),
)
_GRAMMAR: Final = Grammar(_SHORT, {n: n for n in (*_VALUED, *_SWITCHES)}, _VALUED)
USAGE: Final = """\
Usage: slirp4netns [OPTION]... PID|PATH TAPNAME

Connect a network namespace through ordinary sockets, with slirp4netns' addresses.

-c, --configure           set up the interface: address, routes, up
-e, --exit-fd=FD          end when this descriptor is closed elsewhere
-r, --ready-fd=FD         write to this descriptor once the network is there
-m, --mtu=MTU             MTU (default=1500, max=65521)
-6, --enable-ipv6         IPv6 as well, fd00::/64
-a, --api-socket=PATH     make a socket that takes port forwards
--cidr=CIDR               network (default=10.0.2.0/24)
--disable-host-loopback   do not let 10.0.2.2 stand for the host's loopback
--netns-type=TYPE         what the target is: pid or path (default=pid)
--userns-path=PATH        user namespace to join
--enable-sandbox          accepted: what it asks for is always done
--enable-seccomp          accepted: what it asks for is always done
--outbound-addr=IPv4      address or interface to send from
--outbound-addr6=IPv6     the same for IPv6
--disable-dns             do not let 10.0.2.3 stand for the host's resolver
--macaddress=MAC          MAC address of the interface (only with -c)
--target-type=TYPE        netns; bess is not supported
-h, --help                print this
-v, --version             print the version
"""


@record(kw_only=True)
class SlirpLine:
    """What a line says: the configuration, and what only this program knows."""

    config: Config
    network: IPv4Network
    ready_fd: int = -1  # is told when the network is there; -1: nobody
    exit_fd: int = -1  # ends us when its other end is closed; -1: nothing
    asks: str = ""  # "help" or "version", and nothing else counts

    def banner(self) -> str:
        """Return what slirp4netns says when it starts; callers may show it."""
        lines = (
            ("MTU", self.config.mtu),
            ("Network", self.network.network_address),
            ("Netmask", self.network.netmask),
            ("Gateway", self.network[HOST]),
            ("DNS", self.network[DNS]),
            ("DHCP begin", self.network[DHCP_FIRST]),
            ("DHCP end", self.network[DHCP_LAST]),
            ("Recommended IP", self.network[GUEST]),
        )
        rows = (f"* {name + ':':<16} {value}\n" for name, value in lines)
        return "Starting slirp\n" + "".join(rows)


def parse_slirp(words: Sequence[str], prog: str = "slirp4netns") -> SlirpLine:
    """Read the words behind the program's name.

    UsageError: the form of the line is wrong; ConfigError: a value is.
    """
    said: dict[str, str] = {}
    rest: list[str] = []
    try:
        for name, value in _walk(words, rest):
            if name in ("help", "version"):
                nothing = IPv4Network(DEFAULT_CIDR)
                return SlirpLine(config=Config(), network=nothing, asks=name)
            said[name] = value
    except GetoptError as error:
        raise UsageError(f"{prog}: {error}", USAGE) from None
    network = _network(said.get("cidr", DEFAULT_CIDR))
    ready_fd = _descriptor(said, "ready-fd")
    exit_fd = _descriptor(said, "exit-fd")
    if said.get("target-type", "netns") == "bess":
        raise ConfigError("--target-type=bess is not supported")
    if said.get("target-type", "netns") != "netns":
        raise ConfigError('--target-type must be either "netns" or "bess"')
    if len(rest) < 2:
        raise UsageError(f"{prog}: PID or PATH, and TAPNAME are needed", USAGE)
    fields = _fields(said, network, rest[0])
    config = Config(ns_ifname=rest[1], **fields)
    return SlirpLine(config=config, network=network, ready_fd=ready_fd, exit_fd=exit_fd)


def _walk(words: Sequence[str], rest: list[str]) -> Iterator[tuple[str, str]]:
    """Yield options wherever they stand; what is none goes to `rest`."""
    left = list(words)
    while left:
        line = Getopt(left, _GRAMMAR)
        yield from line
        behind_dashes = "--" in left[: len(left) - len(line.rest)]
        taken = len(line.rest) if behind_dashes else 1
        rest += line.rest[:taken]
        left = line.rest[taken:]


def _fields(said: dict[str, str], network: IPv4Network, target: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "target": _target(said, target),
        "userns": said.get("userns-path"),
        "foreground": True,
        "log_level": LogLevel.QUIET,
        "config_net": "configure" in said,
        "copy_routes": False,
        "copy_addrs": False,
        "mtu": _mtu(said),
        "ns_mac": _mac(said),
        "address4": network[GUEST],
        "prefix4": network.prefixlen,
        "gateway4": network[HOST],
        "map_gateway": False,
        "made_up": (network, _NETWORK6),
        "api_socket": _socket(said),
        "announce_dns": True,
        "ipv6": "enable-ipv6" in said,
        "dns_enabled": "disable-dns" not in said,
    }
    fields |= _outbound(said, "outbound-addr", 4) | _outbound(said, "outbound-addr6", 6)
    if "disable-dns" not in said:
        fields |= {"dns_forward4": network[DNS], "dns": (network[DNS],)}
    if "disable-host-loopback" not in said:
        fields |= {"map_host_loopback4": network[HOST]}
    if "enable-ipv6" not in said:
        return fields
    fields |= {"address6": GUEST6, "prefix6": 64, "gateway6": HOST6}
    if "disable-dns" not in said:
        fields |= {"dns_forward6": DNS6, "dns": (network[DNS], DNS6)}
    if "disable-host-loopback" not in said:
        fields |= {"map_host_loopback6": HOST6}
    return fields


def _network(text: str) -> IPv4Network:
    address, slash, length = text.partition("/")
    try:
        base = IPv4Address(address)
    except AddressValueError:
        raise ConfigError(f"invalid CIDR: {text}") from None
    if not slash or not length.isdigit():
        raise ConfigError(f"invalid CIDR: {text}")
    if not 1 <= int(length) <= 25:
        raise ConfigError("prefix length needs to be 1-25")
    network = IPv4Network((base, int(length)), strict=False)
    if network.network_address != base:
        raise ConfigError(f"CIDR needs to be a network address: {text}")
    return network


def _descriptor(said: dict[str, str], name: str) -> int:
    text = said.get(name)
    if text is None:
        return -1
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ConfigError(f"{name} must be a non-negative integer")
    return int(text)


def _mtu(said: dict[str, str]) -> int:
    text = said.get("mtu", str(DEFAULT_MTU))
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0
    if not 0 < value <= MAX_MTU:
        raise ConfigError(f"MTU must be a positive integer (< {MAX_MTU + 1})")
    if value < 68:
        raise ConfigError("an MTU of less than 68 bytes carries no IP (RFC 791)")
    return value


def _mac(said: dict[str, str]) -> Mac | None:
    text = said.get("macaddress")
    if text is None:
        return None
    if "configure" not in said:
        raise ConfigError(
            "--macaddr cannot be specified when --configure or -c is not specified"
        )
    try:
        return parse_mac(text)
    except ValueError:
        raise ConfigError(f'"{text}" is an invalid MAC address.') from None


def _target(said: dict[str, str], text: str) -> AttachPid | AttachPath:
    match said.get("netns-type", "pid"):
        case "path":
            return AttachPath(text)
        case "pid":
            if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
                raise ConfigError("PID must be a positive integer")
            return AttachPid(int(text))
        case other:
            raise ConfigError(f'--netns-type must be "path" or "pid", not "{other}"')


def _socket(said: dict[str, str]) -> str | None:
    path = said.get("api-socket")
    return None if path is None else read_socket_path(path)


def _outbound(said: dict[str, str], option: str, version: int) -> dict[str, Any]:
    """Read an address, or an interface's name."""
    text = said.get(option)
    if text is None:
        return {}
    try:
        address = IPv6Address(text) if version == 6 else IPv4Address(text)
        return {f"outbound{version}": address}
    except AddressValueError:
        pass
    with suppress(ConfigError):
        if "/" not in text:
            return {f"outbound_if{version}": read_ifname(text)}
    raise ConfigError(
        f"{option} has to be valid ipv{version} address or interface name."
    )
