# SPDX-License-Identifier: GPL-2.0-or-later
"""A server that answers whatever comes, and does not wait for those who have gone."""

import os
import socket
import threading
import time
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from typing import Self

from tests.lab import Namespace

TCP_PORT, UDP_PORT = 8000, 8001
IDLE_S = 5.0  # then a connection is closed: who began it may have gone amid it


class Echo(threading.Thread):
    """Answers on a TCP and a UDP port of a namespace."""

    def __init__(self, where: Namespace, address: str) -> None:
        super().__init__(daemon=True)
        self._select = DefaultSelector()
        self._told, self._wake = os.pipe()
        self._select.register(self._told, EVENT_READ)
        self._heard: dict[socket.socket, float] = {}
        self._tcp = where.listen(address, TCP_PORT)
        self._udp = where.udp(address, UDP_PORT)
        for sock in (self._tcp, self._udp):
            sock.setblocking(False)
            self._select.register(sock, EVENT_READ)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._wake, b"x")
        self.join()
        for sock in (*self._heard, self._tcp, self._udp):
            sock.close()
        self._select.close()
        os.close(self._told)
        os.close(self._wake)

    def run(self) -> None:
        while True:
            for key, _ in self._select.select(1.0):
                if key.fileobj == self._told:
                    return
                with suppress(OSError):
                    self._serve(key.fileobj)
            late = time.monotonic() - IDLE_S
            for conn in [conn for conn, at in self._heard.items() if at < late]:
                self._end(conn)

    def _serve(self, sock: object) -> None:
        assert isinstance(sock, socket.socket)
        if sock is self._tcp:
            conn, _ = sock.accept()
            conn.setblocking(False)
            self._select.register(conn, EVENT_READ)
            self._heard[conn] = time.monotonic()
        elif sock is self._udp:
            data, source = sock.recvfrom(9000)
            sock.sendto(data, source)
        else:
            self._answer(sock)

    def _answer(self, conn: socket.socket) -> None:
        self._heard[conn] = time.monotonic()
        try:
            data = conn.recv(65536)
            if data:
                conn.send(data)
        except ConnectionError:
            data = b""
        if not data:
            self._end(conn)

    def _end(self, conn: socket.socket) -> None:
        del self._heard[conn]
        self._select.unregister(conn)
        conn.close()
