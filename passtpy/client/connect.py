# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the control sockets of running daemons, and asks one of them.

An instance is a socket in the runtime folder, named after it. One that nobody answers
at is a left-over of a daemon that was killed, and counts as none.
"""

import http.client
import json
import math
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from passtpy.config.instance import SUFFIX, runtime_folder
from passtpy.record import record

TIMEOUT_S: Final = 30.0
_TIMEVAL: Final = struct.Struct("ll")


class ClientError(Exception):
    """A command that failed: what to say on stderr before exit status 1."""

    status: int = 1


class WrongUse(ClientError):
    """A command that makes no sense, here or to the daemon: exit status 2."""

    status = 2


@record
class Instance:
    """A daemon that answers."""

    name: str
    path: str


class _Connection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Blocking: otherwise a queue of clients that is full is an error at once.
        limit = _TIMEVAL.pack(math.ceil(self.timeout or 0), 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise
        self.sock.settimeout(self.timeout)


def answers(path: str) -> bool:
    """Tell whether somebody listens at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        try:
            sock.connect(path)
        except BlockingIOError:
            return True  # more clients at a time than it accepts
        except OSError:
            return False
    return True


def instances() -> list[Instance]:
    """Return the daemons of this user that answer, by name."""
    folder = runtime_folder()
    try:
        names = sorted(os.listdir(folder)) if folder else []
    except OSError:
        return []
    return [
        Instance(name.removesuffix(SUFFIX), path)
        for name in names
        if name.endswith(SUFFIX) and answers(path := os.path.join(folder or "", name))
    ]


def choose(wanted: str | None) -> str:
    """Return the path of the instance that is meant: named, or the only one."""
    if wanted is not None and "/" in wanted:
        return wanted
    found = instances()
    if wanted is not None:
        for each in found:
            if each.name == wanted:
                return each.path
        raise ClientError(f"no instance is called {wanted}")
    if not found:
        raise ClientError("nothing is running that could be asked")
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise ClientError(f"several are running, choose one with -i: {names}")
    return found[0].path


class Client:
    """Asks one instance; each question is a connection of its own."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: object,
        timeout: float | None,
    ) -> http.client.HTTPResponse:
        given = {k: v for k, v in (query or {}).items() if v is not None}
        query_text = urlencode(given, errors="surrogateescape")
        target = f"{path}?{query_text}" if given else path
        connection = _Connection(self.path, timeout)
        raw = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, target, raw, {"connection": "close"})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ClientError(f"no answer from {self.path}: {error}") from None
        if response.status != 200:
            raise refusal(self._whole(lambda: response.read(1 << 20)))
        return response

    def _whole(self, read: Callable[[], bytes]) -> bytes:
        """Read; an answer that the daemon does not end has not come whole."""
        try:
            return read()
        except (OSError, http.client.HTTPException):
            raise ClientError(f"the answer from {self.path} ends early") from None

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: object = None,
    ) -> Any:
        """Return the JSON object that answers."""
        with self._open(method, path, query, body, TIMEOUT_S) as response:
            return self._parsed(self._whole(response.read))

    def text(self, path: str) -> str:
        """Return an answer that is no JSON."""
        with self._open("GET", path, None, None, TIMEOUT_S) as response:
            return self._whole(response.read).decode(errors="replace")

    def lines(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        endless: bool = False,
    ) -> Iterator[Any]:
        """Yield the JSON objects of a list or stream, as they come."""
        timeout = None if endless else TIMEOUT_S
        answer = ByteStream(self._open(method, path, query, None, timeout), self._whole)
        begun = b""
        for chunk in answer.chunks():
            *lines, begun = (begun + chunk).split(b"\n")
            yield from map(self._parsed, lines)
        if begun:
            yield self._parsed(begun)

    def _parsed(self, raw: bytes) -> Any:
        try:
            return json.loads(raw)
        except ValueError:
            raise ClientError(f"no whole answer from {self.path}") from None

    def stream(
        self, method: str, path: str, query: Mapping[str, object] | None = None
    ) -> "ByteStream":
        """Return an endless answer that is bytes."""
        return ByteStream(self._open(method, path, query, None, None), self._whole)


class ByteStream:
    """An answer that goes on until either side ends it."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        whole: Callable[[Callable[[], bytes]], bytes],
    ) -> None:
        self._response = response
        self._whole = whole

    def header(self, name: str) -> str:
        """Return what was told before the first byte."""
        return self._response.headers[name] or ""

    def chunks(self) -> Iterator[bytes]:
        """Yield bytes as they come."""
        with self._response as response:
            while chunk := self._whole(lambda: response.read1(65536)):
                yield chunk


def refusal(raw: bytes) -> ClientError:
    """Return the error that the daemon tells."""
    try:
        told = json.loads(raw)["error"]
        kind = WrongUse if told["code"] == "bad_request" else ClientError
        return kind(told["message"])
    except (ValueError, KeyError, TypeError):
        return ClientError(raw.decode(errors="replace")[:300] or "refused")
