# SPDX-License-Identifier: GPL-2.0-or-later
"""The port options' grammar, and the tables that take its rules."""

from typing import Final

from passtpy.config.portrule import Able, PortTable, RuleError, Side
from passtpy.config.ports import PortContext, read_ports
from passtpy.config.rawrule import from_raw, to_raw
from passtpy.errors import ConfigError
from passtpy.wire.pesto import RawRule

_PROTOS: Final = {"-t": 6, "-u": 17, "-T": 6, "-U": 17}
_MAX_PORT: Final = 65535


def play(data: bytes) -> None:
    """Read a specification for each of the options, as arguments and JSON have it."""
    for errors in ("surrogateescape", "surrogatepass"):
        try:
            text = data.decode(errors=errors)
        except UnicodeDecodeError:
            continue
        _read(text)


def _read(text: str) -> None:
    for option, proto in _PROTOS.items():
        context = PortContext(option=option, proto=proto, ephemeral=(32768, 60999))
        table = PortTable(Side.HOST, Able(63))
        try:
            rules = read_ports(text, context)
        except ConfigError as error:
            str(error)
            continue
        for rule in rules:
            assert 0 <= rule.first <= rule.last <= _MAX_PORT
            assert rule.first + rule.delta >= 0
            assert rule.last + rule.delta <= _MAX_PORT
            str(rule)
            raw = to_raw(rule)
            assert RawRule.parse(raw.emit()) == raw
            try:
                table = table.add(rule)
            except RuleError as error:
                str(error)
                continue
            # what a table has, its client can read
            assert from_raw(raw) == rule
