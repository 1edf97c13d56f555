# SPDX-License-Identifier: GPL-2.0-or-later
"""The border between the control plane and the C datapath, as Python sees it.

Addresses are inany: 16 bytes in network order, IPv4 as v4-mapped; 16 zero bytes mean
unspecified. Ports are host-order ints. Records are struct sequences: tuples whose
fields also have names.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, Self, final

from _typeshed import structseq

PIF: Final[tuple[str, ...]]
FLOW_TYPES: Final[tuple[str, ...]]
FLOW_STATES: Final[tuple[str, ...]]
FLOW_WHYS: Final[tuple[str, ...]]
PUNT_KINDS: Final[tuple[str, ...]]
ACTIONS: Final[tuple[str, ...]]
COUNTERS: Final[tuple[str, ...]]
COUNTER_MEANINGS: Final[tuple[str, ...]]
# (name, level, names of the fields that are in use), in the order of Event.event
EVENTS: Final[tuple[tuple[str, int, tuple[str, ...]], ...]]

# (name, format of Python's struct module, offset) of the fields of a packed flow
FLOW_RECORD: Final[tuple[tuple[str, str, int], ...]]
FLOW_RECORD_SIZE: Final[int]

OFFLOAD_CSUM: Final[int]
OFFLOAD_TSO4: Final[int]
OFFLOAD_TSO6: Final[int]
OFFLOAD_USO4: Final[int]
OFFLOAD_USO6: Final[int]
MISS_DEADLINE_NS: Final[int]
LISTEN_MAX: Final[int]
VHOST_FEATURES: Final[int]  # virtio feature bits that the datapath can do

@final
class Miss(
    structseq[Any],
    tuple[int, int, int, bytes, int, bytes, int, int, bool, bool],
):
    """A frame, socket or datagram without a flow, parked until its verdict."""

    __match_args__: Final = (
        "miss_id",
        "proto",
        "pif",
        "eaddr",
        "eport",
        "oaddr",
        "oport",
        "listener",
        "crossed",
        "again",
    )

    @property
    def miss_id(self) -> int: ...
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

@final
class Punt(structseq[Any], tuple[int, bytes]):
    """An Ethernet frame lifted to a service, and to which: an index of PUNT_KINDS."""

    __match_args__: Final = ("kind", "frame")

    @property
    def kind(self) -> int: ...
    @property
    def frame(self) -> bytes: ...

@final
class Said(structseq[Any], tuple[int, bytes | None, bool]):
    """What the guest has said to a flow that is inspected: all of it, 16 KiB at most.

    `data` None: the flow is gone. `ended`: the guest says no more.
    """

    __match_args__: Final = ("flow_id", "data", "ended")

    @property
    def flow_id(self) -> int: ...
    @property
    def data(self) -> bytes | None: ...
    @property
    def ended(self) -> bool: ...

@final
class Gone(structseq[Any], tuple[int]):
    """The tap is gone, or its guest: with a backend that attaches, another may come."""

    __match_args__: Final = ("errno",)

    @property
    def errno(self) -> int: ...

@final
class Event(
    structseq[Any],
    tuple[int, int, int, bytes | None, tuple[int, ...]],
):
    """One log event; flow_id is -1 and flow None when it is about no flow.

    `flow` is packed as in flows(), with what was known of it at that time.
    """

    __match_args__: Final = ("time_ns", "event", "flow_id", "flow", "args")

    @property
    def time_ns(self) -> int: ...
    @property
    def event(self) -> int: ...
    @property
    def flow_id(self) -> int: ...
    @property
    def flow(self) -> bytes | None: ...
    @property
    def args(self) -> tuple[int, ...]: ...

@final
class Datapath:
    """The C half: owns the tap, every flow socket and the flow table."""

    log_level: int
    watched: bool  # tell of each flow that it began and ended, at any log_level
    scope_id: int
    lift_groups: bool
    lift_dns: bool
    udp_strict: bool
    guest_mac: bytes

    def __new__(
        cls,
        tap_fd: int,
        *,
        mtu: int,
        our_mac: bytes,
        guest_mac: bytes | None = None,
        max_flows: int = 131072,
        vnet_hdr: bool = True,
        offloads: int = 0,
        queue_frames: int = 500,
        virtual_time: bool = False,
        secret: bytes | None = None,
        # None: tun
        backend: Literal["tun", "stream", "vhost"] | None = None,
    ) -> Self: ...
    # stream: a guest came, and goes; flows stay. A guest that leaves by itself is told
    # by Gone each time.
    def attach(self, fd: int, /) -> None: ...
    # stream, vhost (stops all rings and forgets memory and features)
    def detach(self) -> None: ...
    # vhost: what a front-end's messages ask for. Ring 0 is the guest's receive queue,
    # ring 1 its transmit queue; a started ring is disabled. Gone tells that the guest's
    # memory was taken away (EFAULT) or a kick descriptor is none (EPROTO); the datapath
    # has detached then. Descriptors are taken over unless there is an exception; those
    # of regions stay the caller's, which may close them.
    def vhost_features(self, features: int, /) -> None: ...
    def vhost_memory(
        self,
        # guest_addr, size, user_addr, mmap_offset, fd
        regions: Sequence[tuple[int, int, int, int, int]],
        /,
    ) -> None: ...
    def vhost_ring(
        self,
        index: int,
        *,
        size: int,
        desc: int,
        used: int,
        avail: int,
        base: int,
        kick_fd: int,
        call_fd: int,
    ) -> None: ...
    def vhost_call(self, index: int, call_fd: int, /) -> None: ...
    def vhost_enable(self, index: int, enabled: bool, /) -> None: ...
    def vhost_stop(self, index: int, /) -> int: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    # errno of the write that ended the capture, or 0
    @property
    def pcap_error(self) -> int: ...
    def turn(
        self, now: int | None = None, slice_us: int = 1000, spin_us: int = 60
    ) -> list[Miss | Punt | Said | Gone] | tuple[()]: ...
    # The flow's handle; None when the verdict was to reject or to drop. OSError: no
    # flow could be opened; the initiator was told, unless the miss is gone (ESTALE), or
    # stands, as an accepted connection's does at its first ECONNREFUSED.
    # fd: a fresh socket of the namespace for a splice; or, where a TCP connection of
    # the guest is forwarded, a connected stream socket (TCP or UNIX) that is its peer.
    # Taken over, unless there is an exception.
    def open(
        self,
        miss_id: int,
        verdict: tuple[int, int, bytes, int, bytes, int, int, int, int, int],
        /,
        fd: int = -1,
    ) -> int | None: ...
    # Datagrams of the guest, through a SOCKS5 proxy (RFC 1928 section 7): fd is
    # connected to its relay, control the connection that asked for it, head what goes
    # before each datagram. Both are taken over, unless it fails; where control ends,
    # the flow ends. OSError ENFILE: there are too many.
    def open_relayed(
        self,
        miss_id: int,
        verdict: tuple[int, int, bytes, int, bytes, int, int, int, int, int],
        *,
        fd: int,
        control: int,
        head: bytes,
    ) -> int | None: ...
    # why: FLOW_WHYS.index("ASKED") or ("POLICY"). OSError ESTALE: the flow is gone. The
    # resets go out with the next turn.
    def close_flow(self, flow_id: int, why: int) -> None: ...
    # What may change of an open flow's verdict. admit: only if the limits of the rule
    # let another flow begin. OSError ESTALE: the flow is gone; EUSERS, EDQUOT: too many
    # flows, or a total is reached, and it is under the rule that it was under.
    def verdict(
        self, flow_id: int, *, rule: int, generation: int, admit: bool = False
    ) -> None: ...
    # Limits of the flows of a rule, all together; rule 0: of every flow. Rates are
    # bytes a second, new_flows too is a second; 0: any. What was counted stays. Open
    # flows come under it by verdict(). OSError ENOSPC: too many rules have limits.
    def limit(
        self,
        rule: int,
        *,
        rate_in: int = 0,
        rate_out: int = 0,
        total_in: int = 0,
        total_out: int = 0,
        flows: int = 0,
        new_flows: int = 0,
    ) -> None: ...
    def unlimit(self, rule: int, /) -> None: ...
    # By rule: bytes in and out, datagrams dropped in and out, flows that are open, were
    # refused, were closed, and whether a total is reached
    def limits(self) -> dict[int, tuple[int, int, int, int, int, int, int, bool]]: ...
    # Another connected stream socket (TCP or UNIX) in place of the one that a TCP
    # connection over the tap has, which is closed; taken over, unless there is an
    # exception. OSError EAGAIN: bytes of the old one are on their way to the guest.
    # forget: what the guest said to a flow that is inspected is not for this one.
    def adopt(self, flow_id: int, fd: int, *, forget: bool = False) -> None: ...
    # Let a flow that is inspected go on to an address, of the family of the one in its
    # verdict. OSError: it is still inspected; ESTALE: it is gone. Whoever says no later
    # resets the guest's connection.
    def connect(self, flow_id: int, eaddr: bytes, eport: int, /) -> None: ...
    # pif: 1 (HOST), or 3 (SPLICE) for a socket of the namespace
    def listen(self, fd: int, proto: int, listener: int, pif: int = 1) -> None: ...
    # a UNIX stream socket of the host: who comes by it appears to come from `addr` and
    # a port that is free, and to have asked for `addr` and `port`
    def listen_nameless(
        self, fd: int, listener: int, addr: bytes, port: int
    ) -> None: ...
    def unlisten(self, listener: int, /) -> None: ...
    # a socket that listens already; what waits in it is not lost
    def renumber(self, old: int, new: int, /) -> None: ...
    def inject(self, frame: bytes, /) -> None: ...
    def events(self, limit: int = 256) -> list[Event]: ...
    # A page of flows, each as FLOW_RECORD tells, and where to go on; 0: that was all
    def flows(self, cursor: int = 0, limit: int = 256) -> tuple[bytes, int]: ...
    def counters(self) -> dict[str, int]: ...
    def our_addrs(self, v4: bytes, v6: bytes) -> None: ...
    def outbound_if(self, v4: str, v6: str) -> None: ...
    def pcap(self, fd: int, /) -> None: ...
    def pcap_run(self, /) -> None: ...
    def ping_raw(self, fd: int, /) -> None: ...
    # Each direction: delay and jitter in ns, loss per million, and whether frames with
    # less delay overtake others. What is on its way stays so.
    def impair(
        self,
        from_guest: tuple[int, int, int, bool],
        to_guest: tuple[int, int, int, bool],
        seed: int = 1,
    ) -> None: ...
    # A program of passtpy.control.filter, bits of the sides wanted (1: tap, 2: sockets)
    def capture_start(self, filter: bytes, sides: int, snaplen: int) -> int: ...
    # Enhanced packet blocks, how many, and whether `room` was too little for one more
    def capture_take(
        self, number: int, room: int, packets: int, last: bool = False
    ) -> tuple[bytes, int, bool]: ...
    def capture_counts(self, number: int, /) -> tuple[int, int, int, int, int]: ...
    def capture_finish(self, number: int, /) -> None: ...
    def capture_stop(self, number: int, /) -> None: ...
    # Only in builds with PASSTPY_FAULTS.
    def faults(
        self, *, drop_ppm: int = 0, reorder_ppm: int = 0, seed: int = 1
    ) -> None: ...

# Whether a program of passtpy.control.filter chooses a packed flow
def filter_takes(filter: bytes, flow: bytes, now: int, /) -> bool: ...

# Only in builds with PASSTPY_FAULTS: each sys_ call of C, as file, line, name of the
# call, errors that it may give, times it was called and times it was made to fail.
def fault_sites() -> list[tuple[str, int, str, tuple[int, ...], int, int]]: ...
def fault(site: int, error: int, /, *, after: int = 0, times: int = 1) -> None: ...

# System calls that CPython 3.11 lacks (native/py/privilege.c and confine.c); OSError.
def setns(fd: int, nstype: int = 0, /) -> None: ...
def unshare(flags: int, /) -> None: ...
def clone_namespaces(flags: int, /) -> int: ...
def keep_capabilities(mask: int, /) -> None: ...
def no_new_privs() -> None: ...
def set_pdeathsig(signal: int, /) -> None: ...
def set_dumpable(flag: int, /) -> None: ...
def mount(
    source: str | None,
    target: str,
    fstype: str | None,
    flags: int,
    data: str | None = None,
    /,
) -> None: ...
def umount(target: str, /) -> None: ...
def seccomp(program: bytes, /) -> None: ...
def pivot_root(new_root: str, put_old: str, /) -> None: ...
def landlock_version() -> int: ...
def landlock_rules(files: int, network: int, scopes: int, /) -> int: ...
def landlock_allow(rules: int, folder: int, allowed: int, /) -> None: ...
def landlock_restrict(rules: int, /) -> None: ...
def signalfd(signals: tuple[int, ...], /) -> int: ...
def inotify_watch(path: str, mask: int, fd: int = -1, /) -> int: ...
