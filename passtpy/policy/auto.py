# SPDX-License-Identifier: GPL-2.0-or-later
"""Automatic forwarding, the part that thinks: which ports should be open, and why.

Pure functions over what was found listening on one side. A map of ports holds, for
each port, the families (V4, V6 as bits) in which it is served.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from passtpy.addr import UNSPECIFIED, V4_PREFIX
from passtpy.record import record

V4 = 1
V6 = 2
LOOPBACK_INDEX = 1  # of the interface `lo`, in every network namespace

_LOOPBACK6 = bytes(15) + b"\x01"
_ANY4 = V4_PREFIX + bytes(4)
_NET4 = V4_PREFIX + b"\x7f"

Ports = Mapping[int, int]


class Heard(NamedTuple):
    """A socket that waits for others; `address` is an inany, `device` an index."""

    port: int
    address: bytes
    v6: bool
    v6_only: bool = False
    device: int = 0


@record
class Reach:
    """Where the far end of a forwarded flow arrives, besides wildcard sockets."""

    loopback: bool  # at ::1, 127.0.0.1 and all their like, as the client asked for
    outside: bool  # at any other address

    def families_of(self, heard: Heard) -> int:
        """Return the families in which a flow would find this socket."""
        address = heard.address
        if address in (UNSPECIFIED, _ANY4):
            if heard.device and not self._device(heard.device):
                return 0
            if not heard.v6 or address == _ANY4:
                return V4
            return V6 if heard.v6_only else V4 | V6
        is_v4 = address.startswith(V4_PREFIX)
        local = address == _LOOPBACK6 or address.startswith(_NET4)
        if not (self.loopback if local else self.outside):
            return 0
        return V4 if is_v4 else V6

    def _device(self, index: int) -> bool:
        return self.loopback if index == LOOPBACK_INDEX else self.outside


HOST_LOOPBACK = Reach(loopback=True, outside=False)


def served(sockets: Iterable[Heard], reach: Reach, ours: Iterable[int]) -> Ports:
    """Return the ports served on one side, without those on which we listen there."""
    ports: dict[int, int] = {}
    own = ours if isinstance(ours, set | frozenset) else set(ours)
    for heard in sockets:
        if heard.port and heard.port not in own:
            families = reach.families_of(heard)
            if families:
                ports[heard.port] = ports.get(heard.port, 0) | families
    return ports


def gather(ports: dict[int, int], more: Ports) -> None:
    """Add `more` to `ports`; what is in both has the families of both.

    UDP follows the TCP ports too: many services answer on both, and some open their
    UDP socket only when asked.
    """
    for port, families in more.items():
        ports[port] = ports.get(port, 0) | families


def limited(ports: Ports, families: int) -> Ports:
    """Return what is left when only `families` are in use."""
    return {port: bits & families for port, bits in ports.items() if bits & families}


def changes(bound: Ports, wanted: Ports) -> tuple[list[int], list[int]]:
    """Return which ports to close and then which to open, in rising order.

    A port whose families have changed is in both lists.
    """
    close = [port for port in bound if bound[port] != wanted.get(port)]
    open_ = [port for port in wanted if wanted[port] != bound.get(port)]
    return sorted(close), sorted(open_)
