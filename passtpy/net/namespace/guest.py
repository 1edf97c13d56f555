# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes and configures the guest's interface, in a child process in its namespace.

The daemon itself never enters a namespace: the child sends it the tap, and the facts
it needs, as one report over a socket.
"""

import os
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import EACCES, EEXIST
from ipaddress import IPv6Interface
from typing import Final

from passtpy import limits
from passtpy.addr import Mac, link_local_from_mac
from passtpy.config.host import HostInfo
from passtpy.config.model import DEFAULT_MTU, Config
from passtpy.errors import PasstpyError, SetupError
from passtpy.net.host.template import HostNetwork, Plan, make_plan
from passtpy.net.kernel import netlink, rtnl
from passtpy.net.kernel.dump import Dump
from passtpy.net.kernel.listen import kernel_has_ipv6
from passtpy.net.kernel.netlink import Netlink
from passtpy.net.kernel.rtnl import RT_SCOPE_LINK, Link, LinkAddress, Route
from passtpy.net.namespace import report as text_of
from passtpy.net.namespace import tap
from passtpy.record import record, replace

_FD_MAX: Final = 2
_PATIENCE_S: Final = 30.0
_MTU_MAX: Final = 65535
_IFNAME_MAX: Final = 15
_LINE_MAX: Final = 1024
_NAME_BYTES: Final = frozenset(map(chr, range(0xDC80, 0xDD00)))  # no text at all
# The first byte of a report tells what is in the file that goes with it.
_PREPARED: Final = b"r"
_FAILED: Final = b"e"
_ETHERNET_MTU: Final = 1500
# A guest's first packets may come before we serve: they wait in the tap. The question
# where their next hop is waits with them, by itself for three seconds only.
_PROBES: Final = 30
IPV4: Final = 4
Fine = Mapping[int, frozenset[int]]  # errors that are none, by IP version
_MIN_MTU_V6: Final = 1280  # the kernel switches IPv6 off below


@record
class Guest:
    """The guest's interface, ready, and what was learnt on the way.

    `plan` is what it was given, or would have been with --config-net.
    """

    host: HostInfo
    ifname: str
    mtu: int
    offloads: int
    warnings: tuple[str, ...]
    index: int = 0
    plan: Plan | None = None
    tap_fd: int = -1


def follows_namespace(config: Config) -> bool:
    """Tell whether the guest's interface may have to be changed later."""
    said4 = config.address4 is not None and config.gateway4 is not None
    said6 = config.address6 is not None and config.gateway6 is not None
    copied = (config.ipv4 and not said4) or (config.ipv6 and not said6)
    return config.config_net and not config.splice_only and copied


def prepare(config: Config, host_socket: socket.socket) -> Guest:
    """Create and configure the interface in the current network namespace.

    `host_socket` is a netlink socket that was opened in the host's namespace.
    """
    if config.splice_only:
        return _prepare_loopback(config)
    plan = make_plan(config, _read_host(host_socket, config.has_policy))
    device = tap.open_tap(plan.ifname)
    try:
        inside = Netlink()
        link, warnings = _configure(inside, config, plan, device.name)
        inside.close()
    except OSError as error:
        raise SetupError(
            f"Couldn't configure interface {device.name}: {error.strerror}"
        ) from error
    return Guest(
        host=_with_mac(plan.host, link),
        ifname=link.name,
        mtu=link.mtu,
        offloads=device.offloads,
        warnings=warnings,
        index=link.index,
        plan=plan,
        tap_fd=device.fd,
    )


def for_machine(config: Config) -> Guest:
    """Return what a guest is to be told that configures itself: a virtual machine.

    Without an MTU that we announce it will believe to be on an Ethernet.
    """
    try:
        with netlink.open_socket() as host:
            plan = make_plan(config, _read_host(host, config.has_policy))
    except OSError as error:
        raise SetupError(
            f"Couldn't read the host's network: {error.strerror}"
        ) from error
    mtu = config.mtu or _ETHERNET_MTU
    return Guest(plan.host, ifname="", mtu=mtu, offloads=0, warnings=(), plan=plan)


def _prepare_loopback(config: Config) -> Guest:
    """Bring up `lo`: without a tap there is nothing else."""
    inside = Netlink()
    _loopback_up(inside)
    inside.close()
    ipv6 = config.ipv6 and os.path.exists("/proc/sys/net/ipv6")
    host = HostInfo(ipv4=config.ipv4, ipv6=ipv6)
    return Guest(host, ifname="lo", mtu=DEFAULT_MTU, offloads=0, warnings=())


def _loopback_up(netlink: Netlink) -> None:
    with suppress(OSError):  # a namespace that we join may have none, or no right to
        netlink.set_up(netlink.link("lo"))


def _read_host(host_socket: socket.socket, own: bool) -> HostNetwork:
    dump = Dump(host_socket, own)
    for _ in dump.steps():
        pass  # nobody waits for us yet
    dump.close()
    ipv6 = kernel_has_ipv6()
    return HostNetwork(dump.links, dump.addresses, dump.routes, ipv6, dump.own)


def _with_mac(host: HostInfo, link: Link) -> HostInfo:
    return replace(host, guest_mac=link.mac)


def _configure(
    netlink: Netlink, config: Config, plan: Plan, ifname: str
) -> tuple[Link, tuple[str, ...]]:
    """Bring up `lo`; with --config-net the tap too, with what `plan` says."""
    _loopback_up(netlink)
    link = netlink.link(ifname)
    mtu = config.mtu if config.config_net else 0
    netlink.configure_tap(link, config.ns_mac, mtu, tap.QUEUE_FRAMES)
    netlink.probe_longer(link, _PROBES)
    if config.config_net:
        netlink.no_automatic_link_local(link)
        netlink.set_up(link)
    link = netlink.link(ifname)  # the MAC address may be the kernel's choice
    if not config.config_net:
        return link, ()  # whoever configures it brings it up
    fine = {4: frozenset((EEXIST,)), 6: frozenset((EEXIST,))}
    if plan.v6.link is None:
        # IPv6 is switched off here, and the host has none either: nobody misses it.
        fine[6] |= {EACCES}
    warnings = _add_addresses(netlink, link, plan, fine)
    warnings += _add_routes(netlink, link, routes_for(plan, link.mtu), fine)
    return link, tuple(warnings)


def addresses_for(plan: Plan, mac: Mac, mtu: int) -> tuple[LinkAddress, ...]:
    """Return the addresses of an interface, its link-local one among them."""
    if mtu < _MIN_MTU_V6:
        return tuple(a for a in plan.addresses if a.address.version == IPV4)
    if not plan.host.ipv6:
        return plan.addresses
    local = IPv6Interface((link_local_from_mac(mac), 64))
    return (*plan.addresses, LinkAddress(0, local, RT_SCOPE_LINK, 0))


def routes_for(plan: Plan, mtu: int) -> tuple[Route, ...]:
    """Return the routes that an interface of this MTU can have."""
    if mtu >= _MIN_MTU_V6:
        return plan.routes
    return tuple(r for r in plan.routes if r.destination.version == IPV4)


def _add_addresses(netlink: Netlink, link: Link, plan: Plan, fine: Fine) -> list[str]:
    warnings = []
    for address in addresses_for(plan, link.mac, link.mtu):
        try:
            netlink.ask(rtnl.add_address(link.index, address))
        except OSError as error:
            if error.errno not in fine[address.address.version]:
                text = f"Couldn't set address {address.address}: {error.strerror}"
                warnings.append(text)
    return warnings


def _add_routes(
    netlink: Netlink, link: Link, routes: tuple[Route, ...], fine: Fine
) -> list[str]:
    """Add routes in whatever order they depend on each other."""
    pending = list(routes)
    errors: dict[Route, str] = {}
    progress = True
    while pending and progress:
        left = []
        for route in pending:
            try:
                netlink.ask(rtnl.add_route(link.index, route))
            except OSError as error:
                if error.errno not in fine[route.destination.version]:
                    left.append(route)
                    errors[route] = error.strerror or str(error)
        progress = len(left) < len(pending)
        pending = left
    return [f"Couldn't set route {r.destination}: {errors[r]}" for r in pending]


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Return the daemon's and the child's end of what they say to each other."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def report(control: socket.socket, make: Callable[[], Guest]) -> bool:
    """Send what `make` returns, or its error, to the daemon; True when it worked."""
    try:
        made = make()
    except PasstpyError as error:
        _send(control, _FAILED, str(error).encode(errors="surrogateescape"), -1)
        return False
    except Exception as error:  # whatever it is, the daemon is the one to tell it
        text = f"Couldn't set up the namespace: {limits.reason(error)}"
        _send(control, _FAILED, text.encode(errors="surrogateescape"), -1)
        return False
    _send(control, _PREPARED, text_of.write(made), made.tap_fd)
    return True


def _send(control: socket.socket, what: bytes, text: bytes, tap_fd: int) -> None:
    fds = [os.memfd_create("report")]
    with open(fds[0], "wb", closefd=False) as file:
        file.write(text)
    if tap_fd >= 0:
        fds.append(tap_fd)
    socket.send_fds(control, [what], fds)
    for fd in fds:
        os.close(fd)


def receive(control: socket.socket) -> Guest:
    """Wait for the report; SetupError when the child failed or went away."""
    control.settimeout(_PATIENCE_S)  # root of the namespace may have stopped it
    try:
        what, fds, _flags, _peer = socket.recv_fds(control, 1, _FD_MAX)
    except TimeoutError:
        raise SetupError(
            "The process that sets up the namespace does not answer"
        ) from None
    control.settimeout(None)
    if not what or not fds or not stat.S_ISREG(os.fstat(fds[0]).st_mode):
        raise SetupError("The process that sets up the namespace ended unexpectedly")
    for fd in fds:
        os.set_inheritable(fd, False)
    with open(fds[0], "rb") as file:
        file.seek(0)
        text = file.read(text_of.TEXT_MAX + 1)
    if what == _FAILED:
        raise SetupError(_printable(text))
    try:
        return replace(_checked(text_of.read(Guest, text)), tap_fd=_tap(fds[1:]))
    except text_of.ReportError as error:
        for fd in fds[1:]:
            os.close(fd)
        raise SetupError(
            f"The namespace's process reported nonsense: {error}"
        ) from None


def _checked(told: Guest) -> Guest:
    """Return what was told, if an interface can be like that; ReportError if not."""
    if not (0 < told.mtu <= _MTU_MAX and told.index >= 0):
        raise text_of.ReportError("no such interface")
    if len(told.ifname) > _IFNAME_MAX or told.offloads & ~tap.ALL_OFFLOADS:
        raise text_of.ReportError("no such interface")
    return replace(told, warnings=tuple(map(_line, told.warnings)))


def _tap(fds: list[int]) -> int:
    """Return the descriptor of a tap device, if one came."""
    if not fds:
        return -1
    if not stat.S_ISCHR(os.fstat(fds[0]).st_mode):
        raise text_of.ReportError("not a tap device")
    return fds[0]


def _line(text: str) -> str:
    return _printable(text.encode(errors="surrogateescape"))


def _printable(text: bytes) -> str:
    """Return one line of a terminal or a log, whatever it was; names in their bytes."""
    line = text[:_LINE_MAX].decode(errors="surrogateescape")
    return "".join(c if c.isprintable() or c in _NAME_BYTES else "?" for c in line)
