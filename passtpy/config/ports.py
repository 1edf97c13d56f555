# SPDX-License-Identifier: GPL-2.0-or-later
"""The port specification grammar of -t, -u, -T and -U.

    SPEC  := "none" | "auto" | "all" | [ [ADDR] ["%" IFNAME] "/" ] LIST
    ADDR  := IPv4 | IPv6 | "[" either "]"
    LIST  := ITEM { "," ITEM }
    ITEM  := "~" RANGE | RANGE [ ":" RANGE ]
    RANGE := PORT [ "-" PORT ]

A `PortTable` gathers the specifications of one option, in order, and yields the rules
at the end. Everything is pure: the ephemeral range and the families are arguments.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from itertools import pairwise

from passtpy.addr import Address
from passtpy.config.model import PortRule
from passtpy.errors import ConfigError

MAX_PORT = 65535
IFNAME_LEN = 15
MAX_RULES = 255
MAX_SOCKETS = 196608
DEFAULT_EPHEMERAL = (49152, MAX_PORT)

Span = tuple[int, int]


class PortMode(StrEnum):
    """How the ports of one direction and protocol are chosen."""

    NONE = "none"
    AUTO = "auto"
    ALL = "all"
    SPECIFIC = "specific"


class _SpecError(Exception):
    """The text does not follow the grammar."""


@dataclass(frozen=True, slots=True)
class PortContext:
    """What a specification is read against."""

    option: str = "-t"
    prog_mode: str = "pasta"
    ipv4: bool = True
    ipv6: bool = True
    takes_address: bool = True  # -t and -u; listeners of -T, -U are always on lo
    binds_devices: bool = True  # False before kernel 5.7
    ephemeral: Span = DEFAULT_EPHEMERAL


@dataclass(frozen=True, slots=True)
class PortSpec:
    """One parsed specification: where, which, except which."""

    addr: Address | None
    ifname: str | None
    mapped: tuple[tuple[Span, int], ...]  # host ports, and how far the guest's are
    excluded: tuple[Span, ...]


def _parse_port(text: str) -> int:
    # int() would also take signs, blanks, underscores and other scripts' digits.
    if not (text.isascii() and text.isdigit()):
        raise _SpecError
    port = int(text) if len(text) < 12 else MAX_PORT + 1
    if port > MAX_PORT:
        raise _SpecError
    return port


def _parse_span(text: str) -> Span:
    first, dash, last = text.partition("-")
    low = _parse_port(first)
    high = _parse_port(last) if dash else low
    if high < low:
        raise _SpecError
    return low, high


def _parse_item(text: str) -> tuple[Span, int]:
    host, colon, guest = text.partition(":")
    span = _parse_span(host)
    if not colon:
        return span, 0
    target = _parse_span(guest)
    if target[1] - target[0] != span[1] - span[0]:
        raise _SpecError
    return span, target[0] - span[0]


def _parse_address(text: str) -> Address | None:
    if not text:
        return None
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    for family in (IPv4Address, IPv6Address):
        try:
            return family(text)
        except AddressValueError:
            continue
    raise _SpecError


def _parse_where(text: str) -> tuple[Address | None, str | None]:
    addr, percent, ifname = text.partition("%")
    if percent and not 0 < len(ifname.encode(errors="surrogateescape")) <= IFNAME_LEN:
        raise _SpecError
    return _parse_address(addr), ifname if percent else None


def parse_spec(text: str) -> PortSpec:
    """Read one list specification (not none, auto, all)."""
    try:
        where, slash, items = text.rpartition("/")
        if slash and not where:
            raise _SpecError
        addr, ifname = _parse_where(where)
        mapped: list[tuple[Span, int]] = []
        excluded: list[Span] = []
        for item in items.split(","):
            if item.startswith("~"):
                excluded.append(_parse_span(item[1:]))
            else:
                mapped.append(_parse_item(item))
    except _SpecError:
        raise ConfigError(f"Invalid port specifier {text}") from None
    return PortSpec(addr, ifname, tuple(mapped), tuple(excluded))


def subtract(span: Span, holes: tuple[Span, ...]) -> Iterator[Span]:
    """Yield what is left of `span`, in rising order."""
    low, high = span
    for hole_low, hole_high in sorted(holes):
        if hole_high < low:
            continue
        if hole_low > high:
            break
        if hole_low > low:
            yield low, hole_low - 1
        low = hole_high + 1
    if low <= high:
        yield low, high


def _check_exclusions(spec: PortSpec, text: str) -> None:
    ordered = sorted(spec.excluded)
    for before, after in pairwise(ordered):
        if after[0] <= before[1]:
            raise ConfigError(f"Overlapping excluded ranges {text}")


def _check_context(spec: PortSpec, text: str, context: PortContext) -> None:
    option = f"{context.option} {text}"
    if (spec.addr or spec.ifname) and not context.takes_address:
        raise ConfigError(f"Invalid port specifier {text}")
    if isinstance(spec.addr, IPv4Address) and not context.ipv4:
        raise ConfigError(f"IPv4 is disabled, can't use {option}")
    if isinstance(spec.addr, IPv6Address) and not context.ipv6:
        raise ConfigError(f"IPv6 is disabled, can't use {option}")
    if spec.ifname and not context.binds_devices:
        raise ConfigError(
            f"Device binding for '{option}' unsupported (requires kernel 5.7+)"
        )
    for (low, _), delta in spec.mapped:
        if not low or not low + delta:
            raise ConfigError(f"Can't forward port 0 for option '{option}'")


def expand(spec: PortSpec, ephemeral: Span) -> tuple[PortRule, ...]:
    """Return the rules of a specification, exclusions taken out."""
    mapped, holes, weak = spec.mapped, spec.excluded, False
    if not mapped:  # only exclusions: every port that is not ephemeral
        mapped, weak = (((1, MAX_PORT), 0),), True
        holes += (ephemeral,)
    return tuple(
        PortRule(spec.addr, spec.ifname, low, high, delta, weak)
        for span, delta in mapped
        for low, high in subtract(span, holes)
    )


def _same_place(a: PortRule, b: PortRule) -> bool:
    """Tell whether two rules could claim the same port of the same socket address."""
    if a.ifname and b.ifname and a.ifname != b.ifname:
        return False  # sockets bound to different devices do not collide
    return a.host_addr is None or b.host_addr is None or a.host_addr == b.host_addr


def _place(rule: PortRule) -> str:
    return "*" if rule.host_addr is None else str(rule.host_addr)


def check_conflicts(known: list[PortRule], new: PortRule) -> None:
    """Refuse a rule whose ports are already claimed at the same place."""
    for old in known:
        if new.first <= old.last and old.first <= new.last and _same_place(old, new):
            raise ConfigError(
                "Forwarding configuration conflict:"
                f" {_place(new)}/{new.first}-{new.last}"
                f" versus {_place(old)}/{old.first}-{old.last}"
            )


@dataclass(slots=True)
class PortTable:
    """The specifications of one option so far."""

    context: PortContext
    mode: PortMode | None = None
    rules: list[PortRule] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Take the value of one option word."""
        if text in (PortMode.NONE, PortMode.AUTO, PortMode.ALL):
            self._set_mode(PortMode(text))
            return
        if self.mode not in (None, PortMode.SPECIFIC):
            raise ConfigError(
                "Specific ports cannot be specified together with all/none/auto"
            )
        self.mode = PortMode.SPECIFIC
        spec = parse_spec(text)
        _check_exclusions(spec, text)
        _check_context(spec, text, self.context)
        for rule in expand(spec, self.context.ephemeral):
            self._add_rule(rule)

    def _set_mode(self, mode: PortMode) -> None:
        if mode is PortMode.AUTO and self.context.prog_mode != "pasta":
            raise ConfigError("'auto' port forwarding is only allowed for pasta")
        if mode is PortMode.ALL and self.context.prog_mode == "pasta":
            raise ConfigError("'all' port forwarding is only allowed for passt")
        if self.mode is not None:
            raise ConfigError(
                f"Port forwarding mode '{mode}' conflicts with previous mode"
            )
        self.mode = mode
        if mode is PortMode.ALL:
            spec = PortSpec(None, None, (), ())
            for rule in expand(spec, self.context.ephemeral):
                self._add_rule(rule)

    def _add_rule(self, rule: PortRule) -> None:
        check_conflicts(self.rules, rule)
        if len(self.rules) >= MAX_RULES:
            raise ConfigError("Too many port forwarding ranges")
        if sum(known.ports for known in self.rules) + rule.ports > MAX_SOCKETS:
            raise ConfigError("Too many listening sockets")
        self.rules.append(rule)
