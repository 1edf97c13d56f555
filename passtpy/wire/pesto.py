# SPDX-License-Identifier: GPL-2.0-or-later
"""The messages by which pesto reads and replaces forwarding tables (version 2).

Integers are big-endian, nothing is padded. The daemon speaks first: who it is, then
each of its tables. A client that wants a change answers with tables of its own, which
are the whole new state; one that only looks goes away without a word.

    daemon: magic, u32 version, u32 128, u32 16, { table, name[128], u32 able, rules },
            0
    client: { table, rules }, 0
    rules:  u32 count, count times 56 bytes
"""

import struct
from collections.abc import Iterable
from ipaddress import IPv6Address

from passtpy.errors import WireError
from passtpy.record import record

MAGIC = b"basil:s\0"
VERSION = 2
NAME_SIZE = 128
IFNAME_SIZE = 16
RULE_SIZE = 56
MAX_RULES = 255  # of a table
MAX_TABLES = 3  # that a client knows what to do with
MAX_TABLES_TOLD = 16  # in one update: a table told twice adds up

HOST_TABLE = 1
SPLICE_TABLE = 3
END = b"\0"

DUAL = 1
WEAK = 2
SCAN = 4
_FLAGS = DUAL | WEAK | SCAN

_HELLO = struct.Struct("!8sIII")
_TABLE = struct.Struct(f"!B{NAME_SIZE}sII")
_UPDATE = struct.Struct("!BI")
_RULE = struct.Struct(f"!16s16s{IFNAME_SIZE}sHHHBB")
assert _RULE.size == RULE_SIZE


@record
class RawRule:
    """One rule as it is on the wire; addresses are inany, `target` zero: none.

    `ports` are the first, the last, and where the first one leads.
    """

    addr: bytes
    target: bytes
    ifname: bytes
    ports: tuple[int, int, int]
    proto: int
    flags: int

    def emit(self) -> bytes:
        """Return the 56 bytes."""
        return _RULE.pack(
            self.addr, self.target, self.ifname, *self.ports, self.proto, self.flags
        )

    @classmethod
    def parse(cls, data: bytes) -> "RawRule":
        """Read 56 bytes; WireError for an interface name without an end."""
        addr, target, name, first, last, inner, proto, flags = _RULE.unpack(data)
        ifname, end, _ = name.partition(b"\0")
        if not end:
            raise WireError("Interface name was not NULL terminated")
        return cls(addr, target, ifname, (first, last, inner), proto, flags)

    @property
    def unknown_flags(self) -> bool:
        """Tell whether bits are set that mean nothing."""
        return bool(self.flags & ~_FLAGS)

    def __str__(self) -> str:
        addr, target = (
            str(IPv6Address(raw).ipv4_mapped or IPv6Address(raw))
            for raw in (self.addr, self.target)
        )
        return f"{self.proto} {addr}%{self.ifname!r} {self.ports} {target} {self.flags}"


@record
class RawTable:
    """A table of the daemon: number, name, what it can do, rules."""

    number: int
    name: str
    able: int
    rules: tuple[RawRule, ...]


def _emit_rules(rules: Iterable[RawRule]) -> bytes:
    return b"".join(rule.emit() for rule in rules)


def emit_greeting(tables: Iterable[RawTable]) -> bytes:
    """Return all that a daemon says."""
    parts = [_HELLO.pack(MAGIC, VERSION, NAME_SIZE, IFNAME_SIZE)]
    for table in tables:
        name, count = table.name.encode(), len(table.rules)
        parts.append(_TABLE.pack(table.number, name, table.able, count))
        parts.append(_emit_rules(table.rules))
    return b"".join((*parts, END))


def emit_update(tables: Iterable[tuple[int, tuple[RawRule, ...]]]) -> bytes:
    """Return all that a client says that wants a change."""
    parts = [
        _UPDATE.pack(number, len(rules)) + _emit_rules(rules)
        for number, rules in tables
    ]
    return b"".join((*parts, END))


class UpdateReader:
    """Reads a client's update, however its bytes arrive.

    Feed it; `tables` is None until the update is whole. WireError ends the
    conversation. It never holds more than one table and a piece.
    """

    def __init__(self, known: frozenset[int]) -> None:
        self._known = known
        self._data = bytearray()
        self._read: list[tuple[int, tuple[RawRule, ...]]] = []
        self._rules_left = 0
        self._number = 0
        self._rules: list[RawRule] = []
        self.tables: tuple[tuple[int, tuple[RawRule, ...]], ...] | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes; what comes behind the end is ignored."""
        if self.tables is not None:
            return
        self._data += data
        while self._step():
            pass

    def _step(self) -> bool:
        """Read one item if it is there."""
        if self.tables is not None:
            return False
        if self._rules_left:
            return self._read_rule()
        data = self._data
        if not data:
            return False
        if data[0] == 0:
            self.tables = tuple(self._read)
            return True
        if data[0] not in self._known:
            raise WireError("Received rules for non-existent table")
        if len(data) < _UPDATE.size:
            return False
        self._number, count = _UPDATE.unpack_from(data)
        if count > MAX_RULES:
            raise WireError(f"Received {count} rules (maximum {MAX_RULES})")
        if len(self._read) == MAX_TABLES_TOLD:
            raise WireError("Received too many tables")
        del data[: _UPDATE.size]
        self._rules_left = count
        if not count:
            self._read.append((self._number, ()))
        return True

    def _read_rule(self) -> bool:
        if len(self._data) < RULE_SIZE:
            return False
        self._rules.append(RawRule.parse(bytes(self._data[:RULE_SIZE])))
        del self._data[:RULE_SIZE]
        self._rules_left -= 1
        if not self._rules_left:
            self._read.append((self._number, tuple(self._rules)))
            self._rules = []
        return True


class GreetingReader:
    """Reads what a daemon says, as pesto does; `tables` is None until all is there."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._greeted = False
        self._read: list[RawTable] = []
        self.tables: tuple[RawTable, ...] | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes; WireError with pesto's words when they are not its protocol."""
        self._data += data
        if not self._greeted:
            if len(self._data) < _HELLO.size:
                return
            self._greet()
        while self._step():
            pass

    def _greet(self) -> None:
        magic, version, name_size, ifname_size = _HELLO.unpack_from(self._data)
        if magic != MAGIC:
            raise WireError("Bad magic number from server")
        if not version:
            raise WireError("Unsupported experimental server protocol")
        if version != VERSION:
            relation = ">" if version > VERSION else "<"
            raise WireError(
                f"Unknown server protocol version {version} {relation} {VERSION}"
            )
        if name_size != NAME_SIZE:
            raise WireError(
                f"Server has unexpected pif name size ({name_size} not {NAME_SIZE})"
            )
        if ifname_size != IFNAME_SIZE:
            raise WireError(
                f"Server has unexpected IFNAMSIZ ({ifname_size} not {IFNAME_SIZE})"
            )
        del self._data[: _HELLO.size]
        self._greeted = True

    def _step(self) -> bool:
        data = self._data
        if not data or self.tables is not None:
            return False
        if data[0] == 0:
            self.tables = tuple(self._read)
            return True
        if len(data) < _TABLE.size:
            return False
        number, raw, able, count = _TABLE.unpack_from(data)
        if count > MAX_RULES:
            raise WireError("Too many forwarding rules")
        if len(data) < _TABLE.size + count * RULE_SIZE:
            return False
        name = raw.partition(b"\0")[0].decode(errors="replace")
        if any(table.number == number for table in self._read):
            raise WireError("Received duplicate interface identifier")
        if any(table.name == name for table in self._read):
            raise WireError("Received duplicate interface name")
        if len(self._read) == MAX_TABLES:
            raise WireError(
                f"passt has more pifs than pesto can manage (max {MAX_TABLES})"
            )
        rules = tuple(
            RawRule.parse(bytes(data[at : at + RULE_SIZE]))
            for at in range(_TABLE.size, _TABLE.size + count * RULE_SIZE, RULE_SIZE)
        )
        del data[: _TABLE.size + count * RULE_SIZE]
        self._read.append(RawTable(number, name, able, rules))
        return True
