# SPDX-License-Identifier: GPL-2.0-or-later
"""Chooses flows by an expression, in the words of ss and tcpdump.

    tcp and port 443        dst 198.51.100.0/24        rule github or not udp
    sport = :40000          from guest and idle > 30s  host 192.0.2.5 and bytes > 1M

`src` is who started the flow, `dst` whom it asked for or where it was led; a primitive
without either is about both. Two expressions side by side mean `and`. The result is a
plain predicate over flow records, so that a long listing costs one call for each, and
the same as a program for the datapath, which asks it about packets.
"""

import re
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from enum import IntEnum
from ipaddress import ip_network
from struct import Struct
from typing import NoReturn

from passtpy.addr import V4_PREFIX
from passtpy.flow import SPLICED_TYPES, TYPE_NAMES, FlowRecord, FlowType, Pif
from passtpy.record import record

Endpoint = tuple[bytes, int]  # inany, port

MAX_DEPTH = 50  # of parentheses and negations
MAX_WORDS = 500
MAX_TEXT = 16 * 1024  # characters: it is read while packets wait
MAX_DIGITS = 20  # of an id: 64 bits
MAX_STEPS = 1024  # of a program
BOUNDS = (
    f"A filter has at most {MAX_TEXT} characters, {MAX_WORDS} words, and"
    f" {MAX_DEPTH} parentheses and negations within each other."
)

_MOST = 2**64 - 2  # the number after it means that there is no flow
_STEP = Struct("=BBHHHQ16s16s")  # struct filter_step of native/table/filter.h


class _Code(IntEnum):
    """What a step of a program does: enum filter_code."""

    NOT = 0
    AND = 1
    OR = 2
    TYPE = 3
    ADDR = 4
    PORT = 5
    PIF = 6
    V4 = 7
    RULE = 8
    ID = 9
    COUNT = 10


class FilterError(ValueError):
    """The text is no filter; `column` (from 1) is where it stops being one."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"{message}, at column {column}")
        self.column = column


@record
class Context:
    """What an expression may name besides numbers.

    `rules`: ids by the name that people gave a rule. `now`: ns on the clock of the
    records, for ages.
    """

    rules: dict[str, frozenset[int]]
    now: int = 0


Predicate = Callable[[FlowRecord], bool]


@record
class Filter:
    """An expression as a predicate, and as steps of a program, in postfix order."""

    takes: Predicate
    steps: tuple[bytes, ...] = ()


# Every word, for people; a test tries each.
FIELDS = (
    ("tcp, udp, icmp, icmp6, ping", "flows of a protocol; ping is either of ICMP"),
    ("spliced", "flows that bypass the tap"),
    ("ip, ip6", "flows whose initiator has an address of that family"),
    ("from guest|host|namespace", "flows that began there"),
    ("src ADDR[/LEN], dst ADDR[/LEN]", "who began it; whom it is meant for"),
    ("host ADDR, net ADDR/LEN, ADDR[/LEN]", "any address of the flow"),
    ("port N[-M], src port N, dst port N", "ports; also sport N, dport = :N"),
    ("rule NAME|ID", "flows that a rule admitted"),
    ("id N", "the flow with this id"),
    ("bytes > N, packets > N", "traffic, both ways together; N may end in k, M, G"),
    ("age > T, idle > T", "since it began; since its last packet: 500ms, 30s, 5m, 2h"),
    ("not X, X and Y, X or Y, ( X )", "together; two side by side mean and"),
)

_TYPES: dict[str, AbstractSet[FlowType]] = {
    **{
        name: {kind for kind, told in TYPE_NAMES.items() if told == name}
        for kind, name in TYPE_NAMES.items()
        if kind != FlowType.NONE
    },
    "ping": {FlowType.PING4, FlowType.PING6},
    "spliced": SPLICED_TYPES,
}
_FROM = {"guest": Pif.TAP, "host": Pif.HOST, "namespace": Pif.SPLICE}
_SIZES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_TIMES = {"ms": 10**6, "s": 10**9, "": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_NUMBERS: dict[str, Callable[[FlowRecord, int], int]] = {
    "bytes": lambda f, _: f.bytes0 + f.bytes1,
    "packets": lambda f, _: f.packets0 + f.packets1,
    "age": lambda f, now: now - f.created_ns,
    "idle": lambda f, now: now - f.last_use_ns,
}
_DIRECTIONS = ("", "src", "dst")  # enum filter_ends
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
}
_COMPARISONS = (">", "<", ">=", "<=", "=")  # enum filter_compare
_WORDS = re.compile(r'\s*(?:"([^"]*)"|([()!])|(&&|\|\||[<>]=?|==?)|([^\s()<>=!&|"]+))')


@record
class _Word:
    text: str
    column: int
    quoted: bool = False


def _words(text: str) -> Iterator[_Word]:
    position = 0
    if len(text) > MAX_TEXT:
        raise FilterError("too long", MAX_TEXT + 1)
    while text[position:].strip():
        found = _WORDS.match(text, position)
        if found is None:
            column = len(text) - len(text[position:].lstrip()) + 1
            raise FilterError(f"cannot read {text[column - 1 :]!r}", column)
        kind = found.lastindex or 1
        yield _Word(found.group(kind), found.start(kind) + 1, kind == 1)
        position = found.end()


def _ends(flow: FlowRecord, direction: str) -> tuple[Endpoint, ...]:
    """Return the endpoints that a direction means; flow sides are 0 and 1."""
    started: tuple[Endpoint, ...] = (
        (flow.eaddr0, flow.eport0),
        (flow.oaddr1, flow.oport1),
    )
    asked: tuple[Endpoint, ...] = (
        (flow.oaddr0, flow.oport0),
        (flow.eaddr1, flow.eport1),
    )
    if direction == "src":
        return started
    return asked if direction == "dst" else started + asked


def _network(text: str) -> tuple[int, int] | None:
    """Return a network as (value, mask) over 128 bits of an inany."""
    try:
        network = ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
    lead = V4_PREFIX if network.version == 4 else b""
    bits = 128 - (network.max_prefixlen - network.prefixlen)
    mask = ((1 << bits) - 1) << (128 - bits)
    value = int.from_bytes(lead + network.network_address.packed)
    return value & mask, mask


class _Parser:
    """A recursive descent: or, and, not, primitive."""

    def __init__(self, text: str, context: Context) -> None:
        self._words = list(_words(text))
        self._end = len(text) + 1
        if len(self._words) > MAX_WORDS:
            raise FilterError("too long", self._words[MAX_WORDS].column)
        self._context = context
        self._at = 0
        self._depth = 0

    def parse(self) -> Filter:
        if not self._words:
            return Filter(lambda flow: True)
        found = self._either()
        if self._at < len(self._words):
            self._fail("expected and, or, or the end")
        return found

    def _peek(self) -> str:
        if self._at == len(self._words) or self._words[self._at].quoted:
            return ""
        return self._words[self._at].text.lower()

    def _next(self, expected: str) -> str:
        if self._at == len(self._words):
            self._fail(f"expected {expected}")
        self._at += 1
        return self._words[self._at - 1].text

    def _fail(self, message: str, back: int = 0) -> NoReturn:
        at = self._at - back
        column = self._words[at].column if at < len(self._words) else self._end
        raise FilterError(message, column)

    def _take(self, *words: str) -> bool:
        if self._peek() not in words:
            return False
        self._at += 1
        return True

    def _either(self) -> Filter:
        found = self._both()
        while self._take("or", "||"):
            found = _or(found, self._both())
        return found

    def _both(self) -> Filter:
        found = self._negated()
        while self._take("and", "&&") or self._more():
            found = _and(found, self._negated())
        return found

    def _more(self) -> bool:
        return self._at < len(self._words) and self._peek() not in ("or", "||", ")")

    def _negated(self) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("too deep")
        found = self._unary()
        self._depth -= 1
        return found

    def _unary(self) -> Filter:
        if self._take("not", "!"):
            return _not(self._negated())
        if self._take("("):
            inner = self._either()
            if not self._take(")"):
                self._fail("expected )")
            return inner
        return self._primitive()

    def _primitive(self) -> Filter:
        word = self._next("an expression").lower()
        if word in _TYPES:
            types = _TYPES[word]
            bits = sum(1 << kind for kind in types)
            return Filter(lambda flow: flow.type in types, _step(_Code.TYPE, 0, bits))
        if word in _NUMBERS:
            return self._number(word)
        match word:
            case "src" | "dst":
                return self._directed(word)
            case "host" | "net" | "port" | "portrange":
                return self._place(word, "")
            case "sport" | "dport":
                self._take("=", "==", "eq")
                return self._port(("src", "dst")[word == "dport"])
            case "from":
                return self._from()
            case "rule":
                return self._rule()
            case "id":
                return self._id()
            case "ip" | "ip6":
                v4 = word == "ip"
                return Filter(
                    lambda flow: flow.eaddr0.startswith(V4_PREFIX) is v4,
                    _step(_Code.V4, v4),
                )
        if _network(word) is None:
            self._fail(f"unknown word {word!r}", back=1)
        self._at -= 1
        return self._address("")

    def _directed(self, direction: str) -> Filter:
        self._take("=", "==", "eq")
        word = self._peek()
        if word in ("host", "net", "port", "portrange"):
            self._at += 1
            return self._place(word, direction)
        return self._address(direction)

    def _place(self, kind: str, direction: str) -> Filter:
        if kind in ("host", "net"):
            return self._address(direction)
        return self._port(direction)

    def _address(self, direction: str) -> Filter:
        text = self._next("an address or network")
        found = _network(text)
        if found is None:
            self._fail(f"{text!r} is no address or network", back=1)
        value, mask = found
        steps = _step(
            _Code.ADDR,
            _DIRECTIONS.index(direction),
            value=value.to_bytes(16),
            mask=mask.to_bytes(16),
        )
        if mask == (1 << 128) - 1:
            exact = value.to_bytes(16)
            return Filter(
                lambda flow: any(a == exact for a, _ in _ends(flow, direction)), steps
            )
        return Filter(
            lambda flow: any(
                int.from_bytes(a) & mask == value for a, _ in _ends(flow, direction)
            ),
            steps,
        )

    def _port(self, direction: str) -> Filter:
        text = self._next("a port")
        low, dash, high = text.removeprefix(":").partition("-")
        ends = sorted(int(n) for n in (low, high if dash else low) if _is_number(n))
        if len(ends) < 2 or ends[1] > 65535:
            self._fail(f"{text!r} is no port", back=1)
        first, last = ends
        span = range(first, last + 1)
        side = _DIRECTIONS.index(direction)
        return Filter(
            lambda flow: any(port in span for _, port in _ends(flow, direction)),
            _step(_Code.PORT, side, low=first, high=last),
        )

    def _from(self) -> Filter:
        text = self._next("guest, host or namespace").lower()
        pif = _FROM.get(text)
        if pif is None:
            self._fail("expected guest, host or namespace", back=1)
        return Filter(lambda flow: flow.pif0 == pif, _step(_Code.PIF, pif))

    def _rule(self) -> Filter:
        text = self._next("the name or id of a rule")
        ids = self._context.rules.get(text, frozenset())
        if _is_number(text):
            ids |= {int(text)}
        if not ids:
            self._fail(f"no rule is called {text!r}", back=1)
        steps: tuple[bytes, ...] = ()
        for each in sorted(ids):
            steps += _step(_Code.RULE, 0, each)
            steps += _step(_Code.OR) if len(steps) > 1 else ()
        return Filter(lambda flow: flow.rule in ids, steps)

    def _id(self) -> Filter:
        text = self._next("the id of a flow")
        if not _is_number(text):
            self._fail(f"{text!r} is no id of a flow", back=1)
        number = int(text)
        return Filter(lambda flow: flow.flow_id == number, _step(_Code.ID, 0, number))

    def _number(self, what: str) -> Filter:
        sign = self._next("one of > < >= <= =")
        compare = _COMPARE.get(sign)
        if compare is None:
            self._fail("expected one of > < >= <= =", back=1)
        units = _TIMES if what in ("age", "idle") else _SIZES
        text = self._next("a number").lower()
        found = re.fullmatch(r"(\d{1,15})([a-z]*)", text)
        if found is None or found[2] not in units:
            self._fail(f"{text!r} is no number of that kind", back=1)
        bound = int(found[1]) * units[found[2]]
        value, now = _NUMBERS[what], self._context.now
        sort = _COMPARISONS.index(sign.replace("==", "="))
        return Filter(
            lambda flow: compare(value(flow, now), bound),
            _step(_Code.COUNT, list(_NUMBERS).index(what), bound, low=sort),
        )


def _is_number(text: str) -> bool:
    """Tell whether it is one that may be an id; Python reads no endless ones."""
    return text.isdecimal() and len(text) <= MAX_DIGITS


def _step(
    code: _Code,
    arg: int = 0,
    number: int = 0,
    *,
    low: int = 0,
    high: int = 0,
    value: bytes = b"",
    mask: bytes = b"",
) -> tuple[bytes]:
    number = min(number, _MOST)  # beyond, nothing has it either
    return (_STEP.pack(code, arg, low, high, 0, number, value, mask),)


def _not(a: Filter) -> Filter:
    return Filter(lambda flow: not a.takes(flow), a.steps + _step(_Code.NOT))


def _and(a: Filter, b: Filter) -> Filter:
    left, right = a.takes, b.takes
    steps = a.steps + b.steps + _step(_Code.AND)
    return Filter(lambda flow: left(flow) and right(flow), steps)


def _or(a: Filter, b: Filter) -> Filter:
    left, right = a.takes, b.takes
    steps = a.steps + b.steps + _step(_Code.OR)
    return Filter(lambda flow: left(flow) or right(flow), steps)


def compile_filter(text: str, context: Context) -> Predicate:
    """Return the predicate that `text` describes; an empty text takes every flow."""
    return _Parser(text, context).parse().takes


def compile_program(text: str, context: Context) -> bytes:
    """Return the same for `Datapath.capture_start`; empty: everything."""
    steps = _Parser(text, context).parse().steps
    if len(steps) > MAX_STEPS:
        raise FilterError("too long", 1)
    return b"".join(steps)
