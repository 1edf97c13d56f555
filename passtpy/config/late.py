# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that are read once all the others are known, in the order given.

They are the ports, whose meaning depends on families and protocols, and whose mistakes
are told last. All of it happens before anything is touched.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from passtpy.config.passed import PREFIX, Wanted, read_wanted
from passtpy.config.portrule import Able, PortTable, RuleError, Side
from passtpy.config.ports import NONE, PortContext, Span, read_ports
from passtpy.errors import ConfigError
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP
from passtpy.record import record


@record
class PortOption:
    """What one of the four port options is about."""

    name: str
    proto: int
    side: Side
    enabled: str  # the field that says whether the protocol is


PORT_OPTIONS = {
    "tcp-ports": PortOption("-t", IPPROTO_TCP, Side.HOST, "tcp"),
    "udp-ports": PortOption("-u", IPPROTO_UDP, Side.HOST, "udp"),
    "tcp-ns": PortOption("-T", IPPROTO_TCP, Side.SPLICE, "tcp"),
    "udp-ns": PortOption("-U", IPPROTO_UDP, Side.SPLICE, "udp"),
}


def read_late(
    words: Sequence[tuple[str, str]],
    fields: Mapping[str, Any],
    ephemeral: Span,
    mode: str = "pasta",
) -> dict[str, Any]:
    """Return the fields that these options say; `fields` are those known by now."""
    reader = _Reader(fields, ephemeral, mode)
    for option, text in words:
        reader.read(option, text)
    return reader.result()


class _Reader:
    def __init__(self, fields: Mapping[str, Any], ephemeral: Span, mode: str) -> None:
        self._fields = fields
        self._ephemeral = ephemeral
        self._scans = mode == "pasta"
        self._said: set[str] = set()
        self._wanted: list[Wanted] = []
        able = _able(fields, self._scans)
        self._tables = {side: PortTable(side, able) for side in Side}

    def read(self, option: str, text: str) -> None:
        if text == NONE:
            if self._has_rules(option):
                name = PORT_OPTIONS[option].name
                raise ConfigError(f"{name} none conflicts with previous options")
            self._said.add(option)
        elif text.startswith(PREFIX) and PORT_OPTIONS[option].side is Side.HOST:
            self._said.add(option)
            each = PORT_OPTIONS[option]
            self._wanted.append(read_wanted(each.name, each.proto, text))
        else:
            self._said.add(option)
            self._add_ports(option, text)

    def _has_rules(self, option: str) -> bool:
        each = PORT_OPTIONS[option]
        protos = [rule.proto for rule in self._tables[each.side].rules]
        if each.side is Side.HOST:
            protos += [wanted.proto for wanted in self._wanted]
        return each.proto in protos

    def _add_ports(self, option: str, text: str) -> None:
        each, get = PORT_OPTIONS[option], self._fields.get
        context = PortContext(
            option=each.name,
            proto=each.proto,
            side=each.side,
            ipv4=get("ipv4", True),
            ipv6=get("ipv6", True),
            scans=self._scans,
            ephemeral=self._ephemeral,
        )
        table = self._tables[each.side]
        for rule in read_ports(text, context):
            try:
                table = table.add(rule)
            except RuleError as error:
                raise ConfigError(str(error)) from None
        self._tables[each.side] = table

    def result(self) -> dict[str, Any]:
        if self._scans:
            for option, each in PORT_OPTIONS.items():
                if option not in self._said and self._fields.get(each.enabled, True):
                    self._add_ports(option, "auto")
        return {
            "host_ports": self._tables[Side.HOST].rules,
            "ns_ports": self._tables[Side.SPLICE].rules,
            "wanted_sockets": tuple(self._wanted),
        }


def _able(fields: Mapping[str, Any], scans: bool) -> Able:
    """Return what the tables of a daemon with these options can hold."""
    able = Able.IFNAME | (Able.SCAN if scans else Able(0))
    for name, flag in (
        ("ipv4", Able.IPV4),
        ("ipv6", Able.IPV6),
        ("tcp", Able.TCP),
        ("udp", Able.UDP),
    ):
        if fields.get(name, True):
            able |= flag
    return able
