# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps answers for as long as they hold, in bounded memory.

Two tables: what was found, by name and type; and whole messages, by the bytes of the
question without its id and case, for the client that asks the same thing again and
again. Time is an argument (monotonic, ns).
"""

from collections import OrderedDict
from typing import Final, Generic, NamedTuple, TypeVar

from passtpy.services.dns.message import HEADER_LEN, MAX_TTL, Found, Key

MAX_FOUND: Final = 4096
MAX_MESSAGES: Final = 2048
MAX_QUESTION: Final = 300  # bytes: a name, and EDNS with a cookie
MIN_TTL: Final = 1  # seconds; a name without any would be asked for each packet
NEGATIVE_TTL: Final = 60  # of what does not say it
_NS: Final = 1_000_000_000
_TTL_OFFSET: Final = 4  # in a record, behind its name: type, class

K = TypeVar("K")
V = TypeVar("V")


class Kept(NamedTuple, Generic[V]):
    """A value, and from when until when it holds."""

    value: V
    since: int
    until: int


class _Table(Generic[K, V]):
    """Forgets what is too old, and what was used least recently."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[K, Kept[V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K, now: int) -> Kept[V] | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= now:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept

    def put(self, key: K, kept: Kept[V]) -> None:
        self._kept[key] = kept
        self._kept.move_to_end(key)
        if len(self._kept) > self._room:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()


class _Message(NamedTuple):
    """A whole answer, without its id; where its TTLs are; what it was made from."""

    body: bytes
    places: tuple[int, ...]
    key: Key


class Told(NamedTuple):
    """A whole answer as it is now, until when it is, and what it was made from."""

    message: bytes
    until: int
    key: Key


class Cache:
    """Answers that may be given again."""

    def __init__(self) -> None:
        self._found: _Table[Key, Found] = _Table(MAX_FOUND)
        self._messages: _Table[bytes, _Message] = _Table(MAX_MESSAGES)

    def __len__(self) -> int:
        return len(self._found)

    def clear(self) -> None:
        """Forget everything: the rules or the resolvers are others now."""
        self._found.clear()
        self._messages.clear()

    def find(self, key: Key, now: int) -> tuple[Found, int] | None:
        """Return what was found, and how many seconds ago."""
        kept = self._found.get(key, now)
        return None if kept is None else (kept.value, (now - kept.since) // _NS)

    def keep(self, key: Key, found: Found, now: int) -> None:
        """Keep what was found for its TTL, within bounds."""
        ttl = found.ttl()
        ttl = NEGATIVE_TTL if ttl is None else max(MIN_TTL, min(ttl, MAX_TTL))
        self._found.put(key, Kept(found, now, now + ttl * _NS))

    def find_message(self, question: bytes, now: int) -> Told | None:
        """Return the whole answer to a message, its TTLs counted down."""
        end = question.find(0, HEADER_LEN)
        kept = self._messages.get(_folded(question, end), now)
        if kept is None:
            return None
        body, places, key = kept.value
        age = (now - kept.since) // _NS
        until = min(kept.until, kept.since + (age + 1) * _NS)
        answer = bytearray(question[:2] + body)
        answer[HEADER_LEN:end] = question[HEADER_LEN:end]
        if not age:
            return Told(bytes(answer), until, key)
        for at in places:
            ttl = int.from_bytes(answer[at : at + 4], "big")
            answer[at : at + 4] = max(ttl - age, 0).to_bytes(4, "big")
        return Told(bytes(answer), until, key)

    def keep_message(self, question: bytes, answer: bytes, key: Key, now: int) -> None:
        """Keep an answer as it was sent, as long as what it was made from."""
        kept = self._found.get(key, now)
        places = ttl_places(answer)
        end = question.find(0, HEADER_LEN)
        if kept is None or places is None or len(question) > MAX_QUESTION:
            return
        if answer[HEADER_LEN : end + 1] != question[HEADER_LEN : end + 1]:
            return
        value = _Message(answer[2:], places, key)
        self._messages.put(_folded(question, end), Kept(value, now, kept.until))


def _folded(question: bytes, end: int) -> bytes:
    """Return a message without its id and the case of its name, which ends there.

    Who looks for answers of strangers asks in a case that only it knows (0x20). Lengths
    of labels are below 64, so that none is taken for a capital letter.
    """
    name = question[HEADER_LEN:end].lower()
    return question[2:HEADER_LEN] + name + question[end:]


def ttl_places(message: bytes) -> tuple[int, ...] | None:
    """Return where the TTLs of a message of ours are; None if one is cut short.

    The option of EDNS (RFC 6891) has flags in that place, and is left alone.
    """
    at = _skip_name(message, 12) + 4
    places = []
    records = sum(int.from_bytes(message[i : i + 2], "big") for i in (6, 8, 10))
    for _ in range(records):
        at = _skip_name(message, at)
        if at + 10 > len(message):
            return None
        if message[at : at + 2] != b"\0\x29":
            places.append(at + _TTL_OFFSET)
        at += 10 + int.from_bytes(message[at + 8 : at + 10], "big")
    return tuple(places)


def _skip_name(message: bytes, at: int) -> int:
    while at < len(message) and message[at]:
        if message[at] >= 0xC0:
            return at + 2
        at += 1 + message[at]
    return at + 1
