# SPDX-License-Identifier: GPL-2.0-or-later
"""One reader per kind of option value, with the error text that callers know."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from passtpy.addr import Address, Mac, parse_address, parse_mac
from passtpy.config.model import RelayGroup, RunAs, Seccomp, UdpFilter
from passtpy.config.resolver import read_domain
from passtpy.errors import ConfigError
from passtpy.log import LogFormat

MAX_MTU: Final = 65521  # the longest L2 frame less its header
MIN_MTU: Final = 68  # of IPv4, whose least is the less: RFC 791; IPv6 needs 1280
MIN_LOG_SIZE: Final = 40960
MAX_LOG_FILES: Final = 100
MAX_PATH: Final = 4095
MAX_SOCKET_PATH: Final = 107  # sun_path, less the byte that ends it
MAX_FD: Final = (1 << 31) - 1
IFNAME_LEN: Final = 15
MAX_DIGITS: Final = 20
MAX_PID: Final = (1 << 31) - 1
MAX_ID: Final = (1 << 32) - 2
NETNS_DIR: Final = "/run/netns"
MAX_HOSTNAME: Final = 253
NONE: Final = "none"

DEFAULT_GROUPS: Final = (
    "224.0.0.251/5353,ff02::fb/5353,239.255.255.250/1900,ff02::c/1900,255.255.255.255"
)
_BROADCAST4: Final = IPv4Address("255.255.255.255")
_HOSTNAME: Final = re.compile(r"[\w.-]+", re.ASCII)
_INTEGER: Final = re.compile(r"(0[xX])?([0-9a-fA-F]+)", re.ASCII)


def parse_integer(text: str) -> int:
    """Read an unsigned number in C's base 0 (0x…, 0…, decimal); ValueError if none."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise ValueError(text)
    if match[1]:
        return int(match[2], 16)
    return int(text, 8 if text[0] == "0" else 10)


def parse_decimal(text: str, limit: int) -> int | None:
    """Read digits that make at most `limit`; None otherwise."""
    # int() alone would also take signs, blanks, underscores, other scripts' digits.
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        return None
    number = int(text)
    return number if number <= limit else None


def name_len(name: str) -> int:
    """Return how many bytes the kernel gets: a name need not be UTF-8."""
    return len(name.encode(errors="surrogateescape"))


def _is_mapped(addr: Address) -> bool:
    return isinstance(addr, IPv6Address) and addr.ipv4_mapped is not None


def _embeds_v4(addr: Address) -> bool:
    """Tell whether `addr` is v4-mapped, or v4-compatible (::a.b.c.d)."""
    compatible = isinstance(addr, IPv6Address) and int(addr) >> 32 == 0
    return compatible or _is_mapped(addr)


def read_mtu(text: str) -> int:
    """Read -m: the whole word must be a number."""
    try:
        mtu = parse_integer(text)
    except ValueError:
        raise ConfigError(f"Invalid MTU: {text}") from None
    if 0 < mtu < MIN_MTU:
        raise ConfigError(
            f"MTU {mtu} too small"
            f" (min {MIN_MTU} for IPv4, 1280 for IPv6; max {MAX_MTU})"
        )
    if mtu > MAX_MTU:
        raise ConfigError(f"MTU {mtu} too large (max {MAX_MTU})")
    return mtu


def read_address(text: str) -> tuple[Address, int | None]:
    """Read -a: an address, in brackets or not, and the length of its prefix if told.

    One of IPv4 in the clothes of IPv6 is one of IPv4, and its length counts from 96.
    """
    plain, slash, length_text = text.partition("/")
    if plain.startswith("[") and plain.endswith("]"):
        plain = plain[1:-1]
    written = parse_address(plain)
    addr = written
    if isinstance(written, IPv6Address) and written.ipv4_mapped is not None:
        addr = written.ipv4_mapped
    unfit = (
        addr is None
        or addr.is_unspecified
        or addr.is_multicast
        or addr.is_loopback
        or addr == _BROADCAST4
        or _embeds_v4(addr)
    )
    if unfit or addr is None or written is None:
        raise ConfigError(f"Invalid guest address: {text}")
    if not slash:
        return addr, None
    length = parse_decimal(length_text, written.max_prefixlen)
    if length is not None:
        length -= written.max_prefixlen - addr.max_prefixlen
    if length is None or length < 0:
        raise ConfigError(f"Invalid prefix length: {text}")
    return addr, length


def classful_prefix(addr: IPv4Address) -> int:
    """Return the prefix length that the address class implies."""
    first = addr.packed[0]
    for limit, prefix in ((128, 8), (192, 16), (224, 24)):
        if first < limit:
            return prefix
    return 32


def read_netmask(text: str) -> int:
    """Read -n: a dotted mask, or a length."""
    length = parse_decimal(text, 32)
    if length is not None:
        return length
    try:
        mask = int(IPv4Address(text))
    except AddressValueError:
        raise ConfigError(f"Invalid prefix length: {text}") from None
    inverse = mask ^ 0xFFFFFFFF
    if inverse & (inverse + 1):
        raise ConfigError(f"Invalid prefix length: {text}")
    return mask.bit_count()


def read_gateway(text: str) -> Address:
    """Read -g."""
    addr = parse_address(text)
    if addr is None or addr.is_unspecified or addr.is_loopback or addr == _BROADCAST4:
        raise ConfigError(f"Invalid gateway address: {text}")
    return addr


def read_groups(text: str) -> tuple[RelayGroup, ...]:
    """Read --multicast-relay: GROUP[/PORT],…; no value: mDNS, SSDP and broadcast."""
    return tuple(_read_group(word) for word in (text or DEFAULT_GROUPS).split(","))


def _read_group(text: str) -> RelayGroup:
    plain, slash, port_text = text.partition("/")
    addr = parse_address(plain)
    port = parse_decimal(port_text, 65535) if slash else None
    if addr is None or not (addr.is_multicast or addr == _BROADCAST4):
        raise ConfigError(f"Invalid multicast group: {text}")
    if slash and not port:
        raise ConfigError(f"Invalid multicast group: {text}")
    return RelayGroup(addr, port)


def read_outbound(text: str) -> Address:
    """Read -o."""
    addr = parse_address(text)
    unfit = (
        addr is None
        or addr.is_unspecified
        or addr.is_multicast
        or addr == _BROADCAST4
        or _embeds_v4(addr)
        or (isinstance(addr, IPv6Address) and addr.is_loopback)
    )
    if unfit or addr is None:
        raise ConfigError(f"Invalid or redundant outbound address: {text}")
    return addr


def read_remap(text: str) -> Address | None:
    """Read --map-host-loopback, --map-guest-addr; None for `none`."""
    if text == "none":
        return None
    addr = parse_address(text)
    unfit = addr is None or addr.is_unspecified or addr.is_loopback or addr.is_multicast
    if unfit or addr is None:
        raise ConfigError(f"Invalid address to remap to host: {text}")
    return addr


def read_dns_forward(text: str) -> Address:
    """Read --dns-forward."""
    addr = parse_address(text)
    if addr is None or addr.is_unspecified or addr.is_loopback or addr == _BROADCAST4:
        raise ConfigError(f"Invalid DNS forwarding address: {text}")
    return addr


def read_dns_host(text: str) -> Address:
    """Read --dns-host; unlike above, the host's loopback is a good place."""
    addr = parse_address(text)
    if addr is None or addr.is_unspecified or addr == _BROADCAST4:
        raise ConfigError(f"Invalid host nameserver address: {text}")
    return addr


def read_resolver(text: str) -> Address:
    """Read -D, when it is not `none`."""
    addr = parse_address(text)
    unfit = (
        addr is None
        or addr.is_unspecified
        or addr.is_multicast
        or addr == _BROADCAST4
        or _is_mapped(addr)
    )
    if unfit or addr is None:
        raise ConfigError(f"Cannot use DNS address {text}")
    return addr


def read_search(text: str) -> tuple[str, ...]:
    """Read -S, when it is not `none`: one domain, or several between blanks."""
    domains = []
    for word in text.split():
        domain = read_domain(word)
        if domain is None:
            raise ConfigError(f"Cannot use DNS search domain {word}")
        domains.append(domain)
    if not domains:
        raise ConfigError(f"Cannot use DNS search domain {text}")
    return tuple(domains)


def read_hostname(text: str) -> str:
    """Read -H; what the guest makes of it may end in a script: no blanks, no quotes."""
    if not 0 < len(text) <= MAX_HOSTNAME or _HOSTNAME.fullmatch(text) is None:
        raise ConfigError(f"Invalid hostname: {text}")
    return text


def read_fqdn(text: str) -> str:
    """Read --fqdn."""
    name = read_domain(text)
    if name is None or _HOSTNAME.fullmatch(name) is None:
        raise ConfigError(f"Invalid FQDN: {text}")
    return name


def read_mac(text: str) -> Mac:
    """Read -M, --ns-mac-addr."""
    try:
        return parse_mac(text)
    except ValueError:
        raise ConfigError(f"Invalid MAC address: {text}") from None


def read_ifname(text: str) -> str:
    """Read the name of an interface, which need not exist here."""
    if not 0 < name_len(text) <= IFNAME_LEN:
        raise ConfigError(f"Invalid interface name: {text}")
    return text


def read_path(text: str, what: str, most: int = MAX_PATH) -> str:
    """Read a path of at most so many bytes; `what` is how the message begins."""
    if not 0 < name_len(text) <= most:
        raise ConfigError(f"{what}: {text}")
    return text


def read_netns(text: str) -> str:
    """Read --netns: a path, or a name as `ip netns` uses it."""
    path = text if "/" in text else f"{NETNS_DIR}/{text}"
    if not text or name_len(path) > MAX_PATH:
        raise ConfigError(f"Invalid network namespace: {text}")
    return path


def read_socket_path(text: str) -> str:
    """Read -s: what fits into a socket address."""
    if not 0 < name_len(text) <= MAX_SOCKET_PATH:
        raise ConfigError(f"Invalid socket path: {text}")
    return text


def read_fd(text: str) -> int:
    """Read --fd: our standard output and error cannot be the guest."""
    try:
        fd = parse_integer(text)
    except ValueError:
        fd = -1
    if fd in (-1, 1, 2) or fd > MAX_FD:
        raise ConfigError(f"Invalid --fd: {text}")
    return fd


def read_log_size(text: str) -> int:
    """Read --log-size; unlike the C program, junk behind the number is an error."""
    return _read_integer(text, "--log-size", MIN_LOG_SIZE)


def read_log_files(text: str) -> int:
    """Read --log-files."""
    return _read_integer(text, "--log-files", 1, MAX_LOG_FILES)


def read_stats(text: str) -> int:
    """Read --stats; unlike with the C program it has to be a number."""
    return _read_integer(text, "--stats", 1, MAX_PID)


def read_drain_timeout(text: str) -> int:
    """Read --drain-timeout: seconds."""
    return _read_integer(text, "--drain-timeout", 0, MAX_PID)


def _read_integer(text: str, option: str, low: int, high: int | None = None) -> int:
    """Read a whole number between `low` and `high`."""
    try:
        value = parse_integer(text)
    except ValueError:
        value = low - 1
    if value < low or (high is not None and value > high):
        raise ConfigError(f"Invalid {option}: {text}")
    return value


def read_log_format(text: str) -> LogFormat:
    """Read --log-format."""
    if text not in (LogFormat.HUMAN, LogFormat.JSON):
        raise ConfigError(f"Invalid --log-format: {text}")
    return LogFormat(text)


def read_policy_mode(text: str) -> str:
    """Read --policy-mode."""
    if text not in ("enforce", "observe"):
        raise ConfigError(f"Invalid --policy-mode: {text}")
    return text


def read_seccomp(text: str) -> Seccomp:
    """Read --seccomp."""
    try:
        return Seccomp(text)
    except ValueError:
        raise ConfigError(f"Invalid --seccomp: {text}") from None


def read_udp_filter(text: str) -> UdpFilter:
    """Read --udp-filter."""
    try:
        return UdpFilter(text)
    except ValueError:
        raise ConfigError(f"Invalid --udp-filter: {text}") from None


def read_pid(text: str) -> int:
    """Read the PID to attach to."""
    pid = parse_decimal(text, MAX_PID)
    if not pid:
        raise ConfigError(f"Invalid PID {text}")
    return pid


def _read_id(text: str) -> int | None:
    try:
        number = parse_integer(text)
    except ValueError:
        return None
    return number if number <= MAX_ID else None


def read_runas(text: str) -> RunAs:
    """Read --runas: UID, UID:GID, LOGIN or LOGIN:GROUP."""
    import grp
    import pwd

    user, colon, group = text.partition(":")
    try:
        uid = gid = _read_id(user)
        if uid is None or gid is None:
            entry = pwd.getpwnam(user)
            uid, gid = entry.pw_uid, entry.pw_gid
            if uid == 0:  # "root" is more likely a mistake than "0"
                raise KeyError(user)
        if colon:
            known = _read_id(group)
            gid = grp.getgrnam(group).gr_gid if known is None else known
    except (KeyError, ValueError):
        raise ConfigError(f"Invalid --runas option: {text}") from None
    return RunAs(uid, gid)
