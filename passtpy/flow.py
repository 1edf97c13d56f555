# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python twins of the datapath's flow enums, the verdict, and a flow as text.

The numbers repeat those of the C half; a test compares both, so this file needs no
extension module to be imported.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple, Protocol

from passtpy.addr import UNSPECIFIED, is_v4, show_endpoint

IPPROTO_ICMP = 1
IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_ICMPV6 = 58

PROTO_NAMES = {
    IPPROTO_ICMP: "icmp",
    IPPROTO_TCP: "tcp",
    IPPROTO_UDP: "udp",
    IPPROTO_ICMPV6: "icmpv6",
}


class Pif(IntEnum):
    """A passt interface: a flow joins two of them."""

    NONE = 0
    HOST = 1
    TAP = 2
    SPLICE = 3


class FlowState(IntEnum):
    """Where a flow stands on its one-way road from FREE to ACTIVE."""

    FREE = 0
    NEW = 1
    INI = 2
    TGT = 3
    TYPED = 4
    ACTIVE = 5


class FlowType(IntEnum):
    """Which handler owns the flow."""

    NONE = 0
    TCP = 1
    TCP_SPLICE = 2
    PING4 = 3
    PING6 = 4
    UDP = 5
    UDP_SPLICE = 6


class Action(IntEnum):
    """What a verdict tells the datapath to do with a miss."""

    DROP = 0
    FORWARD = 1
    SPLICE = 2
    REJECT = 3
    INSPECT = 4  # the guest says first where to: Said, then connect() or adopt()


class PuntKind(IntEnum):
    """Whom a frame is for that the datapath lifts."""

    NONE = 0
    ARP = 1
    ND = 2
    DHCP4 = 3
    DHCP6 = 4
    MEMBERSHIP = 5  # IGMP, MLD
    GROUP = 6  # another datagram for a group, or for everybody
    DNS = 7  # a question to any server


class FlowWhy(IntEnum):
    """Why a flow was closed."""

    NONE = 0
    DONE = 1
    RST_GUEST = 2
    RST_PEER = 3
    REFUSED = 4
    UNREACHABLE = 5
    TIMEOUT = 6
    IDLE = 7
    NO_BUFFER = 8
    SHUTDOWN = 9
    ASKED = 10  # somebody wanted it closed
    POLICY = 11  # the rules of today would not let it in
    EVICTED = 12
    LIMIT = 13  # what it may move in all is used up


class Verdict(NamedTuple):
    """The answer to a miss; a tuple because it crosses the border once per flow."""

    action: int
    pif: int  # target pif: Pif.HOST or Pif.TAP; Pif.SPLICE with Action.SPLICE
    eaddr: bytes  # target side endpoint (inany): where the flow goes
    eport: int
    oaddr: bytes  # HOST: bind() source, UNSPECIFIED = kernel's. TAP: source seen
    oport: int  # HOST: 0 = kernel's choice. TAP: source port the guest sees
    rule: int  # id of the rule that decided
    generation: int = 0  # of the policy that the rule is in
    proxy: int = 0  # version of the PROXY protocol that tells who the client is
    crosses: int = 0  # of datagrams: if nobody has the port there, ask once more


class Relayed(NamedTuple):
    """How datagrams of a flow leave through a SOCKS5 proxy."""

    fd: int  # connected to the relay
    control: int  # the connection that asked for it; it ends with the flow
    head: bytes  # goes before each datagram


class MissLike(Protocol):
    """The fields of `_native.Miss` that a decision reads."""

    @property
    def proto(self) -> int: ...
    @property
    def pif(self) -> int: ...
    @property
    def eaddr(self) -> bytes: ...
    @property
    def eport(self) -> int: ...
    @property
    def oaddr(self) -> bytes: ...
    @property
    def oport(self) -> int: ...
    @property
    def listener(self) -> int: ...
    @property
    def crossed(self) -> bool: ...  # of datagrams: the server has not their family
    @property
    def again(self) -> bool: ...  # nobody listens where the first verdict sent it


def ends_inside(miss: MissLike, verdict: Verdict) -> bool:
    """Whether a spliced flow needs a socket of the namespace.

    That of an accepted connection exists already; a datagram's initiator gets one of
    its own, or every answer would go through the listening socket, one by one.
    """
    starts_inside = miss.pif == Pif.SPLICE and miss.proto == IPPROTO_UDP
    return verdict.pif == Pif.SPLICE or starts_inside


class FlowRecord(NamedTuple):
    """A flow as the datapath lists it: one record of a page, with its fields named.

    Side 0 initiated, side 1 is the target; direction 0 is from side 0 to side 1. Of a
    flow in a log event only identity, type, state and sides are known: it may be gone.
    """

    flow_id: int
    created_ns: int
    last_use_ns: int
    packets0: int
    bytes0: int
    packets1: int
    bytes1: int
    rule: int
    generation: int
    listener: int
    eaddr0: bytes
    oaddr0: bytes
    eaddr1: bytes
    oaddr1: bytes
    eport0: int
    oport0: int
    eport1: int
    oport1: int
    proto: int
    type: int
    state: int
    pif0: int
    pif1: int
    tcp_flags0: int
    tcp_flags1: int

    @property
    def slot(self) -> int:
        """Return the flow's place in the table: short, but not its own for ever."""
        return self.flow_id & 0xFFFFFFFF

    @property
    def miss(self) -> "FlowMiss":
        """Return what was asked when this flow was decided about."""
        side = self.eaddr0, self.eport0, self.oaddr0, self.oport0
        return FlowMiss(self.proto, self.pif0, *side, self.listener)

    def endpoint(self, pif: Pif) -> bytes | None:
        """Return the address of whoever is at that end; None: the flow has none."""
        if self.pif0 == pif:
            return self.eaddr0
        return self.eaddr1 if self.pif1 == pif else None


# The layout of native/table/border_flow.def; a test compares
FLOW_STRUCT: Final = Struct("=QQQQQQQIIi16s16s16s16sHHHHBBBBBBB")


def flows_in(page: bytes) -> Iterator[FlowRecord]:
    """Yield the flows of a page of `Datapath.flows()`, or the one of a log event."""
    return map(FlowRecord._make, FLOW_STRUCT.iter_unpack(page))


def pages_of(
    flows: Callable[[int, int], tuple[bytes, int]], limit: int = 256
) -> Iterator[bytes]:
    """Yield the whole table, page by page; between two, packets may pass.

    `flows` is `Datapath.flows`. What lives through all of it is yielded exactly once.
    """
    cursor = 0
    while True:
        page, cursor = flows(cursor, limit)
        yield page
        if not cursor:
            return


class FlowMiss(NamedTuple):
    """A question about a flow that nobody holds parked: what if it were new?"""

    proto: int
    pif: int
    eaddr: bytes
    eport: int
    oaddr: bytes
    oport: int
    listener: int = -1
    crossed: bool = False
    again: bool = False


# How control's answers and its filters name a type: as protocol, spliced or not
TYPE_NAMES = {
    FlowType.NONE: "none",
    FlowType.TCP: "tcp",
    FlowType.TCP_SPLICE: "tcp",
    FlowType.PING4: "icmp",
    FlowType.PING6: "icmp6",
    FlowType.UDP: "udp",
    FlowType.UDP_SPLICE: "udp",
}
SPLICED_TYPES = frozenset({FlowType.TCP_SPLICE, FlowType.UDP_SPLICE})
TYPE_TITLES = {
    FlowType.TCP: "TCP connection",
    FlowType.TCP_SPLICE: "TCP connection (spliced)",
    FlowType.PING4: "ICMP ping sequence",
    FlowType.PING6: "ICMPv6 ping sequence",
    FlowType.UDP: "UDP exchange",
    FlowType.UDP_SPLICE: "UDP exchange (spliced)",
}


def _show_ours(ours: bytes, port: int, peer: bytes) -> str:
    """Show our own endpoint; an unspecified one takes the family of its peer."""
    if ours == UNSPECIFIED and is_v4(peer):
        return f"[0.0.0.0]:{port}"
    return show_endpoint(ours, port)


def describe_flow(flow: FlowRecord) -> str:
    """Return `TAP [a]:1 -> [b]:2 => HOST [c]:3 -> [b]:2`, or `=> ?` without target."""
    eaddr0, pif0 = flow.eaddr0, flow.pif0
    head = (
        f"{Pif(pif0).name} {show_endpoint(eaddr0, flow.eport0)}"
        f" -> {_show_ours(flow.oaddr0, flow.oport0, eaddr0)}"
    )
    if flow.pif1 == Pif.NONE:
        return f"{head} => ?"
    eaddr1 = flow.eaddr1
    ours = _show_ours(flow.oaddr1, flow.oport1, eaddr1)
    target = show_endpoint(eaddr1, flow.eport1)
    return f"{head} => {Pif(flow.pif1).name} {ours} -> {target}"


def describe_step(flow: FlowRecord, old: int) -> str:
    """Return `Flow 7 (TCP connection): TGT -> TYPED` for a step out of state `old`."""
    state = FlowState(flow.state)
    title = TYPE_TITLES.get(FlowType(flow.type), "no type yet")
    return f"Flow {flow.slot} ({title}): {FlowState(old).name} -> {state.name}"


EventTable = Sequence[tuple[str, int, Sequence[str]]]

# What to do about an event, where only the administrator of the host can help.
HELP: Final[dict[str, dict[str, str]]] = {
    "ping_denied": {
        "sysctl": "net.ipv4.ping_group_range",
        "to_allow": "let it include a group of ours, as in '0 2147483647'",
    },
}


class EventLike(Protocol):
    """The fields of `_native.Event` that a description reads."""

    @property
    def event(self) -> int: ...
    @property
    def flow_id(self) -> int: ...
    @property
    def flow(self) -> bytes | None: ...
    @property
    def args(self) -> Sequence[int]: ...


def describe_event(
    record: EventLike, table: EventTable
) -> tuple[str, int, dict[str, object]]:
    """Return name, level and fields of a log event; `table` is `_native.EVENTS`."""
    name, level, names = table[record.event]
    # A record has an "event" already: the handler's own one gets another key.
    keys = ("happened" if key == "event" else key for key in names if key)
    args: dict[str, object] = dict(zip(keys, record.args, strict=False))
    fields: dict[str, object] = {}
    if "reason" in args:
        args["reason"] = FlowWhy(record.args[0]).name.lower()
    if record.flow is not None:
        (flow,) = flows_in(record.flow)
        fields["flow"] = flow.slot
        if name.lower() == "flow_state" and "from" in args:
            fields["step"] = describe_step(flow, record.args[0])
            args = {}
        else:
            fields["type"] = FlowType(flow.type).name
        if flow.pif0 != Pif.NONE:
            fields["path"] = describe_flow(flow)
    return name.lower(), level, fields | args | HELP.get(name.lower(), {})
