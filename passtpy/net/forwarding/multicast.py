# SPDX-License-Identifier: GPL-2.0-or-later
"""Relays datagrams of multicast groups between guest and host.

A group has no address that a flow could be connected to: anybody may answer. So the
datapath gives datagrams for groups to us (discovery is rare, and there is a limit on
what it gives), and we send them from an unconnected socket. That socket is a listener
of the datapath, by which every answer becomes a flow of its own from whoever gave it.

What the guest reports of its membership (IGMP, MLD) is mirrored for the groups that the
user named with a port: the host joins, and what is sent to the group reaches the guest,
as flows again. The host does not hear the guest's own datagrams, for the guest would
hear them a second time and take them for somebody else's.
"""

import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from passtpy.addr import Address, inany
from passtpy.config.forwards import relay_numbers
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.host import HostInfo
from passtpy.config.model import Config, RelayGroup
from passtpy.errors import WireError
from passtpy.flow import IPPROTO_UDP, PuntKind
from passtpy.log import Log
from passtpy.net.forwarding.sockets import Listeners
from passtpy.net.kernel.interfaces import index_of
from passtpy.record import record
from passtpy.wire.ethernet import ETHERTYPE_IPV4, Ethernet
from passtpy.wire.icmpv6 import Icmpv6
from passtpy.wire.ipv4 import Ipv4
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.membership import Membership
from passtpy.wire.udp import Udp

IDLE_NS: Final = 30_000_000_000  # nobody answers later than that
_DHCP_PORTS: Final = frozenset((67, 547))  # for services
_FLAGS: Final = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
# Not in the socket module of Python 3.11
_IP_PKTINFO: Final = 8
_IP_MULTICAST_ALL: Final = 49
_IP_UNICAST_IF: Final = 50
_IPV6_MULTICAST_ALL: Final = 29


@record
class Request:
    """A datagram of the guest for a group."""

    source: Address
    group: Address
    ttl: int
    udp: Udp


@record(frozen=False)
class _Asker:
    """The socket of one address and port in the guest."""

    sock: socket.socket
    number: int
    last: int  # when it asked, ns


@record(frozen=False)
class _Group:
    """The socket of one group and port; `joined`: its datagrams go to the guest."""

    sock: socket.socket
    joined: bool = False


def read_report(frame: bytes) -> Membership:
    """Return what a report of membership says (PuntKind.MEMBERSHIP)."""
    eth = Ethernet.parse(frame)
    if eth.ethertype == ETHERTYPE_IPV4:
        return Membership.parse_igmp(Ipv4.parse(eth.payload).payload)
    packet = Ipv6.parse(eth.payload)
    icmp = Icmpv6.parse(packet.payload, packet.source, packet.destination)
    return Membership.parse_mld(icmp.type, icmp.body)


def read_request(frame: bytes) -> Request:
    """Return what a datagram for a group asks (PuntKind.GROUP)."""
    eth = Ethernet.parse(frame)
    packet: Ipv4 | Ipv6
    if eth.ethertype == ETHERTYPE_IPV4:
        packet = Ipv4.parse(eth.payload)
        ttl = packet.ttl
    else:
        packet = Ipv6.parse(eth.payload)
        ttl = packet.hop_limit
    return Request(packet.source, packet.destination, ttl, Udp.parse(packet.payload))


class Relay:
    """The sockets behind --multicast-relay; Python owns a copy of each."""

    def __init__(
        self,
        config: Config,
        host: HostInfo,
        datapath: Listeners,
        seen: GuestAddresses,
        log: Log,
    ) -> None:
        self._datapath = datapath
        self._seen = seen
        self._log = log
        self._outbound = (config.outbound_if4, config.outbound_if6)
        self._names = self._interfaces(host)
        numbers, self._free = relay_numbers(config)
        self._numbers = dict(zip(config.multicast_relay, numbers, strict=True))
        self._groups: dict[RelayGroup, _Group] = {}
        self._askers: dict[tuple[Address, int], _Asker] = {}
        self._counters = dict.fromkeys(
            ("relay_requests", "relay_refused", "relay_failed", "relay_malformed"), 0
        )

    def take(self, kind: int, frame: bytes, now: int) -> None:
        """Deal with what the guest says to a group, or about one."""
        try:
            if kind == PuntKind.GROUP:
                self._relay(read_request(frame), now)
            else:
                self._mirror(read_report(frame))
        except WireError:
            self._counters["relay_malformed"] += 1

    def update(self, host: HostInfo) -> None:
        """Go on at the host's other interface, if it has another one now."""
        names = self._interfaces(host)
        if names == self._names:
            return
        self._names = names
        joined = [group for group, made in self._groups.items() if made.joined]
        self.close()
        for group in joined:
            self._try(partial(self._join, group))

    def counters(self) -> dict[str, int]:
        """Return what was relayed and what was not."""
        return dict(self._counters)

    def close(self) -> None:
        """Close every socket; flows that have their own live on."""
        for key in list(self._askers):
            self._forget(key)
        for group in list(self._groups):
            self._leave(group)

    def _interfaces(self, host: HostInfo) -> tuple[str | None, str | None]:
        out4, out6 = self._outbound
        return out4 or host.template4, out6 or host.template6

    def _index(self, version: int) -> int:
        """Return the host's interface for groups; 0: the kernel's choice."""
        return index_of(self._names[version == 6])

    def _try(self, action: Callable[[], object]) -> None:
        """Do something with sockets; what the system refuses is told and counted."""
        try:
            action()
        except OSError as error:
            self._counters["relay_failed"] += 1
            self._log.debug("relay.failed", error=str(error))

    # Requests

    def _relay(self, request: Request, now: int) -> None:
        udp = request.udp
        group = self._find(request.group, udp.destination)
        if group is None or not udp.source:
            self._counters["relay_refused"] += 1
            return
        self._counters["relay_requests"] += 1
        self._try(partial(self._send, request, group, now))

    def _find(self, address: Address, port: int) -> RelayGroup | None:
        for group in (RelayGroup(address, port), RelayGroup(address)):
            if group in self._numbers:
                return group
        return None

    def _send(self, request: Request, group: RelayGroup, now: int) -> None:
        """Send from the guest's port if that is free; see _group_socket()."""
        udp = request.udp
        if group.port == udp.source and group.address.is_multicast:
            sock = self._group(group).sock
        else:
            sock = self._asker(request.source, udp.source, now).sock
        to: tuple[str, int] | tuple[str, int, int, int]
        to = (str(request.group), udp.destination)
        if request.group.version == 6:
            sock.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, request.ttl
            )
            to = (*to, 0, self._index(6))
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, request.ttl)
        sock.sendto(udp.payload, to)

    def _asker(self, source: Address, port: int, now: int) -> _Asker:
        key = (source, port)
        asker = self._askers.pop(key, None)
        if asker is None:
            if len(self._askers) == len(self._free):
                self._forget(next(iter(self._askers)))
            used = {asker.number for asker in self._askers.values()}
            number = next(n for n in self._free if n not in used)
            sock = self._bound(source.version, port)
            self._datapath.listen(sock.dup().detach(), IPPROTO_UDP, number)
            self._seen.askers[number] = (inany(source), port)
            asker = _Asker(sock, number, now)
        asker.last = now
        self._askers[key] = asker  # the last one in the row is the newest
        return asker

    def _bound(self, version: int, port: int) -> socket.socket:
        sock = self._new(version)
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        anywhere = "0.0.0.0" if version == 4 else "::"
        try:
            sock.bind((anywhere, port))
        except OSError:  # somebody has it, or we may not
            sock.bind((anywhere, 0))
        return sock

    def _new(self, version: int) -> socket.socket:
        """Return a socket that speaks to groups, and hears only what it joined."""
        index = self._index(version)
        options: list[tuple[int, int | bytes]]
        if version == 4:
            sock = socket.socket(socket.AF_INET, _FLAGS)
            mreqn = struct.pack("=4s4si", bytes(4), bytes(4), index)
            options = [
                (_IP_MULTICAST_ALL, 0),
                (socket.IP_MULTICAST_LOOP, 0),
                (socket.IP_MULTICAST_IF, mreqn),
                (_IP_UNICAST_IF, struct.pack("!i", index)),  # for broadcast
            ]
            level = socket.IPPROTO_IP
        else:
            sock = socket.socket(socket.AF_INET6, _FLAGS)
            options = [
                (socket.IPV6_V6ONLY, 1),
                (_IPV6_MULTICAST_ALL, 0),
                (socket.IPV6_MULTICAST_LOOP, 0),
                (socket.IPV6_MULTICAST_IF, index),
            ]
            level = socket.IPPROTO_IPV6
        try:
            for name, value in options:
                sock.setsockopt(level, name, value)
        except OSError:
            sock.close()
            raise
        return sock

    def expire(self, now: int) -> None:
        """Forget those who asked long ago."""
        for key, asker in list(self._askers.items()):
            if now - asker.last < IDLE_NS:
                break  # those behind it are newer
            self._forget(key)

    def _forget(self, key: tuple[Address, int]) -> None:
        asker = self._askers.pop(key)
        self._seen.askers.pop(asker.number, None)
        self._datapath.unlisten(asker.number)
        asker.sock.close()

    # Membership

    def _mirror(self, said: Membership) -> None:
        for address in said.joined:
            for group in self._listed(address):
                self._try(partial(self._join, group))
        for address in said.left:
            for group in self._listed(address):
                self._leave(group)

    def _listed(self, address: Address) -> list[RelayGroup]:
        return [g for g in self._numbers if g.address == address and g.port]

    def _group(self, group: RelayGroup) -> _Group:
        """Return the socket bound to a group and its port.

        Others on the host may have one too, and so it steals nobody's datagrams; yet
        what it sends comes from the group's port, as mDNS demands of answers.
        """
        made = self._groups.get(group)
        if made is None:
            version = group.address.version
            sock = self._new(version)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            name, port = str(group.address), group.port or 0
            try:
                if version == 6:
                    sock.bind((name, port, 0, self._index(6)))
                else:
                    sock.bind((name, port))
            except OSError:
                sock.close()
                raise
            made = self._groups[group] = _Group(sock)
        return made

    def _join(self, group: RelayGroup) -> None:
        made = self._group(group)
        if made.joined:
            return
        raw, index = group.address.packed, self._index(group.address.version)
        if group.address.version == 4:
            mreqn = struct.pack("=4s4si", raw, bytes(4), index)
            option = (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreqn)
        else:
            mreq6 = raw + struct.pack("=i", index)
            option = (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, mreq6)
        made.sock.setsockopt(*option)
        number = self._numbers[group]
        self._datapath.listen(made.sock.dup().detach(), IPPROTO_UDP, number)
        made.joined = True
        self._log.info("relay.joined", group=str(group))

    def _leave(self, group: RelayGroup) -> None:
        made = self._groups.pop(group, None)
        if made is None:
            return
        if made.joined:
            self._datapath.unlisten(self._numbers[group])
            self._log.info("relay.left", group=str(group))
        made.sock.close()  # the last copy: the host leaves, too
