# SPDX-License-Identifier: GPL-2.0-or-later
"""The port specification grammar of -t, -u, -T and -U.

    ARG   := "none" | [ PLACE "/" ] CHUNK { "," CHUNK }
    PLACE := ADDR [ "%" IF ] | [ "*" ] [ "%" IF ]
    CHUNK := "all" [ ":" ADDR ] | "auto" | "~" RANGE | "proxy=v1" | "proxy=v2"
           | RANGE ":" ADDR "/" RANGE | RANGE ":" ADDR | RANGE ":" RANGE | RANGE
    RANGE := PORT [ "-" PORT ]
    ADDR  := IPv4 | IPv6 | "[" either "]"

What begins with "fd:" is read by passed.py, and what has a UNIX socket as an end by
unixend.py. The families and the ephemeral ports are
arguments.
"""

from collections.abc import Iterator
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv6Address,
    IPv6Network,
)

from passtpy.addr import Address
from passtpy.config.portrule import MAX_PORT, PROXIES, PortRule, Side
from passtpy.config.unixend import is_unix, read_unix
from passtpy.errors import ConfigError
from passtpy.record import record, replace

IFNAME_LEN = 15  # bytes
DEFAULT_EPHEMERAL = (49152, MAX_PORT)
LOOPBACK_DEVICE = "lo"
NONE = "none"
_RANGE_FILE = "/proc/sys/net/ipv4/ip_local_port_range"

# Where an IPv6 address can be that somebody listens on. Outside, 80:fd00::2 is a port
# and an address, and not the address 0080:fd00::2.
_ASSIGNED = tuple(
    IPv6Network(text) for text in ("::/16", "2000::/3", "fc00::/7", "fe80::/9")
)

Span = tuple[int, int]


class _SpecError(Exception):
    """The text does not follow the grammar."""


@record
class PortContext:
    """What a specification is read against."""

    option: str  # as the message names it
    proto: int
    side: Side = Side.HOST
    ipv4: bool = True
    ipv6: bool = True
    scans: bool = True  # False: nobody can tell what the other side listens on
    ephemeral: Span = DEFAULT_EPHEMERAL


@record(frozen=False)
class _Chunks:
    """What the chunks of one specification say together."""

    mapped: list[tuple[Span, Address | None, int]]
    excluded: list[Span]
    target: Address | None = None  # of `all`
    scan: bool = False
    proxy: int = 0


def _read_port(text: str) -> int:
    # int() would also take signs, blanks, underscores and other scripts' digits.
    if not (text.isascii() and text.isdigit()):
        raise _SpecError
    port = int(text) if len(text) < 12 else MAX_PORT + 1
    if port > MAX_PORT:
        raise _SpecError
    return port


def read_port(text: str) -> int | None:
    """Return the port that `text` is, or None."""
    try:
        return _read_port(text)
    except _SpecError:
        return None


def _read_span(text: str) -> Span:
    first, dash, last = text.partition("-")
    low = _read_port(first)
    high = _read_port(last) if dash else low
    if high < low:
        raise _SpecError
    return low, high


def read_address(text: str) -> Address | None:
    """Return the address that `text` is, in brackets or not, or None.

    One of IPv4 in the clothes of IPv6 is one of IPv4.
    """
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return IPv4Address(text)
    except AddressValueError:
        pass
    try:
        addr = IPv6Address(text)
    except AddressValueError:
        return None
    if addr.scope_id is not None:
        return None
    return addr.ipv4_mapped or addr


def _target(text: str) -> Address:
    addr = read_address(text)
    if addr is None:
        raise _SpecError
    return addr


def _set(addr: Address) -> Address | None:
    return None if addr.is_unspecified else addr


def _read_mapping(text: str) -> tuple[Span, Address | None, int]:
    """Read a chunk with a range; the forms are tried in the order of the grammar."""
    ports, colon, inner = text.partition(":")
    span = _read_span(ports)
    if not colon:
        return span, None, 0
    where, slash, inner_ports = inner.rpartition("/")
    if slash:
        return span, _set(_target(where)), _delta(span, _read_span(inner_ports))
    addr = read_address(inner)
    if addr is not None:
        return span, _set(addr), 0
    return span, None, _delta(span, _read_span(inner))


def _delta(span: Span, inner: Span) -> int:
    if inner[1] - inner[0] != span[1] - span[0]:
        raise _SpecError
    return inner[0] - span[0]


def _read_chunks(text: str) -> _Chunks:
    found = _Chunks([], [])
    for chunk in text.split(","):
        word, colon, rest = chunk.partition(":")
        if word == "all":
            found.target = _set(_target(rest)) if colon else found.target
        elif chunk == "auto":
            found.scan = True
        elif chunk in PROXIES:
            found.proxy = PROXIES[chunk]
        elif chunk.startswith("~"):
            found.excluded.append(_read_span(chunk[1:]))
        else:
            found.mapped.append(_read_mapping(chunk))
    return found


def _is_ifname(name: str) -> bool:
    try:
        size = len(name.encode(errors="surrogateescape"))
    except UnicodeEncodeError:  # text that stands for no bytes
        return False
    if "\0" in name or not 0 < size <= IFNAME_LEN or name in (".", ".."):
        return False
    return not any(char.isspace() for char in name)


def _could_be_port_and_target(text: str) -> bool:
    """Tell whether an address without brackets reads better as RANGE ":" ADDR."""
    port, colon, rest = text.partition(":")
    if not colon or read_address(rest) is None:
        return False
    addr = IPv6Address(text)
    return port.isdigit() and not any(addr in network for network in _ASSIGNED)


def _read_place(text: str) -> tuple[Address | None, str | None] | None:
    """Return address and interface of a PLACE; None: `text` is no PLACE."""
    where, percent, ifname = text.partition("%")
    if percent and not _is_ifname(ifname):
        return None
    device = ifname if percent else None
    if where in ("", "*"):
        return None, device
    addr = read_address(where)
    if addr is None:
        return None
    if addr.version == 6 and where[0] != "[" and _could_be_port_and_target(where):
        return None
    return addr, device


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
        if low > high:
            return
    yield low, high


def _any_address(context: PortContext) -> Address | None:
    if context.ipv4 and context.ipv6:
        return None
    return IPv4Address(0) if context.ipv4 else IPv6Address(0)


def ephemeral_ports() -> Span:
    """Return the ports that this network namespace gives to whoever does not care."""
    try:
        with open(_RANGE_FILE, encoding="ascii") as file:
            first, last = file.read().split()
            return int(first), int(last)
    except (OSError, ValueError):
        return DEFAULT_EPHEMERAL


def read_ports(text: str, context: PortContext) -> tuple[PortRule, ...]:
    """Return the rules that one specification makes; ConfigError if it is malformed.

    Whether a table takes them is the table's question: see PortTable.add().
    """
    if is_unix(text):
        rule = read_unix(text, context.option, context.proto, context.side)
        return (replace(rule, addr=_any_address(context)) if rule.to_path else rule,)
    place, slash, rest = text.partition("/")
    where = _read_place(place) if slash else None
    if where is None:
        rest = text
    elif context.side is Side.SPLICE:
        raise ConfigError(f"Listening address not allowed for {context.option} {text}")
    try:
        chunks = _read_chunks(rest)
    except _SpecError:
        raise ConfigError(f"Invalid port specifier '{rest}'") from None
    if chunks.scan and not context.scans:
        raise ConfigError("'auto' port forwarding is only allowed for pasta")
    addr, ifname = where or (None, None)
    if context.side is Side.SPLICE:
        ifname = LOOPBACK_DEVICE
    if addr is None:
        addr = _any_address(context)
    mapped, holes, weak = chunks.mapped, tuple(chunks.excluded), False
    if not mapped:  # all that somebody could mean
        mapped, weak = [((1, MAX_PORT), chunks.target, 0)], True
        holes += (context.ephemeral,)
    return tuple(
        PortRule(
            proto=context.proto,
            addr=addr,
            ifname=ifname,
            first=low,
            last=high,
            delta=delta,
            target=target,
            weak=weak,
            scan=chunks.scan,
            proxy=chunks.proxy,
        )
        for span, target, delta in mapped
        for low, high in subtract(span, holes)
    )
