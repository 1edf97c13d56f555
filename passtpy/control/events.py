# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens, told to whoever listens: a ring of lines, and places in it.

Each event has a number, and becomes text when the first reader takes it. A reader takes
lines from where it stands; one that falls so far behind that the ring has gone on is
told how many it missed. A reader that does not read costs nothing: nobody looks at it
until it does.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from passtpy.control.verb import Stream

ROOM: Final = 4096  # events that are kept
PIECE: Final = 64  # lines that are taken at a time

Fields = Mapping[str, Any]
Told = tuple[int, float, str, Fields | Callable[[], Fields]]

LINES_TYPE: Final = "application/x-ndjson"


class Events:
    """The ring."""

    def __init__(
        self,
        changed: Callable[[bool], None] = lambda heard: None,
        clock: Callable[[], float] = time.time,
        room: int = ROOM,
    ) -> None:
        """`changed` is told when the first reader comes, and when the last leaves."""
        self._changed = changed
        self._clock = clock
        self._ring: deque[bytes | Told] = deque(maxlen=room)
        self._next = 1  # number of the next event
        self._readers: set[EventReader] = set()
        self._waiting: set[EventReader] = set()
        self._missed = 0  # events that readers were told they missed

    @property
    def missed(self) -> int:
        """Return how many events readers missed, told or not."""
        oldest = self._oldest
        return self._missed + sum(max(oldest - r.place, 0) for r in self._readers)

    @property
    def _oldest(self) -> int:
        return self._next - len(self._ring)

    @property
    def heard(self) -> bool:
        """Tell whether anybody listens."""
        return bool(self._readers)

    @property
    def next_number(self) -> int:
        """Return the number that the next event will have."""
        return self._next

    def publish(self, name: str, fields: Fields | Callable[[], Fields]) -> None:
        """Add an event; readers that wait will take it.

        What is costly to say is left to a function, for the case that somebody reads.
        """
        self._ring.append((self._next, self._clock(), name, fields))
        self._next += 1
        if self._waiting:
            waiting, self._waiting = self._waiting, set()
            for reader in waiting:
                reader.wake()

    def subscribe(self, since: int | None = None) -> "EventReader":
        """Return a stream of what comes; `since`: from that number on, if kept."""
        start = self._next if since is None else min(since, self._next)
        reader = EventReader(self, start)
        self._readers.add(reader)
        if len(self._readers) == 1:
            self._changed(True)
        return reader

    def close(self) -> None:
        """End every stream."""
        for reader in tuple(self._readers):
            reader.end()

    # For readers

    def take(self, reader: "EventReader") -> bytes:
        """Return lines from where `reader` stands, and put it behind them."""
        oldest = self._oldest
        lines = []
        if reader.place < oldest:
            missed = oldest - reader.place
            self._missed += missed
            told = {"event": "events.missed", "count": missed}
            lines.append(json.dumps(told, separators=(",", ":")).encode() + b"\n")
            reader.place = oldest
        start = reader.place - oldest
        stop = min(start + PIECE, len(self._ring))
        lines += [self._line(at) for at in range(start, stop)]
        reader.place += stop - start
        if reader.place == self._next:
            self._waiting.add(reader)
        else:
            reader.wake()
        return b"".join(lines)

    def _line(self, at: int) -> bytes:
        """Return the text of an event, made once for all readers."""
        told = self._ring[at]
        if isinstance(told, bytes):
            return told
        number, when, name, fields = told
        event = {"seq": number, "time": round(when, 6), "event": name}
        event |= fields() if callable(fields) else fields
        text = json.dumps(event, separators=(",", ":"), default=str)
        line = self._ring[at] = text.encode("utf-8", "surrogateescape") + b"\n"
        return line

    def leave(self, reader: "EventReader") -> None:
        """Forget a reader."""
        self._waiting.discard(reader)
        if reader in self._readers:
            self._missed += max(self._oldest - reader.place, 0)
            self._readers.discard(reader)
            if not self._readers:
                self._changed(False)


class EventReader(Stream):
    """One listener; `place` is the number of the event that it takes next."""

    gentle = True

    def __init__(self, events: Events, place: int) -> None:
        super().__init__(LINES_TYPE)
        self._events = events
        self.place = place

    def take(self) -> bytes:
        """Return what is there, a bounded piece at a time."""
        return b"" if self.ended else self._events.take(self)

    def end(self) -> None:
        """Leave the ring."""
        self._events.leave(self)
        super().end()
