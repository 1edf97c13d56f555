# SPDX-License-Identifier: GPL-2.0-or-later
"""The native dialect: HTTP/1.1 with JSON, as bytes in and bytes out.

A conversation holds no socket. Whoever has one feeds it what was received and sends
what it returns; h11 knows HTTP. Long answers are made in pieces, each when the last
one has left, so that neither a long list nor a slow client takes a turn from packets.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Generic
from urllib.parse import parse_qsl, unquote

import h11

from passtpy.control.verb import (
    Code,
    ControlError,
    Later,
    Lines,
    Owners,
    Reply,
    Stream,
    Text,
    Value,
    Verb,
)
from passtpy.record import record

MAX_HEAD = 16 * 1024  # bytes of a request line and its headers
MAX_BODY = 4 * 1024 * 1024  # a policy with tens of thousands of entries
PIECE_LINES = 64  # of a list, between two looks at packets

JSON_TYPE = "application/json"
LINES_TYPE = "application/x-ndjson"

_STATUS = {
    Code.BAD_REQUEST: 400,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.CONFLICT: 409,
    Code.TOO_MUCH: 429,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}
_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

Failed = Callable[[str, Exception], None]
ShowError = Callable[[int, ControlError], tuple[int, Reply]]


def dump(value: object) -> bytes:
    """Return compact JSON; names that are no text keep their bytes as escapes."""
    return json.dumps(value, separators=(",", ":")).encode("utf-8", "surrogateescape")


@record
class _Route(Generic[Owners]):
    verb: Verb[Owners]
    parts: tuple[str, ...]

    def match(self, parts: tuple[str, ...]) -> dict[str, object] | None:
        """Return what the path says about parameters, or None."""
        if len(parts) != len(self.parts):
            return None
        found: dict[str, object] = {}
        for mine, theirs in zip(self.parts, parts, strict=True):
            if mine.startswith("{"):
                found[mine[1:-1]] = theirs
            elif mine != theirs:
                return None
        return found


def _as_json(status: int, error: ControlError) -> tuple[int, Reply]:
    return status, Value(error.as_json())


class Router(Generic[Owners]):
    """Finds the verb of a request, and runs it."""

    def __init__(
        self,
        verbs: tuple[Verb[Owners], ...],
        owners: Owners,
        failed: Failed,
        show_error: ShowError = _as_json,
    ) -> None:
        self._routes = [_Route(v, tuple(v.path.strip("/").split("/"))) for v in verbs]
        self._owners = owners
        self._failed = failed
        self.show_error = show_error

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Reply]:
        """Return status and reply; never an exception."""
        try:
            return 200, self._run(method, target, body)
        except _NoSuchMethod as error:
            wrong = ControlError(Code.BAD_REQUEST, str(error))
            return self.show_error(405, wrong)
        except ControlError as error:
            return self.show_error(_STATUS[error.code], error)
        except Exception as error:
            self._failed(f"{method} {target}"[:200], error)
            text = "this is a bug; the log has its traceback"
            return self.show_error(500, ControlError(Code.INTERNAL, text))

    def _run(self, method: str, target: str, body: bytes) -> Reply:
        path, _, query = target.partition("?")
        parts = tuple(unquote(part) for part in path.strip("/").split("/"))
        allowed = []
        for route in self._routes:
            found = route.match(parts)
            if found is None:
                continue
            if route.verb.method != method:
                allowed.append(route.verb.method)
                continue
            given = _together(found, _query(query), _body(body))
            if not _has_bytes(given):
                raise ControlError(Code.BAD_REQUEST, "text that stands for no bytes")
            return route.verb.run(self._owners, route.verb.read(given))
        if allowed:
            raise _NoSuchMethod(f"{path} takes {', '.join(sorted(set(allowed)))}")
        raise ControlError(Code.NOT_FOUND, f"nothing is at {path[:200]}")


def _has_bytes(value: object) -> bool:
    """Tell whether all text in arguments could be a name or a path of the system's."""
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            try:
                if b"\0" in part.encode(errors="surrogateescape"):
                    return False
            except UnicodeEncodeError:  # half a character (RFC 8259 8.2)
                return False
        elif isinstance(part, dict):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            parts += part
    return True


class _NoSuchMethod(Exception):
    pass


def _together(*places: Mapping[str, object]) -> dict[str, object]:
    """Return all arguments; what is said in two places means nothing."""
    given: dict[str, object] = {}
    for place in places:
        for name in given.keys() & place.keys():
            raise _twice(name)
        given.update(place)
    return given


def _twice(name: str) -> ControlError:
    return ControlError(Code.BAD_REQUEST, f"{name} is given twice", name)


def _query(text: str) -> dict[str, object]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=32)
    except ValueError:
        raise ControlError(Code.BAD_REQUEST, "too many fields in the query") from None
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _twice(name)
        found[name] = value
    return found


def _body(raw: bytes) -> dict[str, object]:
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ControlError(Code.BAD_REQUEST, f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ControlError(Code.BAD_REQUEST, "the body has to be a JSON object")
    return value


class Conversation(Generic[Owners]):
    """One connection of a client."""

    def __init__(self, router: Router[Owners]) -> None:
        self._router = router
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._lines: Iterator[bytes] | None = None
        self._stream: Stream | None = None
        self._later: Later | None = None
        self._asked = False  # more than what is answered; that is for the next piece
        self.woken: Callable[[], None] = lambda: None

    def begin(self) -> bytes:
        """Return what is said before anything is asked: nothing."""
        return b""

    def receive(self, data: bytes) -> bytes:
        """Take what the client sent (b"": it sends no more); return what to send."""
        if self.over:
            return b""
        try:
            self._h11.receive_data(data)
        except (h11.RemoteProtocolError, RuntimeError):
            return b""
        return self._proceed()

    @property
    def over(self) -> bool:
        """Tell whether the connection is to be closed once everything is sent."""
        if self.answering:
            return False
        states = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
        ours = self._h11.our_state
        return ours in states[1:] or (
            ours is h11.DONE and self._h11.their_state in states[1:]
        )

    @property
    def answering(self) -> bool:
        """Tell whether more() has to be called for what is still to be answered."""
        return self._lines is not None or self._asked or self.streaming

    @property
    def gentle(self) -> bool:
        """Tell whether it is one of which little is kept, and nothing is urgent."""
        return self._stream is not None and self._stream.gentle

    @property
    def streaming(self) -> bool:
        """Tell whether the answer under way waits for something to happen."""
        return self._stream is not None or self._later is not None

    def more(self) -> bytes:
        """Return the next piece of an answer under way; b"": none for now."""
        if self._asked:
            return self._proceed()
        if self._lines is not None:
            return self._more_lines()
        if self._later is not None:
            return self._settled(self._later)
        stream = self._stream
        if stream is None:
            return b""
        chunk = stream.take()
        sent = self._send(h11.Data(data=chunk)) if chunk else b""
        if stream.ended:
            self._stream = None
            sent += self._send(h11.EndOfMessage())
            sent += self._proceed()
        return sent

    def leave(self) -> None:
        """Forget the answer under way: the client has gone."""
        self._lines = self._later = None
        self._asked = False
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.end()

    def _proceed(self) -> bytes:
        """Handle what has been received, up to the end of one request.

        The next one is answered in the next piece: a client that sends a thousand at
        once has one answered between two looks at packets.
        """
        sent = b""
        self._asked = False
        while not self.answering:
            if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
                self._h11.start_next_cycle()
                self._request = None
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                return sent + self._refuse(error.error_status_hint or 400, str(error))
            match event:
                case h11.Request():
                    self._request = event
                    self._body.clear()
                    if self._h11.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        sent += self._send(go_on)
                case h11.Data():
                    self._body += event.data
                    if len(self._body) > MAX_BODY:
                        return sent + self._refuse(413, "the body is too long")
                case h11.EndOfMessage():
                    sent += self._answer()
                    more, _ = self._h11.trailing_data
                    self._asked = bool(more) and not self.answering
                case _:
                    return sent  # NEED_DATA, PAUSED, ConnectionClosed
        return sent

    def _answer(self) -> bytes:
        request = self._request
        assert request is not None
        method = request.method.decode("ascii")
        target = request.target.decode("ascii", "replace")
        status, reply = self._router.answer(method, target, bytes(self._body))
        self._body.clear()
        return self._say(status, reply)

    def _settled(self, later: Later) -> bytes:
        """Return an answer that had to wait, and what follows it."""
        if later.result is None:
            return b""
        self._later = None
        return self._say_result(later.result) + self._proceed()

    def _say_result(self, result: Value | Text | ControlError) -> bytes:
        if isinstance(result, ControlError):
            shown = self._router.show_error(_STATUS[result.code], result)
            return self._say(*shown)
        return self._say(200, result)

    def _say(self, status: int, reply: Reply) -> bytes:
        match reply:
            case Value(body=body):
                return self._whole(status, dump(body) + b"\n", JSON_TYPE)
            case Text(body=raw, media_type=media_type):
                return self._whole(status, raw, media_type)
            case Lines(items=items):
                self._lines = _pieces(items)
                return self._head(status, LINES_TYPE, None) + self._more_lines()
            case Stream():
                self._stream = reply
                reply.wake = lambda: self.woken()
                self.woken()
                return self._head(status, reply.media_type, None, reply.headers)
            case Later(result=None):
                self._later = reply
                reply.wake = lambda: self.woken()
                self.woken()
                return b""
            case Later(result=result):
                assert result is not None
                return self._say_result(result)

    def _more_lines(self) -> bytes:
        assert self._lines is not None
        piece = next(self._lines, None)
        if piece is not None:
            return self._send(h11.Data(data=piece))
        self._lines = None
        return self._send(h11.EndOfMessage()) + self._proceed()

    def _whole(self, status: int, body: bytes, media_type: str) -> bytes:
        sent = self._head(status, media_type, len(body))
        return sent + self._rest(body)

    def _rest(self, body: bytes) -> bytes:
        """Return the body, which the answer to HEAD has not, and the end."""
        asked = self._request is not None and self._request.method
        sent = b"" if asked == b"HEAD" else self._send(h11.Data(data=body))
        return sent + self._send(h11.EndOfMessage())

    def _head(
        self,
        status: int,
        media_type: str,
        length: int | None,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> bytes:
        headers = [("content-type", media_type), *more.items()]
        if length is not None:
            headers.append(("content-length", str(length)))
        reason = _REASONS.get(status, "Error")
        response = h11.Response(status_code=status, headers=headers, reason=reason)
        return self._send(response)

    def _refuse(self, status: int, text: str) -> bytes:
        """Answer what was no request, and hang up."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        body = dump(ControlError(Code.BAD_REQUEST, text).as_json()) + b"\n"
        headers = [
            ("content-type", JSON_TYPE),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        reason = _REASONS.get(status, "Error")
        head = h11.Response(status_code=status, headers=headers, reason=reason)
        return self._send(head) + self._rest(body)

    def _send(self, event: Any) -> bytes:
        return self._h11.send(event) or b""


def _pieces(items: Iterator[Mapping[str, Any] | bytes | None]) -> Iterator[bytes]:
    """Yield as many lines at a time as may be made at once; None ends a piece too."""
    lines: list[bytes] = []
    for item in items:
        if item is not None:
            lines.append(item if isinstance(item, bytes) else dump(item) + b"\n")
        if item is None or len(lines) == PIECE_LINES:
            yield b"".join(lines)
            lines = []
    yield b"".join(lines)
