# SPDX-License-Identifier: GPL-2.0-or-later
"""What nobody would think of saying, in every dialect that changes ports.

Whatever is said: a dialect answers in its own words and raises nothing, a change is
made as a whole or not at all, and no table ever holds what a table does not take.
"""

import json
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address
from typing import Any
from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from passtpy.config.portrule import Able, PortTable, RuleError, Side
from passtpy.config.ports import PortContext, read_ports
from passtpy.control.gvproxy import GVPROXY_VERBS, Services, as_text
from passtpy.control.http import Conversation, Router
from passtpy.control.pesto import PestoConversation
from passtpy.control.slirp import SlirpApi, SlirpConversation
from passtpy.errors import ConfigError
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP
from passtpy.pesto import Editor, PestoError
from passtpy.wire.pesto import RawRule, emit_update
from tests.unit.control.fakes import Forwards, rule
from tests.unit.control.test_http import request, split
from tests.unit.control.test_verbs import Asker

EPHEMERAL = (32768, 60999)
GUEST = IPv4Address("192.0.2.5")
many = settings(max_examples=100, deadline=None)

# Words that mean something somewhere, so that more than the first check is reached
PORTS = st.one_of(
    st.sampled_from((0, 1, 22, 80, 8080, 65535, 65536, -1)), st.integers(-9, 70000)
)
ADDRESSES = st.sampled_from(
    [
        *("", "0.0.0.0", "127.0.0.1", "192.0.2.5", "224.0.0.1", "255.255.255.255"),
        *("::", "::1", "[::]", "[2001:db8::5]", "::ffff:192.0.2.1", "fe80::1%eth0"),
        *("*", "x"),
    ]
)
TEXTS = st.one_of(ADDRESSES, st.text(max_size=12), st.sampled_from(("tcp", "udp")))
LEAVES = st.one_of(st.none(), st.booleans(), PORTS, st.floats(), TEXTS)
JSONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner)
    ),
    max_leaves=6,
)
PIECES = st.sampled_from(
    [
        *"0123456789:/,-~[]%*.",
        *("80", "8080", "65536", "1-9", "~5-7", "auto", "all", "none", "eth0"),
        *("127.0.0.1", "192.0.2.1", "::1", "fd00::2", "::ffff:192.0.2.1"),
    ]
)
SPECS = st.lists(PIECES, max_size=9).map("".join)


def tables() -> Forwards:
    return Forwards(rule(22), rule(9000, proto=IPPROTO_UDP))


def check(forwards: Forwards, before: Sequence[PortTable]) -> None:
    """The tables are as before, or as asked for, and such as a table may be."""
    assert len(forwards.asked) <= 1
    wanted = forwards.asked[0] if forwards.asked else tuple(before)
    assert forwards.now == wanted
    for table in forwards.now:
        rebuilt = table.cleared()
        for each in table.rules:
            rebuilt = rebuilt.add(each)
        assert rebuilt == table


RAW = st.builds(
    RawRule,
    addr=st.sampled_from((bytes(16), ip_address("::1").packed, b"\xff" * 16))
    | st.binary(min_size=16, max_size=16),
    target=st.just(bytes(16)) | st.binary(min_size=16, max_size=16),
    ifname=st.sampled_from((b"", b"lo", b"x" * 15, b"\xff")),
    ports=st.tuples(*[st.sampled_from((0, 1, 80, 81, 65535))] * 3),
    proto=st.sampled_from((6, 17, 1, 0, 255)),
    flags=st.integers(0, 255) | st.sampled_from((0, 1, 2, 5, 7)),
)
UPDATES = st.lists(
    st.tuples(st.sampled_from((1, 3)), st.lists(RAW, max_size=3).map(tuple)), max_size=3
).map(emit_update)


@many
@given(
    UPDATES,
    st.integers(0, 600),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=2),
    st.integers(1, 40),
)
def test_pesto(
    update: bytes, end: int, flips: list[tuple[int, int]], piece: int
) -> None:
    data = bytearray(update[:end])
    for at, value in flips:
        if at < len(data):
            data[at] = value
    forwards, notes = tables(), list[str]()
    before = forwards.now
    client = PestoConversation(forwards, notes.append)
    client.begin()
    said = b""
    for at in range(0, len(data), piece):
        said += client.receive(bytes(data[at : at + piece]))
    said += client.receive(b"")
    assert client.over
    check(forwards, before)
    assert bool(said) == bool(notes)
    assert not (said and forwards.asked)


SLIRP = st.one_of(
    JSONS,
    st.fixed_dictionaries(
        {"execute": st.sampled_from(("add_hostfwd", "list_hostfwd", "remove_hostfwd"))},
        optional={
            "arguments": JSONS
            | st.fixed_dictionaries(
                {},
                optional={
                    "proto": TEXTS | LEAVES,
                    "host_addr": TEXTS | LEAVES,
                    "guest_addr": TEXTS | LEAVES,
                    "host_port": PORTS | LEAVES,
                    "guest_port": PORTS | LEAVES,
                    "id": PORTS | LEAVES,
                },
            )
        },
    ),
)


@many
@given(SLIRP, st.integers(0, 9), st.integers(1, 50))
def test_slirp4netns(asked: Any, missing: int, piece: int) -> None:
    raw = json.dumps(asked).encode()
    raw = raw[: len(raw) - missing]
    forwards = tables()
    before = forwards.now
    client = SlirpConversation(SlirpApi(forwards, lambda: GUEST))
    said = client.begin()
    for at in range(0, len(raw), piece):
        said += client.receive(raw[at : at + piece])
    said += client.receive(b"")
    assert client.over
    check(forwards, before)
    if said:
        told = json.loads(said)
        assert ("error" in told) != ("return" in told)
        assert not ("error" in told and forwards.asked)


BODIES = st.one_of(
    JSONS,
    st.fixed_dictionaries(
        {},
        optional={
            name: st.builds("{}:{}".format, ADDRESSES, PORTS) | LEAVES
            for name in ("local", "remote")
        }
        | {"protocol": TEXTS | LEAVES},
    ),
)
GVPROXY = st.sampled_from(sorted({(each.method, each.path) for each in GVPROXY_VERBS}))


def never(at: str, error: Exception) -> None:
    raise error


@many
@given(GVPROXY, BODIES)
def test_gvproxy(where: tuple[str, str], body: Any) -> None:
    forwards = tables()
    before = forwards.now
    services = Services(forwards, lambda: GUEST, dict, dict)
    client = Conversation(Router(GVPROXY_VERBS, services, never, as_text))
    status, _ = split(client.receive(request(*where, body)))
    check(forwards, before)
    assert status == 200 or not forwards.asked


FIELDS = ("proto", "port", "ports", "to", "address", "side", "table")
FORWARD = st.one_of(
    SPECS.map("tcp:{}".format),
    SPECS,
    JSONS,
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("proto", "port", "ports", "to", "address", "side", "table"),
            TEXTS | PORTS | LEAVES,
        ),
    ),
)


@many
@given(
    st.sampled_from(("POST", "DELETE", "GET", "PUT", "BREW")),
    st.sampled_from(("/v1/forwards", "/v1/forwards/1", "/v1/log", "/v1/explain", "/x")),
    st.dictionaries(st.sampled_from(("dst", "src", "proto", "from")), TEXTS),
    st.fixed_dictionaries({"specs": st.lists(FORWARD, max_size=3) | JSONS}) | JSONS,
)
def test_http(method: str, path: str, query: dict[str, str], body: Any) -> None:
    asker = Asker()
    before = asker.forwards.now
    target = f"{path}?{urlencode(query)}" if query else path
    status, said = asker.raw(method, target, body)
    check(asker.forwards, before)
    assert 200 <= status < 500
    assert status < 300 or not asker.forwards.asked
    assert status < 300 or "error" in json.loads(said)


@many
@given(
    SPECS | st.text(max_size=20),
    st.sampled_from((IPPROTO_TCP, IPPROTO_UDP)),
    st.sampled_from(tuple(Side)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_port_specifications(
    spec: str, proto: int, side: Side, ipv4: bool, ipv6: bool, scans: bool
) -> None:
    context = PortContext("-t", proto, side, ipv4, ipv6, scans, EPHEMERAL)
    try:
        rules = read_ports(spec, context)
    except ConfigError:
        return
    for each in rules:
        assert 0 <= each.first <= each.last <= 65535
        assert each.proto == proto
        assert scans or not each.scan
        assert side is Side.HOST or each.ifname == "lo"


WORDS = st.lists(
    st.tuples(
        st.sampled_from(
            ("add", "delete", "clear", "tcp-ports", "udp-ports", "tcp-ns", "udp-ns")
        ),
        SPECS | st.sampled_from(("HOST", "SPLICE", "TAP", "22", "9000")),
    ),
    max_size=4,
)


@many
@given(WORDS)
def test_the_command_line_of_pesto(words: list[tuple[str, str]]) -> None:
    host, splice = tables().now
    editor = Editor((host, splice), EPHEMERAL)
    for option, value in words:
        before = dict(editor.tables)
        try:
            editor.apply(option, value)
        except (PestoError, ConfigError, RuleError):
            assert editor.tables == before
    for table in editor.tables.values():
        rebuilt = PortTable(table.side, Able(63))
        for each in table.rules:
            rebuilt = rebuilt.add(each)
