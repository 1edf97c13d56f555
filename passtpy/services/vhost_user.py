# SPDX-License-Identifier: GPL-2.0-or-later
"""A conversation of vhost-user, as the back-end sees it: what each message means.

Sans-IO: a message and the descriptors beside it go in, actions come out, for others to
carry out in that order. Descriptors are only numbers here. Each that went in comes out
in exactly one action, at once or (that of a call, which may come before its ring is
started) later; what is kept is dropped with the conversation.

Ring 0 is the guest's receive queue, ring 1 its transmit queue. A ring is started by its
kick, once everything about it is known, and stopped by GET_VRING_BASE. Whether it is
enabled is a different question, and outlives a stop: QEMU enables rings when the device
is made, before it has accepted any feature.

A front-end that was told to have several pairs of queues prepares all of them and gives
up where there are fewer: QEMU connects again and again, and its guest never starts. So
rings of further pairs may be prepared. They cannot be started: the guest's driver is
not offered VIRTIO_NET_F_MQ, and uses the first pair alone.
"""

from typing import Final

from passtpy.errors import WireError
from passtpy.record import record
from passtpy.wire.vhost_user import (
    U64,
    MemoryRegion,
    MemoryTable,
    Message,
    Nothing,
    Request,
    VringAddress,
    VringFile,
    VringState,
)

RINGS: Final = 2
TO_GUEST: Final = 0
QUEUE_PAIRS: Final = 64  # that may be prepared: ring numbers have eight bits
PREPARED_RINGS: Final = 2 * QUEUE_PAIRS
MAX_RING: Final = 32768  # descriptors of a split ring (virtio 1.2, 2.7)
MAX_BASE: Final = 0xFFFF  # of the ring's index, which wraps around
NO_FD: Final = -1

F_PROTOCOL_FEATURES: Final = 1 << 30  # beside the features of virtio
PROTOCOL_F_MQ: Final = 1 << 0  # GET_QUEUE_NUM may be asked
PROTOCOL_F_REPLY_ACK: Final = 1 << 3
PROTOCOL_FEATURES: Final = PROTOCOL_F_MQ | PROTOCOL_F_REPLY_ACK

SUCCESS: Final = 0
FAILURE: Final = 1


@record
class UseFeatures:
    """The guest's driver and the front-end have settled on these."""

    features: int


@record
class MapMemory:
    """This is all of the guest's memory from now on; each region has a descriptor."""

    regions: tuple[MemoryRegion, ...]
    fds: tuple[int, ...]


@record
class StartRing:
    """Serve a ring; its descriptors go with it."""

    address: VringAddress
    size: int
    base: int
    kick_fd: int
    call_fd: int


@record
class SetCall:
    """Tell the guest through another descriptor, NO_FD: not at all."""

    index: int
    call_fd: int


@record
class EnableRing:
    """Let frames pass, or no more."""

    index: int
    enabled: bool


@record
class StopRing:
    """Serve a ring no more, and tell `Conversation.stopped()` where it stood."""

    index: int


@record
class CloseFd:
    """Nobody needs this descriptor."""

    fd: int


@record
class Answer:
    """Send a message back."""

    message: Message


Action = (
    UseFeatures
    | MapMemory
    | StartRing
    | SetCall
    | EnableRing
    | StopRing
    | CloseFd
    | Answer
)


@record(frozen=False)
class _Ring:
    """What the front-end has said of a ring so far."""

    size: int = 0
    base: int = 0
    address: VringAddress | None = None
    call_fd: int = NO_FD  # until it is started
    enabled: bool = False
    running: bool = False


def _reply(request: Request, value: int) -> Message:
    return Message(request, U64(value), reply=True)


class Conversation:
    """What one front-end has said, from its connection to its end."""

    def __init__(self, features: int) -> None:
        """Offer these features of virtio."""
        self._offered = features | F_PROTOCOL_FEATURES
        self._features: int | None = None
        self._protocol_features = 0
        self._has_memory = False
        self._rings = tuple(_Ring() for _ in range(PREPARED_RINGS))

    def handle(self, message: Message, fds: tuple[int, ...]) -> list[Action]:
        """Return what is to be done; WireError: this front-end is not to be trusted.

        With WireError none of `fds` has been taken.
        """
        if message.reply:
            raise WireError(f"vhost-user: {message.request.name} as a reply")
        if len(fds) != message.fd_count:
            raise WireError(
                f"vhost-user: {message.request.name} with {len(fds)} descriptors,"
                f" not {message.fd_count}"
            )
        actions = self._take(message, fds)
        answers = any(isinstance(action, Answer | StopRing) for action in actions)
        if not answers and self._wants_reply(message):
            actions.append(Answer(_reply(message.request, SUCCESS)))
        return actions

    def refuse(self, message: Message) -> list[Action]:
        """Return what to say when the actions of `message` could not be carried out."""
        if self._wants_reply(message):
            return [Answer(_reply(message.request, FAILURE))]
        return []

    def stopped(self, index: int, base: int) -> Answer:
        """Return the answer after StopRing; the ring's next buffer is at `base`."""
        self._rings[index].base = base
        state = VringState(index, base)
        return Answer(Message(Request.GET_VRING_BASE, state, reply=True))

    def _wants_reply(self, message: Message) -> bool:
        can = self._protocol_features & PROTOCOL_F_REPLY_ACK
        return message.need_reply and bool(can)

    def _take(self, message: Message, fds: tuple[int, ...]) -> list[Action]:
        request = message.request
        match message.payload:
            case Nothing():
                return self._take_bare(request)
            case U64(value):
                return self._take_features(request, value)
            case MemoryTable(regions):
                self._has_memory = True
                return [MapMemory(regions, fds)]
            case VringState() as state:
                return self._take_state(request, state)
            case VringAddress() as address:
                return self._take_address(address)
            case VringFile(index, has_fd):
                return self._take_fd(request, index, fds[0] if has_fd else NO_FD)

    def _take_bare(self, request: Request) -> list[Action]:
        match request:
            case Request.GET_FEATURES:
                return [Answer(_reply(request, self._offered))]
            case Request.GET_PROTOCOL_FEATURES:
                return [Answer(_reply(request, PROTOCOL_FEATURES))]
            case Request.GET_QUEUE_NUM:
                return [Answer(_reply(request, QUEUE_PAIRS))]
            case Request.RESET_OWNER:
                # Deprecated, and read in two ways; to disable is the harmless one.
                states = [VringState(index, 0) for index in range(RINGS)]
                return [action for state in states for action in self._enable(state)]
        return []  # SET_OWNER: whoever is connected is the owner

    def _take_features(self, request: Request, features: int) -> list[Action]:
        known = PROTOCOL_FEATURES
        if request is Request.SET_FEATURES:
            known = self._offered
        if unknown := features & ~known:
            raise WireError(
                f"vhost-user: {request.name} with {unknown:#x}, which was not offered"
            )
        if request is Request.SET_PROTOCOL_FEATURES:
            self._protocol_features = features
            return []
        if features == self._features:
            return []
        if any(ring.running for ring in self._rings):
            raise WireError("vhost-user: features changed while a ring is running")
        self._features = features
        if not features & F_PROTOCOL_FEATURES:
            for ring in self._rings:  # nobody will ever enable them
                ring.enabled = True
        return [UseFeatures(features & ~F_PROTOCOL_FEATURES)]

    def _ring(self, request: Request, index: int, *, stopped: bool = False) -> _Ring:
        """Return the ring that a request is about, and insist that it is `stopped`."""
        if index >= PREPARED_RINGS:
            raise WireError(f"vhost-user: {request.name} for ring {index}")
        ring = self._rings[index]
        if stopped and ring.running:
            raise WireError(
                f"vhost-user: {request.name} for ring {index}, which is running"
            )
        return ring

    def _take_state(self, request: Request, state: VringState) -> list[Action]:
        index, num = state.index, state.num
        match request:
            case Request.SET_VRING_ENABLE:
                return self._enable(state)
            case Request.GET_VRING_BASE:
                return self._stop(index)
            case Request.SET_VRING_NUM:
                if not 0 < num <= MAX_RING or num & (num - 1):
                    raise WireError(f"vhost-user: ring of {num} descriptors")
                self._ring(request, index, stopped=True).size = num
            case Request.SET_VRING_BASE:
                if num > MAX_BASE:
                    raise WireError(f"vhost-user: ring that begins at {num}")
                self._ring(request, index, stopped=True).base = num
        return []

    def _enable(self, state: VringState) -> list[Action]:
        request = Request.SET_VRING_ENABLE
        ring = self._ring(request, state.index)
        if state.num > 1:
            raise WireError(f"vhost-user: {request.name} with {state.num}")
        ring.enabled = bool(state.num)
        return [EnableRing(state.index, ring.enabled)] if ring.running else []

    def _take_address(self, address: VringAddress) -> list[Action]:
        ring = self._ring(Request.SET_VRING_ADDR, address.index)
        if ring.address != address:
            self._ring(Request.SET_VRING_ADDR, address.index, stopped=True)
            ring.address = address
        return []

    def _take_fd(self, request: Request, index: int, fd: int) -> list[Action]:
        if request is Request.SET_VRING_KICK:
            return self._start(index, fd)
        ring = self._ring(request, index)
        if request is Request.SET_VRING_CALL and ring.running:
            return [SetCall(index, fd)]
        if request is Request.SET_VRING_CALL:
            fd, ring.call_fd = ring.call_fd, fd
        # Errors of a ring end the conversation: nobody signals them.
        return [] if fd == NO_FD else [CloseFd(fd)]

    def _stop(self, index: int) -> list[Action]:
        ring = self._ring(Request.GET_VRING_BASE, index)
        if not ring.running:
            return [self.stopped(index, ring.base)]
        ring.running = False
        return [StopRing(index)]

    def _start(self, index: int, kick_fd: int) -> list[Action]:
        ring = self._ring(Request.SET_VRING_KICK, index, stopped=True)
        if index >= RINGS:
            raise WireError(
                f"vhost-user: ring {index} started, of a pair that the guest was not"
                " offered (one queue pair is served)"
            )
        lacking = [
            name
            for name, there in (
                ("kick", kick_fd != NO_FD),
                ("features", self._features is not None),
                ("memory", self._has_memory),
                ("size", ring.size),
                ("address", ring.address),
            )
            if not there
        ]
        if lacking or ring.address is None:
            raise WireError(f"vhost-user: ring {index} without {', '.join(lacking)}")
        call_fd, ring.call_fd = ring.call_fd, NO_FD
        ring.running = True
        return [
            StartRing(ring.address, ring.size, ring.base, kick_fd, call_fd),
            EnableRing(index, ring.enabled),
        ]
