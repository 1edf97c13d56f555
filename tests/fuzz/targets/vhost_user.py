# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of a hypervisor, and the conversation that they make.

Descriptors are numbers here: each must be closed or handed over once, and no other.
"""

from passtpy.errors import WireError
from passtpy.services.vhost_user import (
    NO_FD,
    Action,
    CloseFd,
    Conversation,
    MapMemory,
    SetCall,
    StartRing,
    StopRing,
)
from passtpy.wire.vhost_user import HEADER_LEN, Header, Message

_OFFERED = (1 << 32) | (1 << 15)


class _Descriptors:
    """Numbers that came with messages, and were not closed or handed over yet."""

    def __init__(self) -> None:
        self.next = 100
        self.open: set[int] = set()

    def receive(self, count: int) -> tuple[int, ...]:
        fds = tuple(range(self.next, self.next + count))
        self.next += count
        self.open |= set(fds)
        return fds

    def _take(self, *fds: int) -> None:
        for fd in fds:
            if fd != NO_FD:
                self.open.remove(fd)

    def follow(self, action: Action) -> None:
        match action:
            case CloseFd(fd):
                self._take(fd)
            case MapMemory(regions, fds):
                assert len(regions) == len(fds)
                assert self.open.issuperset(fds)
            case StartRing():
                assert action.size
                self._take(action.kick_fd, action.call_fd)
            case SetCall(_, fd):
                self._take(fd)
            case _:
                pass


def _messages(data: bytes) -> list[tuple[Message, int]]:
    """Read messages one after the other, each behind its number of descriptors."""
    found = []
    while len(data) > HEADER_LEN:
        count, header = data[0], Header.parse(data[1 : 1 + HEADER_LEN])
        body = data[1 + HEADER_LEN :]
        if len(body) < header.size:
            break
        message = Message.parse(header, body[: header.size])
        sent = message.emit()
        assert (
            Message.parse(Header.parse(sent[:HEADER_LEN]), sent[HEADER_LEN:]) == message
        )
        # mostly as many as it should have
        found.append((message, message.fd_count if count < 200 else count % 16))
        data = body[header.size :]
    return found


def play(data: bytes) -> None:
    """Hold a conversation until it ends."""
    conversation, descriptors = Conversation(_OFFERED), _Descriptors()
    try:
        for message, count in _messages(data):
            str(message)
            before = set(descriptors.open)
            fds = descriptors.receive(count)
            try:
                actions = conversation.handle(message, fds)
            except WireError:
                assert descriptors.open == before | set(fds)
                raise
            for action in actions:
                descriptors.follow(action)
                if isinstance(action, StopRing):
                    conversation.stopped(action.index, 7)
    except WireError:
        return
