# SPDX-License-Identifier: GPL-2.0-or-later
"""Many bulk streams at once, counted second by second."""

import selectors
import socket
import time

PIECE = bytes(128 * 1024)
FAIR = 8 * len(PIECE)


class Streams:
    """Pairs of sockets, bytes running from the first to the second of each."""

    def __init__(self, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
        self._select = selectors.DefaultSelector()
        self._moved: dict[int, int] = {}
        for number, (writer, reader) in enumerate(pairs):
            for sock in (writer, reader):
                sock.setblocking(False)
            self._select.register(writer, selectors.EVENT_WRITE)
            self._select.register(reader, selectors.EVENT_READ, number)
            self._moved[number] = 0

    def run(self, seconds: int) -> list[dict[int, int]]:
        """Run them; for each second or more, the bytes that each stream delivered."""
        return [self._second() for _ in range(seconds)]

    def _second(self) -> dict[int, int]:
        self._moved = dict.fromkeys(self._moved, 0)
        began = time.monotonic()
        while not self._over(time.monotonic() - began):
            for key, events in self._select.select(0.1):
                self._serve(key, events)
        return self._moved

    def _over(self, seconds: float) -> bool:
        """Whether all had time enough: a busy machine takes more than one second."""
        moved = sum(self._moved.values())
        return seconds >= 1 and (moved >= FAIR * len(self._moved) or seconds >= 30)

    def _serve(self, key: selectors.SelectorKey, events: int) -> None:
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        if events & selectors.EVENT_WRITE:
            sock.send(PIECE)
        else:
            self._moved[key.data] += len(sock.recv(len(PIECE)))
