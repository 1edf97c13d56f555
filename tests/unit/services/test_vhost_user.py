# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversations of vhost-user: those that QEMU holds, and those that nobody should."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.errors import WireError
from passtpy.services.vhost_user import (
    F_PROTOCOL_FEATURES,
    FAILURE,
    NO_FD,
    PROTOCOL_F_MQ,
    PROTOCOL_F_REPLY_ACK,
    Action,
    Answer,
    CloseFd,
    Conversation,
    EnableRing,
    MapMemory,
    SetCall,
    StartRing,
    StopRing,
    UseFeatures,
)
from passtpy.wire.vhost_user import (
    U64,
    MemoryRegion,
    MemoryTable,
    Message,
    Nothing,
    Payload,
    Request,
    VringAddress,
    VringFile,
    VringState,
)
from tests.unit.wire.test_vhost_user import messages

R = Request
VERSION_1 = 1 << 32
MRG_RXBUF = 1 << 15
OFFERED = VERSION_1 | MRG_RXBUF
BOTH = F_PROTOCOL_FEATURES | VERSION_1
PROTOCOL = PROTOCOL_F_MQ | PROTOCOL_F_REPLY_ACK

LOW = MemoryRegion(0, 0xA0000, 0x7F3340000000, 0)
HIGH = MemoryRegion(0xC0000, 0xFF40000, 0x7F33400C0000, 0xC0000)
TABLE = MemoryTable((LOW, HIGH))
RING0 = VringAddress(0, desc=0x1000, used=0x3000, avail=0x2000, log=0x3000)
RING1 = VringAddress(1, desc=0x5000, used=0x7000, avail=0x6000, log=0x7000)

Script = Iterable[tuple[Message, tuple[int, ...], list[Action]]]


def ask(
    request: Request, payload: Payload | None = None, *, need_reply: bool = False
) -> Message:
    """A message of the front-end."""
    return Message(request, payload or Nothing(), need_reply=need_reply)


def number(request: Request, value: int) -> Answer:
    """An answer that is a number."""
    return Answer(Message(request, U64(value), reply=True))


def state(request: Request, index: int, num: int, *, ack: bool = False) -> Message:
    """A message about a ring."""
    return ask(request, VringState(index, num), need_reply=ack)


def file(request: Request, index: int, has_fd: bool = True) -> Message:
    """A message with a descriptor for a ring."""
    return ask(request, VringFile(index, has_fd))


def play(talk: Conversation, script: Script) -> None:
    """Say every line and check what comes of it."""
    for message, fds, wanted in script:
        assert talk.handle(message, fds) == wanted, str(message)


def connects() -> Script:
    """What QEMU says when its device is made."""
    return [
        (ask(R.GET_FEATURES), (), [number(R.GET_FEATURES, BOTH | MRG_RXBUF)]),
        (
            ask(R.GET_PROTOCOL_FEATURES),
            (),
            [number(R.GET_PROTOCOL_FEATURES, PROTOCOL)],
        ),
        (ask(R.SET_PROTOCOL_FEATURES, U64(PROTOCOL)), (), []),
        (ask(R.GET_QUEUE_NUM), (), [number(R.GET_QUEUE_NUM, 64)]),
        (ask(R.SET_OWNER), (), []),
        (ask(R.GET_FEATURES), (), [number(R.GET_FEATURES, BOTH | MRG_RXBUF)]),
        (file(R.SET_VRING_CALL, 0), (7,), []),
        (file(R.SET_VRING_ERR, 0), (8,), [CloseFd(8)]),
        (file(R.SET_VRING_CALL, 1), (9,), []),
        (file(R.SET_VRING_ERR, 1), (10,), [CloseFd(10)]),
    ]


def enables(*, ack: bool) -> Script:
    """Rings are enabled before there is a driver; QEMU 10 waits for an answer."""
    enable = R.SET_VRING_ENABLE
    wanted: list[Action] = [number(enable, 0)] if ack else []
    for index in (0, 1, 0, 1):
        yield state(enable, index, 1, ack=ack), (), wanted


def maps(features: int = BOTH) -> Script:
    """The guest's driver is there."""
    return [
        (
            ask(R.SET_FEATURES, U64(features)),
            (),
            [UseFeatures(features & ~F_PROTOCOL_FEATURES)],
        ),
        (
            ask(R.SET_MEM_TABLE, TABLE, need_reply=True),
            (20, 21),
            [MapMemory((LOW, HIGH), (20, 21)), number(R.SET_MEM_TABLE, 0)],
        ),
    ]


def starts(address: VringAddress, base: int, kick: int, held: int) -> Script:
    """A ring is started; its call arrives once more, after the kick."""
    index = address.index
    return [
        (state(R.SET_VRING_NUM, index, 256), (), []),
        (state(R.SET_VRING_BASE, index, base), (), []),
        (ask(R.SET_VRING_ADDR, address), (), []),
        (
            file(R.SET_VRING_KICK, index),
            (kick,),
            [StartRing(address, 256, base, kick, held), EnableRing(index, True)],
        ),
        (file(R.SET_VRING_CALL, index), (kick + 1,), [SetCall(index, kick + 1)]),
    ]


def stops(talk: Conversation, index: int, base: int) -> None:
    """A ring is stopped; the answer tells where."""
    base_of = R.GET_VRING_BASE
    play(talk, [(state(base_of, index, 0), (), [StopRing(index)])])
    assert talk.stopped(index, base) == Answer(
        Message(base_of, VringState(index, base), reply=True)
    )


@pytest.mark.parametrize("ack", [False, True], ids=["qemu-7.2", "qemu-10"])
def test_qemu_boots_a_guest_and_resets_it(ack: bool) -> None:
    talk = Conversation(OFFERED)
    play(talk, connects())
    play(talk, enables(ack=ack))
    play(talk, maps())
    play(talk, starts(RING0, 0, kick=30, held=7))
    play(talk, starts(RING1, 0, kick=40, held=9))
    stops(talk, 0, 17)
    stops(talk, 1, 4)
    play(talk, enables(ack=ack))
    # Another driver, which accepts more; the rings begin at zero again.
    play(talk, maps(BOTH | MRG_RXBUF))
    play(talk, starts(RING0, 0, kick=50, held=NO_FD))
    play(talk, starts(RING1, 0, kick=60, held=NO_FD))


def test_qemu_pauses_a_guest() -> None:
    talk = started()
    stops(talk, 0, 65535)
    same = ask(R.SET_FEATURES, U64(BOTH))
    play(talk, [(same, (), [])])  # nothing new
    play(talk, starts(RING0, 65535, kick=50, held=NO_FD))


def started() -> Conversation:
    """A conversation with both rings running and enabled."""
    talk = Conversation(OFFERED)
    play(talk, connects())
    play(talk, enables(ack=False))
    play(talk, maps())
    play(talk, starts(RING0, 0, kick=30, held=7))
    play(talk, starts(RING1, 0, kick=40, held=9))
    return talk


def ready(features: int = BOTH) -> Conversation:
    """A conversation in which only the kicks are missing."""
    talk = Conversation(OFFERED)
    play(talk, maps_quietly(features))
    for address in (RING0, RING1):
        play(talk, list(starts(address, 0, 0, 0))[:3])
    return talk


def maps_quietly(features: int) -> Script:
    """The same as maps(), before acknowledgements were agreed on."""
    features_line, (table, fds, actions) = maps(features)
    return [features_line, (table, fds, actions[:1])]


def test_rings_wait_to_be_enabled() -> None:
    talk = ready()
    start = StartRing(RING0, 256, 0, 30, NO_FD)
    enable = R.SET_VRING_ENABLE
    play(
        talk,
        [
            (file(R.SET_VRING_KICK, 0), (30,), [start, EnableRing(0, False)]),
            (state(enable, 0, 1), (), [EnableRing(0, True)]),
            (state(enable, 0, 0), (), [EnableRing(0, False)]),
            (state(enable, 1, 1), (), []),  # it is not running
        ],
    )


def test_without_protocol_features_rings_start_enabled() -> None:
    talk = ready(VERSION_1)
    start = StartRing(RING1, 256, 0, 30, NO_FD)
    kick = file(R.SET_VRING_KICK, 1)
    play(talk, [(kick, (30,), [start, EnableRing(1, True)])])


def test_the_last_call_before_the_start_counts() -> None:
    talk = ready()
    start = StartRing(RING0, 256, 0, 30, 22)
    play(
        talk,
        [
            (file(R.SET_VRING_CALL, 0), (20,), []),
            (file(R.SET_VRING_CALL, 0, has_fd=False), (), [CloseFd(20)]),
            (file(R.SET_VRING_CALL, 0), (21,), []),
            (file(R.SET_VRING_CALL, 0), (22,), [CloseFd(21)]),
            (file(R.SET_VRING_KICK, 0), (30,), [start, EnableRing(0, False)]),
            (file(R.SET_VRING_CALL, 0, has_fd=False), (), [SetCall(0, NO_FD)]),
        ],
    )


def test_a_ring_that_never_ran_tells_its_base() -> None:
    talk = Conversation(OFFERED)
    base = Answer(Message(R.GET_VRING_BASE, VringState(1, 5), reply=True))
    play(
        talk,
        [
            (state(R.SET_VRING_BASE, 1, 5), (), []),
            (state(R.GET_VRING_BASE, 1, 0, ack=True), (), [base]),
        ],
    )


def test_reset_owner_disables_the_rings() -> None:
    disabled: list[Action] = [EnableRing(0, False), EnableRing(1, False)]
    play(started(), [(ask(R.RESET_OWNER), (), disabled)])


def test_memory_may_change_while_rings_run() -> None:
    mapped = MapMemory((LOW,), (50,))
    table = ask(R.SET_MEM_TABLE, MemoryTable((LOW,)))
    play(started(), [(table, (50,), [mapped])])


def test_the_same_address_may_be_told_again() -> None:
    play(started(), [(ask(R.SET_VRING_ADDR, RING0), (), [])])


def test_nothing_is_acknowledged_before_it_was_agreed() -> None:
    talk = Conversation(OFFERED)
    owner = ask(R.SET_OWNER, need_reply=True)
    play(talk, [(owner, (), [])])
    assert talk.refuse(owner) == []
    play(talk, [(ask(R.SET_PROTOCOL_FEATURES, U64(PROTOCOL)), (), [])])
    play(talk, [(owner, (), [number(R.SET_OWNER, 0)])])
    assert talk.refuse(owner) == [number(R.SET_OWNER, FAILURE)]
    assert talk.refuse(ask(R.SET_OWNER)) == []


@pytest.mark.parametrize(
    ("message", "fds", "complaint"),
    [
        (Message(R.GET_FEATURES, U64(0), reply=True), (), "as a reply"),
        (ask(R.SET_OWNER), (50,), "SET_OWNER with 1 descriptors, not 0"),
        (file(R.SET_VRING_CALL, 0), (), "with 0 descriptors, not 1"),
        (file(R.SET_VRING_CALL, 0), (50, 51), "with 2 descriptors, not 1"),
        (file(R.SET_VRING_ERR, 0, has_fd=False), (50,), "with 1 desc"),
        (ask(R.SET_MEM_TABLE, TABLE), (50,), "with 1 descriptors, not 2"),
        (ask(R.SET_FEATURES, U64(BOTH | 1 << 34)), (), "0x400000000, which"),
        (ask(R.SET_PROTOCOL_FEATURES, U64(2)), (), "0x2, which was not"),
        (ask(R.SET_FEATURES, U64(BOTH | MRG_RXBUF)), (), "features changed"),
        (state(R.SET_VRING_NUM, 128, 256), (), "for ring 128"),
        (state(R.SET_VRING_NUM, 0, 256), (), "ring 0, which is running"),
        (state(R.SET_VRING_NUM, 0, 0), (), "ring of 0 descriptors"),
        (state(R.SET_VRING_NUM, 0, 255), (), "ring of 255 descriptors"),
        (state(R.SET_VRING_NUM, 0, 65536), (), "ring of 65536 descriptors"),
        (state(R.SET_VRING_BASE, 0, 65536), (), "begins at 65536"),
        (state(R.SET_VRING_BASE, 1, 1), (), "which is running"),
        (state(R.SET_VRING_ENABLE, 0, 2), (), "SET_VRING_ENABLE with 2"),
        (state(R.SET_VRING_ENABLE, 200, 1), (), "for ring 200"),
        (state(R.GET_VRING_BASE, 2**32 - 1, 1), (), "for ring 4294967295"),
        (ask(R.SET_VRING_ADDR, VringAddress(0, 1, 2, 3)), (), "is running"),
        (ask(R.SET_VRING_ADDR, VringAddress(128, 1, 2, 3)), (), "for ring 128"),
        (file(R.SET_VRING_KICK, 0), (50,), "which is running"),
        (file(R.SET_VRING_KICK, 255), (50,), "for ring 255"),
        (file(R.SET_VRING_CALL, 130), (50,), "for ring 130"),
        (file(R.SET_VRING_ERR, 130), (50,), "for ring 130"),
    ],
)
def test_a_violation_is_named(
    message: Message, fds: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(WireError, match=complaint):
        started().handle(message, fds)


def test_rings_of_further_pairs_are_prepared_but_not_started() -> None:
    """QEMU with queues=2: without answers for ring 2 its guest never starts."""
    talk = started()
    play(talk, [
        (file(R.SET_VRING_CALL, 2), (50,), []),
        (file(R.SET_VRING_ERR, 2), (51,), [CloseFd(51)]),
        (state(R.SET_VRING_ENABLE, 2, 1), (), []),
        (state(R.SET_VRING_NUM, 2, 256), (), []),
        (state(R.SET_VRING_BASE, 2, 0), (), []),
        (ask(R.SET_VRING_ADDR, VringAddress(2, 1, 2, 3)), (), []),
        (state(R.GET_VRING_BASE, 3, 0), (), [talk.stopped(3, 0)]),
    ])  # fmt: skip
    with pytest.raises(WireError, match="ring 2 started"):
        talk.handle(file(R.SET_VRING_KICK, 2), (52,))


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        (R.SET_FEATURES, "without features"),
        (R.SET_MEM_TABLE, "without memory"),
        (R.SET_VRING_NUM, "without size"),
        (R.SET_VRING_ADDR, "without address"),
        (None, "without kick"),
    ],
)
def test_a_ring_starts_only_when_all_is_known(
    missing: Request | None, complaint: str
) -> None:
    talk = Conversation(OFFERED)
    for script in (maps_quietly(BOTH), list(starts(RING0, 0, 0, 0))[:3]):
        play(talk, [line for line in script if line[0].request is not missing])
    kick = file(R.SET_VRING_KICK, 0, has_fd=missing is not None)
    with pytest.raises(WireError, match=complaint):
        talk.handle(kick, (30,) if missing is not None else ())


def handed_on(actions: Iterable[Action]) -> list[int]:
    """The descriptors that actions carry away."""
    fds: list[int] = []
    for action in actions:
        match action:
            case MapMemory():
                fds += action.fds
            case StartRing():
                fds += (action.kick_fd, action.call_fd)
            case SetCall() | CloseFd():
                fds.append(action.fd if isinstance(action, CloseFd) else action.call_fd)
    return [fd for fd in fds if fd != NO_FD]


def likely(message: Message) -> Message:
    """The same with numbers that lead somewhere more often."""
    match message.payload:
        case VringState(index, num):
            payload: Payload = VringState(index % 3, num % 5)
        case VringFile(index, has_fd):
            payload = VringFile(index % 3, has_fd)
        case VringAddress(index=index):
            payload = VringAddress(index % 3, 0x1000, 0x2000, 0x3000)
        case U64(value) if not message.reply:
            payload = U64(value & (BOTH | MRG_RXBUF | PROTOCOL))
        case other:
            payload = other
    return Message(message.request, payload, message.reply, message.need_reply)


@given(st.lists(messages().map(likely), max_size=40), st.data())
def test_no_descriptor_comes_out_twice(
    script: list[Message], data: st.DataObject
) -> None:
    talk, given_fds, out = Conversation(OFFERED), 100, list[int]()
    for message in script:
        count = message.fd_count
        fds = tuple(range(given_fds, given_fds + count))
        given_fds += count
        try:
            actions = talk.handle(message, fds)
        except WireError:
            continue  # an honest front-end's next one shall still be sound
        out += handed_on(actions)
        for action in actions:
            if isinstance(action, StopRing):
                talk.stopped(action.index, data.draw(st.integers(0, 0xFFFF)))
    assert len(out) == len(set(out))
    assert set(out) <= set(range(100, given_fds))
