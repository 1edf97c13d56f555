# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest has got, as text: printed when we start to serve it."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from passtpy.addr import Address, show_mac
from passtpy.config.host import HostInfo
from passtpy.config.model import Config
from passtpy.config.view import View
from passtpy.flow import Pif
from passtpy.services.facts import Facts, facts_from_view

TABLES = {
    Pif.HOST: "Inbound forwarding rules (HOST):",
    Pif.SPLICE: "Outbound forwarding rules (SPLICE):",
}


def summary(view: View, ifname: str) -> Iterator[str]:
    """Yield the lines, in the order of pasta's."""
    config, host = view.config, view.host
    if config.conf_path is not None:
        yield f"Configuration socket: {config.conf_path}"
    if not config.splice_only:
        facts = facts_from_view(view)
        yield from _interfaces(config, host, ifname)
        yield "MAC:"
        yield f"    host: {show_mac(host.our_mac)}"
        if facts.ipv4:
            yield from _nat("127.0.0.1", view.loopback4)
            yield from _dhcp(config, facts)
        if facts.ipv6:
            yield from _nat("::1", view.loopback6)
            yield from _ndp(config, host, facts)
        for each in view.dns:
            yield f"DNS to {each.seen}: forwarded to {each.target}"
    yield from _forwarding(view)


def bound(path: str) -> str:
    """Return the line that tells where a socket is, in pasta's words."""
    return f"UNIX domain socket bound at {path}"


def qemu_options(config: Config, path: str) -> Iterator[str]:
    """Yield what to say to qemu, as an answer to: which socket?"""
    yield bound(path)
    yield "To connect a machine, start qemu with"
    device = "    -device virtio-net-pci,netdev=n"
    if config.vhost_user:
        yield f"    -chardev socket,id=c,path={path}"
        yield f"{device} -netdev vhost-user,id=n,chardev=c"
        yield "    and memory that is shared: memory-backend-memfd,share=on"
        return
    address = f"addr.type=unix,addr.path={path}"
    yield f"{device} -netdev stream,id=n,server=off,{address}"


def _interfaces(config: Config, host: HostInfo, ifname: str) -> Iterator[str]:
    names = _by_family(host.template4, host.template6)
    if names:
        yield f"Template interface: {names}"
    local4 = host.ipv4 and host.template4 is None
    local6 = host.ipv6 and host.template6 is None
    for family, local in (("IPv4", local4), ("IPv6", local6)):
        if local:
            yield f"{family}: no external interface as template, use local mode"
    outbound = _by_family(config.outbound_if4, config.outbound_if6)
    if outbound:
        yield f"Outbound interface: {outbound}"
    for family, source in (("IPv4", config.outbound4), ("IPv6", config.outbound6)):
        if source is not None:
            yield f"Outbound {family} address: {source}"
    if not config.for_machine:
        yield f"Namespace interface: {ifname}"


def _by_family(v4: object, v6: object) -> str:
    shown = [f"{v} ({family})" for v, family in ((v4, "IPv4"), (v6, "IPv6")) if v]
    return ", ".join(shown)


def _nat(loopback: str, mapped: Address | None) -> Iterator[str]:
    if mapped is not None:
        yield f"    NAT to host {loopback}: {mapped}"


def _dhcp(config: Config, facts: Facts) -> Iterator[str]:
    if config.dhcp and facts.guest4 is not None and facts.server4 is not None:
        yield "DHCP:"
        yield f"    assign: {facts.guest4}"
        yield f"    mask: {IPv4Network((0, facts.prefix4)).netmask}"
        yield f"    router: {facts.gateway4 or IPv4Address(0)}"
    yield from _listed("DNS:", facts.resolvers4)
    yield from _listed("DNS search list:", facts.search)


def _ndp(config: Config, host: HostInfo, facts: Facts) -> Iterator[str]:
    announces, assigns = config.ndp and facts.router, config.dhcpv6 and facts.managed
    services = [name for name, on in (("NDP", announces), ("DHCPv6", assigns)) if on]
    if services:
        yield "/".join(services) + ":"
        if facts.guest6 is not None:
            yield f"    assign: {facts.guest6}"
        yield f"    router: {host.gateway6 or facts.our_link_local}"
        yield f"    our link-local: {facts.our_link_local}"
    yield from _listed("DNS:", facts.resolvers6)


def _listed(head: str, items: Iterable[object]) -> Iterator[str]:
    for position, item in enumerate(items):
        if not position:
            yield head
        yield f"    {item}"


def _forwarding(view: View) -> Iterator[str]:
    """Yield the tables of forwards; a rule's text ends in a blank, as pasta's does."""
    for pif, head in TABLES.items():
        lines = [f"    {each.rule}" for each in view.forwards if each.pif is pif]
        if lines:
            yield head
            yield from lines
