# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP as bytes: requests cut anywhere, answers in pieces, and what is no request."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.control.http import MAX_BODY, PIECE_LINES, Conversation, Router
from passtpy.control.verb import (
    Arguments,
    Code,
    ControlError,
    Json,
    Kind,
    Later,
    Lines,
    Param,
    Reply,
    Stream,
    Text,
    Value,
    Verb,
)


class Chunks(Stream):
    def __init__(self) -> None:
        super().__init__("text/plain")
        self.chunks: list[bytes] = []

    def put(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        if len(self.chunks) == 1:
            self.wake()

    def take(self) -> bytes:
        chunks, self.chunks = self.chunks, []
        return b"".join(chunks)


class Owners:
    def __init__(self) -> None:
        self.stream = Chunks()
        self.later = Later()
        self.failures: list[tuple[str, Exception]] = []


def echo(owners: Owners, args: Arguments) -> Reply:
    return Value(dict(args))


def count(owners: Owners, args: Arguments) -> Reply:
    def items() -> Iterator[Json | None]:
        for n in range(args["to"]):
            yield {"n": n}
        yield None

    return Lines(items())


def conflict(owners: Owners, args: Arguments) -> Reply:
    raise ControlError(Code.CONFLICT, "it is taken", "port", ({"port": 80},))


def broken(owners: Owners, args: Arguments) -> Reply:
    raise ZeroDivisionError("oops")


VERBS: tuple[Verb[Owners], ...] = (
    Verb("text", "GET", "/text", "", "", lambda o, a: Text(b"hello\n", "text/plain")),
    Verb("count", "GET", "/count", "", "", count, (Param("to", Kind.INTEGER, ""),)),
    Verb(
        "echo",
        "POST",
        "/v1/things/{id}",
        "",
        "",
        echo,
        (
            Param("id", Kind.INTEGER, ""),
            Param("name", Kind.TEXT, "", required=True, choices=("a", "b")),
            Param("on", Kind.BOOLEAN, ""),
            Param("list", Kind.LIST, ""),
            Param("object", Kind.OBJECT, ""),
        ),
    ),
    Verb(
        "conflict",
        "DELETE",
        "/v1/things/{id}",
        "",
        "",
        conflict,
        (Param("id", Kind.TEXT, ""),),
    ),
    Verb("broken", "GET", "/broken", "", "", broken),
    Verb("later", "GET", "/later", "", "", lambda o, a: o.later),
    Verb("stream", "GET", "/stream", "", "", lambda o, a: o.stream),
)


@pytest.fixture
def owners() -> Owners:
    return Owners()


@pytest.fixture
def client(owners: Owners) -> Conversation[Owners]:
    router = Router(VERBS, owners, lambda at, e: owners.failures.append((at, e)))
    return Conversation(router)


def request(method: str, target: str, body: object = None) -> bytes:
    raw = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(raw)}"
    return head.encode() + b"\r\n\r\n" + raw


def split(said: bytes) -> tuple[int, bytes]:
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def ask(client: Conversation[Owners], *args: Any) -> tuple[int, Any]:
    status, body = split(client.receive(request(*args)))
    return status, json.loads(body)


def dechunk(data: bytes) -> bytes:
    found = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        found, data = found + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return found


def test_arguments_come_from_path_query_and_body(client: Conversation[Owners]) -> None:
    body = {"list": [1], "object": {"x": 2}}
    status, told = ask(client, "POST", "/v1/things/7?name=a&on=true", body)
    assert (status, told) == (
        200,
        {"id": 7, "name": "a", "on": True, "list": [1], "object": {"x": 2}},
    )


@pytest.mark.parametrize(
    "list_",
    [
        b'["\\ud800"]',  # half a character
        b'[{"\\u0000": 1}]',
        b"[" * 5000 + b"]" * 5000,
    ],
    ids=["half", "nul", "deep"],
)
def test_what_no_argument_can_be_is_refused(
    client: Conversation[Owners], owners: Owners, list_: bytes
) -> None:
    body = b'{"name": "a", "list": ' + list_ + b"}"
    head = f"POST /v1/things/7 HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
    status, _ = split(client.receive(head.encode() + b"\r\n\r\n" + body))
    assert status == 400
    assert not owners.failures


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code", "field"),
    [
        ("POST", "/v1/things/x?name=a", None, 400, "bad_request", "id"),
        ("POST", "/v1/things/-1?name=a", None, 400, "bad_request", "id"),
        ("POST", f"/v1/things/{'9' * 5000}?name=a", None, 400, "bad_request", "id"),
        ("POST", "/v1/things/7", None, 400, "bad_request", "name"),
        ("POST", "/v1/things/7?name=c", None, 400, "bad_request", "name"),
        ("POST", "/v1/things/7?name=a&more=1", None, 400, "bad_request", "more"),
        ("POST", "/v1/things/7", {"name": 5}, 400, "bad_request", "name"),
        ("POST", "/v1/things/7", {"name": "a", "on": 3}, 400, "bad_request", "on"),
        ("POST", "/v1/things/7", [1], 400, "bad_request", None),
        ("POST", "/v1/things/7?name=a", {"id": 8}, 400, "bad_request", "id"),
        ("POST", "/v1/things/7?name=a&id=8", None, 400, "bad_request", "id"),
        ("POST", "/v1/things/7?name=a", {"name": "a"}, 400, "bad_request", "name"),
        ("POST", "/v1/things/7?name=a&name=b", None, 400, "bad_request", "name"),
        ("GET", "/nowhere", None, 404, "not_found", None),
        ("GET", "/v1/things/7", None, 405, "bad_request", None),
        ("DELETE", "/v1/things/7", None, 409, "conflict", "port"),
    ],
)
def test_errors_say_what_and_where(
    client: Conversation[Owners],
    method: str,
    target: str,
    body: object,
    status: int,
    code: str,
    field: str | None,
) -> None:
    got, told = ask(client, method, target, body)
    assert (got, told["error"]["code"]) == (status, code)
    assert told["error"].get("field") == field
    assert told["error"]["message"]


def test_a_bug_in_a_verb_costs_one_answer(
    client: Conversation[Owners], owners: Owners
) -> None:
    status, told = ask(client, "GET", "/broken")
    assert (status, told["error"]["code"]) == (500, "internal")
    assert [type(e) for _, e in owners.failures] == [ZeroDivisionError]
    assert split(client.receive(request("GET", "/text"))) == (200, b"hello\n")


def test_the_whole_number_is_read(client: Conversation[Owners]) -> None:
    assert ask(client, "POST", f"/v1/things/{'0' * 5000}7?name=a")[1]["id"] == 7


def test_of_many_requests_in_one_piece_one_is_answered_at_a_time(
    client: Conversation[Owners],
) -> None:
    targets = ["/text", "/nowhere", "/broken", "/text", "/later"]
    said = [client.receive(b"".join(request("GET", each) for each in targets))]
    while client.answering and not client.streaming:
        said.append(client.more())
    assert [split(each)[0] for each in said[:-1]] == [200, 404, 500, 200]
    assert said[-1] == b""  # it waits


def test_half_a_request_behind_a_whole_one_is_waited_for(
    client: Conversation[Owners],
) -> None:
    two = request("GET", "/text") * 2
    said = client.receive(two[:-5])
    assert split(said)[0] == 200
    asked = [client.answering, client.more(), client.answering]
    assert asked == [True, b"", False]
    assert split(client.receive(two[-5:])) == (200, b"hello\n")


@given(st.integers(1, 150))
def test_a_request_may_come_in_pieces(size: int) -> None:
    client = Conversation(Router(VERBS, Owners(), lambda at, e: None))
    data = request("POST", "/v1/things/7?name=a", {"on": True})
    said = b"".join(
        client.receive(data[at : at + size]) for at in range(0, len(data), size)
    )
    assert split(said)[0] == 200


def test_a_long_list_is_made_in_pieces(client: Conversation[Owners]) -> None:
    said = client.receive(request("GET", f"/count?to={PIECE_LINES * 3 + 1}"))
    pieces = 0
    while client.answering:
        assert not client.streaming
        said += client.more()
        pieces += 1
    assert pieces == 5  # the last one is empty
    lines = dechunk(split(said)[1]).splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(PIECE_LINES * 3 + 1))
    assert split(client.receive(request("GET", "/text")))[0] == 200


def test_a_stream_goes_on_until_it_ends(
    client: Conversation[Owners], owners: Owners
) -> None:
    woken = []
    client.woken = lambda: woken.append(1)
    assert split(client.receive(request("GET", "/stream")))[0] == 200
    assert client.streaming
    woken.clear()
    owners.stream.put(b"one ")
    owners.stream.put(b"two ")
    assert len(woken) == 1
    assert dechunk(client.more()) == b"one two "
    assert client.more() == b""
    owners.stream.end()
    client.more()
    assert not client.answering


@pytest.mark.parametrize(
    ("result", "status"),
    [(Value({"x": 1}), 200), (ControlError(Code.CONFLICT, "taken"), 409)],
)
def test_an_answer_may_come_later(
    client: Conversation[Owners],
    owners: Owners,
    result: Value | ControlError,
    status: int,
) -> None:
    assert client.receive(request("GET", "/later") + request("GET", "/text")) == b""
    assert client.answering
    assert client.more() == b""
    owners.later.settle(result)
    said = client.more()
    assert split(said)[0] == status
    assert said.endswith(b"hello\n")  # what was asked meanwhile


def test_leaving_ends_the_stream(client: Conversation[Owners], owners: Owners) -> None:
    client.receive(request("GET", "/stream"))
    client.leave()
    assert owners.stream.ended


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n", 431),
        (b"\x16\x03\x01" * 10 + b"\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_and_ends_the_connection(
    client: Conversation[Owners], data: bytes, status: int
) -> None:
    assert split(client.receive(data))[0] == status
    assert client.over
    assert client.receive(request("GET", "/text")) == b""


def test_a_body_is_bounded(client: Conversation[Owners]) -> None:
    head = (
        b"POST /v1/things/7 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    said, sent = client.receive(head), 0
    while not said and sent <= 2 * MAX_BODY:
        said = client.receive(b"10000\r\n" + b" " * 65536 + b"\r\n")
        sent += 65536
    assert split(said)[0] == 413
    assert sent <= MAX_BODY + 65536
    assert client.over


def test_deep_json_is_an_error_and_no_crash(client: Conversation[Owners]) -> None:
    raw = b"[" * 100_000
    head = (
        f"POST /v1/things/7 HTTP/1.1\r\nhost: x\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    assert split(client.receive(head.encode() + raw))[0] == 400


def test_close_is_obeyed(client: Conversation[Owners]) -> None:
    client.receive(b"GET /text HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert client.over


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_survived(pieces: list[bytes]) -> None:
    client = Conversation(Router(VERBS, Owners(), lambda at, e: None))
    for piece in pieces:
        client.receive(piece)
