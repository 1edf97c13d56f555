# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of keys that a policy file may have, and how each value is read.

Reading, the schema in docs/ and the messages all come from their rows. A key that is
not here is an error: a policy that is not understood must not look as if it were.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from passtpy.config.amounts import (
    RATE,
    SIZE,
    AmountError,
    read_rate,
    read_size,
)
from passtpy.config.limit import Limit
from passtpy.egress.model import (
    DEFAULT_ASK_S,
    MOST_ASK_S,
    DnsRefusal,
    Effect,
    Mode,
    Ports,
    Quic,
    Scheme,
    Sets,
    Span,
    Targets,
    Via,
)
from passtpy.egress.places import Path
from passtpy.egress.target import (
    MOST_PORT,
    PROTOS,
    TargetFault,
    check_ports,
    read_ports,
    read_target,
)

VERSION: Final = 1
MOST_FLOWS: Final = 1_000_000
Json = dict[str, Any]
_VIA: Final = re.compile(r"(socks5|http)://(\[[0-9a-fA-F:.]+\]|[0-9.]+):([0-9]{1,5})")


class Fault(Exception):
    """What was expected at a path of the file; `key`: the key itself is wrong."""

    def __init__(self, path: Path, expected: str, key: bool = False) -> None:
        super().__init__(expected)
        self.path = path
        self.key = key


Read = Callable[[Any, Path, Mapping[str, Targets]], Any]


class Key(NamedTuple):
    """A key, the field of the record that it fills, and what its value may be."""

    name: str
    field: str
    read: Read
    schema: Json
    help: str
    required: bool = False


def _choice(values: type[StrEnum], *but: StrEnum) -> tuple[Read, Json]:
    words = [each.value for each in values if each not in but]

    def read(value: Any, path: Path, _: Mapping[str, Targets]) -> StrEnum:
        if value not in words:
            raise Fault(path, f"expected one of {', '.join(words)}")
        return values(value)

    return read, {"enum": words}


def read_text(value: Any, path: Path, _: Mapping[str, Targets]) -> str:
    """Read a text on one line."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Fault(path, "expected a text of printable characters")
    return value


def as_list(value: Any, path: Path) -> list[tuple[Any, Path]]:
    """Return the elements of a list, or the value itself, each with its path."""
    if not isinstance(value, list):
        return [(value, path)]
    if not value:
        raise Fault(path, "expected at least one; without the key all are meant")
    return [(each, (*path, number)) for number, each in enumerate(value)]


def _read_word(word: str, path: Path, sets: Mapping[str, Targets]) -> Targets:
    try:
        return read_target(word, sets)
    except TargetFault as fault:
        raise Fault(path, str(fault)) from None


def read_to(
    value: Any, path: Path, sets: Mapping[str, Targets]
) -> tuple[tuple[str, ...], Targets]:
    """Read where a rule's flows go: the words, and what they mean."""
    if isinstance(value, str):
        return (value,), _read_word(value, path, sets)
    words: list[str] = []
    names: list[str] = []
    spans: list[Span] = []
    builtin = frozenset[Sets]()
    for each, place in as_list(value, path):
        if not isinstance(each, str):
            raise Fault(place, "expected a text: a name, a network or a @set")
        targets = _read_word(each, place, sets)
        words.append(each)
        names += targets.names
        spans += targets.spans
        builtin |= targets.sets
    return tuple(words), Targets(tuple(names), tuple(spans), builtin)


def _read_ports(value: Any, path: Path, _: Mapping[str, Targets]) -> tuple[Ports, ...]:
    ports: list[Ports] = []
    for each, place in as_list(value, path):
        try:
            if isinstance(each, str):
                ports += read_ports(each)
            elif isinstance(each, int) and not isinstance(each, bool):
                ports.append(check_ports(each, each))
            else:
                raise TargetFault("expected a port, or a text like '8000-8010'")
        except TargetFault as fault:
            raise Fault(place, str(fault)) from None
    return tuple(ports)


def _read_proto(value: Any, path: Path, _: Mapping[str, Targets]) -> frozenset[int]:
    protos = frozenset[int]()
    for each, place in as_list(value, path):
        if each not in PROTOS:
            raise Fault(place, f"expected one of {', '.join(PROTOS)}")
        protos |= PROTOS[each]
    return protos


def _read_version(value: Any, path: Path, _: Mapping[str, Targets]) -> int:
    if value != VERSION or isinstance(value, bool):
        raise Fault(path, f"expected {VERSION}, the version of the format")
    return VERSION


def _read_via(value: Any, path: Path, _: Mapping[str, Targets]) -> Via:
    """Read `SCHEME://ADDRESS:PORT`: a name would have to be looked up before."""
    found = _VIA.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None or not 0 < int(found[3]) <= MOST_PORT:
            raise ValueError
        address = ip_address(found[2].strip("[]"))
    except ValueError:
        raise Fault(
            path, "expected socks5://ADDRESS:PORT or http://ADDRESS:PORT"
        ) from None
    return Via(Scheme(found[1]), address, int(found[3]))


def read_credentials(text: str, path: Path) -> tuple[str, str]:
    """Read a file that says `USER:PASSWORD` on its first line."""
    user, colon, password = text.split("\n", 1)[0].rstrip("\r").partition(":")
    if not colon or not 0 < len(user.encode()) < 256 > len(password.encode()):
        raise Fault(path, "expected USER:PASSWORD on the first line of the file")
    return user, password


def _read_ask_s(value: Any, path: Path, _: Mapping[str, Targets]) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Fault(path, "expected a number of seconds")
    if not 0 < value <= MOST_ASK_S:
        raise Fault(path, f"expected 1 to {MOST_ASK_S} seconds")
    return value


def _amount(read: Callable[[str], int], pattern: str) -> tuple[Read, Json]:
    def read_amount(value: Any, path: Path, _: Mapping[str, Targets]) -> int:
        try:
            return read(value if isinstance(value, str) else "")
        except AmountError as error:
            raise Fault(path, str(error)) from None

    return read_amount, {"type": "string", "pattern": f"^{pattern}$"}


def _read_count(value: Any, path: Path, _: Mapping[str, Targets]) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Fault(path, "expected a number of flows")
    if not 0 < value <= MOST_FLOWS:
        raise Fault(path, f"expected 1 to {MOST_FLOWS} flows")
    return value


def _read_limit(value: Any, path: Path, sets: Mapping[str, Targets]) -> Limit:
    fields = read_table(LIMIT_KEYS, value, path, sets)
    if not fields:
        names = ", ".join(key.name for key in LIMIT_KEYS)
        raise Fault(path, f"expected at least one of {names}")
    return Limit(**fields)


def _one_or_more(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}


_TARGET: Final[Json] = {
    "type": "string",
    "description": "NAME, *.NAME, ADDR, ADDR/LEN, ADDR-ADDR or @SET",
}
TARGETS: Final = _one_or_more(_TARGET)
_PORT: Final[Json] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MOST_PORT},
        {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$"},
    ]
}

_COUNT: Final[Json] = {"type": "integer", "minimum": 1, "maximum": MOST_FLOWS}
LIMIT_KEYS: Final[Sequence[Key]] = (
    Key("rate_in", "rate_in", *_amount(read_rate, RATE), "speed towards the guest"),
    Key("rate_out", "rate_out", *_amount(read_rate, RATE), "speed of what it sends"),
    Key(
        "total_in", "total_in", *_amount(read_size, SIZE), "bytes for the guest in all"
    ),
    Key("total_out", "total_out", *_amount(read_size, SIZE), "bytes of it in all"),
    Key("flows", "flows", _read_count, _COUNT, "flows at a time"),
    Key("new_flows", "new_flows", _read_count, _COUNT, "new flows a second"),
)


def table_schema(keys: Sequence[Key], more: Json) -> Json:
    """Return the schema of a table with these keys."""
    properties = {
        key.name: {"description": f"{key.help[0].upper()}{key.help[1:]}.", **key.schema}
        for key in keys
    }
    return {
        "type": "object",
        "properties": properties | more,
        "required": [key.name for key in keys if key.required],
        "additionalProperties": False,
    }


_LIMIT: Final[Json] = table_schema(LIMIT_KEYS, {}) | {"minProperties": 1}
RULE_KEYS: Final[Sequence[Key]] = (
    Key("name", "name", read_text, {"type": "string"}, "what people call the rule"),
    Key(
        "to",
        "to",
        read_to,
        TARGETS,
        "where flows go that it is about; without it: anywhere, for allow and ask"
        " anywhere on the internet",
    ),
    Key(
        "ports",
        "ports",
        _read_ports,
        _one_or_more(_PORT),
        "destination ports; without it: all, and protocols without ports",
    ),
    Key(
        "proto",
        "protos",
        _read_proto,
        _one_or_more({"enum": list(PROTOS)}),
        "protocols; without it: all",
    ),
    Key(
        "action",
        "effect",
        *_choice(Effect),
        "what becomes of such a flow",
        required=True,
    ),
    Key(
        "quic",
        "quic",
        *_choice(Quic),
        "what becomes of UDP to port 443 that a name of `to` allows: reject, or as the"
        " pins say; reject unless said",
    ),
    Key(
        "via",
        "via",
        _read_via,
        {"type": "string", "pattern": _VIA.pattern},
        "proxy through which TCP leaves, and UDP if it is one of SOCKS5; it is told the"
        " name, and resolves it",
    ),
    Key(
        "via_credentials",
        "credentials",
        read_text,
        {"type": "string"},
        "file with USER:PASSWORD for the proxy",
    ),
    Key(
        "limit",
        "limit",
        _read_limit,
        _LIMIT,
        "how much its flows may move together, and how many there may be",
    ),
)
FILE_KEYS: Final[Sequence[Key]] = (
    Key(
        "version",
        "version",
        _read_version,
        {"const": VERSION},
        "version of the format",
        required=True,
    ),
    Key(
        "default",
        "default",
        *_choice(Effect),
        "what becomes of a flow that no rule matches; reject unless said",
    ),
    Key(
        "mode",
        "mode",
        *_choice(Mode),
        "enforce, or observe: what would be refused is told, and passes",
    ),
    Key(
        "dns_refusal",
        "dns_refusal",
        *_choice(DnsRefusal),
        "how a question for a name is answered that may not be asked",
    ),
    Key(
        "ask_timeout",
        "ask_s",
        _read_ask_s,
        {"type": "integer", "minimum": 1, "maximum": MOST_ASK_S},
        f"seconds that a flow waits for an answer; {DEFAULT_ASK_S} unless said",
    ),
    Key(
        "limit",
        "limit",
        _read_limit,
        _LIMIT,
        "the same of all flows of the guest, whatever their rule",
    ),
)
SET_KEYS: Final = {"to": "more targets", "include": "files with a target on each line"}


def read_table(
    keys: Sequence[Key], table: Any, path: Path, sets: Mapping[str, Targets]
) -> dict[str, Any]:
    """Return the fields that a table says; Fault for a key that is not in `keys`."""
    if not isinstance(table, dict):
        raise Fault(path, "expected a table")
    known = {key.name: key for key in keys}
    fields: dict[str, Any] = {}
    for name, value in table.items():
        key = known.get(name)
        if key is None:
            raise Fault((*path, name), unknown(name, known), key=True)
        fields[key.field] = key.read(value, (*path, name), sets)
    for key in keys:
        if key.required and key.field not in fields:
            raise Fault(path, f"expected the key {key.name!r}: {key.help}")
    return fields


def unknown(name: str, known: Mapping[str, object]) -> str:
    """Return what to say of a key that there is not."""
    return f"unknown key {name!r}; expected one of {', '.join(known)}"
