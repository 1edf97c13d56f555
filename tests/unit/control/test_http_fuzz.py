# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversations over HTTP, cut anywhere and spoilt: what is said stays HTTP.

The other end is h11 as a client. It has to understand every byte, and count an answer
for every request that was whole, in order, until either side has said something wrong.
"""

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from passtpy.control.http import Conversation, Router
from passtpy.control.verb import Later, Value
from tests.unit.control.test_http import VERBS, Owners, request

many = settings(max_examples=150, deadline=None)

TARGETS = [
    *("/text", "/count?to=0", "/count?to=200", "/nowhere", "/broken", "/later"),
    *("/v1/things/7?name=a", "/v1/things/x", "/%2e%2e/text", "/text?a=1&a=2", "*"),
]
REQUESTS = st.builds(
    request,
    st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PATCH"]),
    st.sampled_from(TARGETS),
    st.one_of(st.none(), st.just({"name": "a"}), st.just([1]), st.just("x" * 3000)),
)
SPOILS = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\0", b":", b" ", b"\xff", b"HTTP/1.0", b"HTTP/9.9"),
        *(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"),
        *(b"connection: close\r\n", b"expect: 100-continue\r\n", b"upgrade: x\r\n"),
    ]
)


def told(pieces: list[bytes], end: bool) -> tuple[bytes, Conversation[Owners]]:
    """Say pieces, letting answers that are under way go on; all that is answered."""
    owners = Owners()
    router = Router(VERBS, owners, lambda at, error: None)
    client = Conversation(router)
    said = b""
    for piece in [*pieces, *([b""] if end else [])]:
        said += client.receive(piece)
        while client.answering:
            if client.streaming and owners.later.result is None:
                owners.later.settle(Value({}))
            said += client.more()
            owners.later = Later() if owners.later.result else owners.later
    return said, client


def answers(said: bytes, methods: list[bytes]) -> list[int]:
    """The status of each answer, as a client understands them that asked these."""
    statuses: list[int] = []
    for method in methods:
        if not said:
            return statuses
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(said)
        event = client.next_event()
        while isinstance(event, h11.InformationalResponse):
            event = client.next_event()
        assert isinstance(event, h11.Response)
        statuses.append(event.status_code)
        while not isinstance(client.next_event(), h11.EndOfMessage):
            pass
        said, _ = client.trailing_data
    assert not said
    return statuses


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


@many
@given(
    st.lists(REQUESTS, max_size=6),
    st.lists(st.integers(1, 4000), max_size=8),
    st.booleans(),
)
def test_each_whole_request_is_answered_once_and_in_order(
    requests: list[bytes], sizes: list[int], end: bool
) -> None:
    said, _ = told(cut(b"".join(requests), sizes), end)
    methods = [each.split()[0] for each in requests]
    assert len(answers(said, methods)) == len(requests)
    alone = [answers(told([each], False)[0], [each.split()[0]])[0] for each in requests]
    assert answers(said, methods) == alone


@many
@given(
    st.lists(REQUESTS, min_size=1, max_size=4),
    st.lists(st.tuples(st.floats(0, 1), SPOILS, st.integers(0, 9)), max_size=4),
    st.lists(st.integers(1, 4000), max_size=8),
    st.booleans(),
)
def test_what_is_spoilt_is_answered_in_http_or_not_at_all(
    requests: list[bytes],
    spoils: list[tuple[float, bytes, int]],
    sizes: list[int],
    end: bool,
) -> None:
    data = b"".join(requests)
    for place, more, less in spoils:
        at = int(place * len(data))
        data = data[:at] + more + data[at + less :]
    said, client = told(cut(data, sizes), end)
    assert said == b"" or said.startswith(b"HTTP/1.1 ")
    if client.over:
        assert client.receive(request("GET", "/text")) == b""
