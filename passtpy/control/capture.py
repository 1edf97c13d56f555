# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures that run: streams of pcapng, made while traffic flows.

The datapath keeps the packets of each in a ring. Here they are taken out whenever the
client has taken what came before; nothing waits for a client, and what found no room in
the ring is counted, and told in the stream itself.
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from passtpy import __version__
from passtpy.control.pcapng import ETHERNET, RAW_IP, interface, section, statistics
from passtpy.control.verb import Code, ControlError, Stream
from passtpy.record import record

PCAPNG_TYPE: Final = "application/x-pcapng"
SNAPLEN: Final = 66 * 1024  # bytes kept of a packet: the longest super-segment
PIECE: Final = 128 * 1024  # bytes taken at a time: one such packet, and more
LOOK_S: Final = 0.02  # between two looks whether there is something to take
TELL_NS: Final = 1_000_000_000  # between two counts in the stream
PATIENCE_S: Final = 10.0  # with a client that does not take the rest
RULES_TOLD: Final = 500
SIDES: Final = {"tap": 1, "sockets": 2, "both": 3}

_NAMES: Final = ("tap", "sockets")
_ABOUT: Final = (
    "frames between passtpy and the guest",
    "what passtpy's sockets sent and received, with IP headers made up for it",
)


@record
class Counts:
    """What a capture has seen: at the tap, at sockets; and what waits, bytes."""

    seen: tuple[int, int]
    dropped: tuple[int, int]
    waiting: int


class PacketSource(Protocol):
    """The datapath, and a clock."""

    def start(self, program: bytes, sides: int, snaplen: int) -> int:
        """Begin, and return a number; OSError if there are too many."""

    def take(
        self, number: int, room: int, packets: int, last: bool
    ) -> tuple[bytes, int, bool]:
        """Return blocks, their packets, and whether one more had no room."""

    def counts(self, number: int) -> Counts: ...

    def finish(self, number: int) -> None:
        """Take no more packets in."""

    def stop(self, number: int) -> None: ...

    def now(self) -> int:
        """Return the time of day, ns."""

    def later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once; return how to prevent it."""


@record(kw_only=True)
class Wish:
    """What somebody wants captured; a limit that is None is none."""

    program: bytes
    filter: str = ""
    side: str = "both"
    snaplen: int = SNAPLEN
    packets: int | None = None
    bytes: int | None = None
    seconds: int | None = None
    comments: Sequence[str] = ()


class Captures:
    """All captures of a daemon."""

    def __init__(self, source: PacketSource) -> None:
        self._source = source
        self._running: dict[int, CaptureStream] = {}
        self._next = 1

    def start(self, wish: Wish) -> "CaptureStream":
        """Begin one; ControlError if there are too many."""
        try:
            number = self._source.start(
                wish.program, SIDES[wish.side], wish.snaplen or SNAPLEN
            )
        except OSError as error:
            raise _refused(error) from None
        stream = CaptureStream(self._next, number, wish, self._source, self._ended)
        self._running[stream.id] = stream
        self._next += 1
        return stream

    def listed(self) -> list[dict[str, Any]]:
        """Return what runs."""
        return [stream.describe() for stream in self._running.values()]

    def stop(self, wanted: int | None) -> list[dict[str, Any]]:
        """End one or all, in order: clients get what is there; return which."""
        if wanted is not None and wanted not in self._running:
            raise ControlError(Code.NOT_FOUND, f"there is no capture {wanted}", "id")
        ended = [s for s in self._running.values() if wanted in (None, s.id)]
        for stream in ended:
            stream.finish()
        return [stream.describe() for stream in ended]

    def close(self) -> None:
        """End all at once."""
        for stream in tuple(self._running.values()):
            stream.end()

    def _ended(self, stream: "CaptureStream") -> None:
        del self._running[stream.id]


def _refused(error: OSError) -> ControlError:
    if error.errno == errno.EUSERS:
        return ControlError(Code.TOO_MUCH, "too many captures are running")
    text = os.strerror(error.errno or 0)
    return ControlError(Code.UNAVAILABLE, f"no capture is possible: {text}")


class CaptureStream(Stream):
    """One capture, and the file that its client reads."""

    def __init__(
        self,
        id: int,
        number: int,
        wish: Wish,
        source: PacketSource,
        ended: Callable[["CaptureStream"], None],
    ) -> None:
        super().__init__(PCAPNG_TYPE)
        self.id = id
        self.headers = {"capture-id": str(id)}
        self._number = number  # the datapath's
        self._wish = wish
        self._source = source
        self._on_end = ended
        self._started = self._told_at = source.now()
        self._told = (0, 0)
        self._last = False  # no more packets come in
        self._packets = 0
        self._head = self._header()
        self._bytes = len(self._head)
        self._timers = {"look": source.later(LOOK_S, self._look)}
        if wish.seconds is not None:
            self._timers["limit"] = source.later(wish.seconds, self.finish)

    def describe(self) -> dict[str, Any]:
        """Return what is known of it."""
        counts = self._source.counts(self._number)
        return {
            "id": self.id,
            "filter": self._wish.filter,
            "side": self._wish.side,
            "age_ns": self._source.now() - self._started,
            "packets": self._packets,
            "bytes": self._bytes,
            "dropped": dict(zip(_NAMES, counts.dropped, strict=True)),
        }

    def take(self) -> bytes:
        """Return the next piece of the file."""
        if self.ended:
            return b""
        if self._head:
            head, self._head = self._head, b""
            self.wake()
            return head
        end = self._counted()  # its length is that of the real one
        room, left = self._room(len(end)), self._packets_left()
        blocks, packets, full = self._source.take(self._number, room, left, self._last)
        self._packets += packets
        self._bytes += len(blocks)
        if packets == left or (full and room < PIECE):
            self._last = True
            return self._whole(blocks)
        if not blocks and self._last:
            return self._whole(b"")
        if blocks:
            self.wake()
        return blocks + self._news()

    def finish(self) -> None:
        """End in order: what is there is still given to the client, if it takes it."""
        if self.ended or self._last:
            return
        self._last = True
        self._source.finish(self._number)
        self._timers["patience"] = self._source.later(PATIENCE_S, self.end)
        self.wake()

    def end(self) -> None:
        """End at once."""
        if self.ended:
            return
        for cancel in self._timers.values():
            cancel()
        self._on_end(self)
        self._source.stop(self._number)
        super().end()

    def _look(self) -> None:
        self._timers["look"] = self._source.later(LOOK_S, self._look)
        counts = self._source.counts(self._number)
        if counts.waiting or counts.dropped != self._told:
            self.wake()

    def _packets_left(self) -> int:
        wish = self._wish
        return 2**63 if wish.packets is None else wish.packets - self._packets

    def _room(self, reserved: int) -> int:
        """Return how much may be taken, so that the last counts have room too."""
        if self._wish.bytes is None:
            return PIECE
        return max(min(PIECE, self._wish.bytes - self._bytes - reserved), 0)

    def _whole(self, blocks: bytes) -> bytes:
        end = self._counted()
        self._bytes += len(end)
        self.end()
        return blocks + end

    def _news(self) -> bytes:
        """Return counts, if packets are missing that nobody was told of."""
        dropped, now = self._source.counts(self._number).dropped, self._source.now()
        told = self._counted()
        if dropped == self._told or now - self._told_at < TELL_NS:
            return b""
        if self._wish.bytes is not None and self._room(len(told)) < len(told):
            return b""
        self._told, self._told_at = dropped, now
        self._bytes += len(told)
        return told

    def _counted(self) -> bytes:
        counts, now = self._source.counts(self._number), self._source.now()
        return b"".join(
            statistics(
                side, self._started, now, counts.seen[side], counts.dropped[side]
            )
            for side in range(len(_NAMES))
        )

    def _header(self) -> bytes:
        wish = self._wish
        about = f"capture {self.id}, of {wish.filter or 'everything'}"
        blocks = [section(f"passtpy {__version__}", [about, *wish.comments])]
        for linktype, name, text in zip(
            (ETHERNET, RAW_IP), _NAMES, _ABOUT, strict=True
        ):
            blocks.append(interface(linktype, wish.snaplen, name, text))
        return b"".join(blocks)
