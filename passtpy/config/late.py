# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that are read once all the others are known, in the order given.

First -t, -u and -D, then -T and -U, as pasta reads them: which of several mistakes is
told depends on it. All of it happens before anything is touched.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from passtpy.addr import Address
from passtpy.config import values
from passtpy.config.ports import PortContext, PortMode, PortTable, Span
from passtpy.errors import ConfigError

MAX_RESOLVERS = 3  # per family; what a C library asks
PORT_OPTIONS = {"tcp-ports": "-t", "udp-ports": "-u", "tcp-ns": "-T", "udp-ns": "-U"}
PHASES = (("tcp-ports", "udp-ports", "dns"), ("tcp-ns", "udp-ns"))
_ADDRESSED = ("tcp-ports", "udp-ports")
_DNS_FIELDS = ("dns_forward4", "dns_forward6", "dns_host4", "dns_host6")


def read_late(
    words: Sequence[tuple[str, str]],
    fields: Mapping[str, Any],
    ephemeral: Span,
    mode: str = "pasta",
) -> dict[str, Any]:
    """Return the fields that these options say; `fields` are those known by now."""
    reader = _Reader(fields, ephemeral, mode)
    for phase in PHASES:
        for option, text in words:
            if option in phase:
                reader.read(option, text)
    return reader.result()


class _Reader:
    def __init__(self, fields: Mapping[str, Any], ephemeral: Span, mode: str) -> None:
        self._fields = fields
        self._default = PortMode.AUTO if mode == "pasta" else PortMode.NONE
        self._dns: list[Address] | None = None
        self._forget_dns = False
        self._tables = {
            option: PortTable(
                PortContext(
                    option=name,
                    prog_mode=mode,
                    ipv4=fields.get("ipv4", True),
                    ipv6=fields.get("ipv6", True),
                    takes_address=option in _ADDRESSED,
                    ephemeral=ephemeral,
                )
            )
            for option, name in PORT_OPTIONS.items()
        }

    def read(self, option: str, text: str) -> None:
        if option == "dns":
            self._read_dns(text)
            return
        table = self._tables[option]
        table.add(text)
        if table.mode is not PortMode.NONE and not self._enabled(option):
            proto = _proto(option)
            raise ConfigError(
                f"{proto} port forwarding requested but {proto} is disabled"
            )

    def _read_dns(self, text: str) -> None:
        """Read one -D; `none` takes back what came before, and the forwarding."""
        dns = self._dns = self._dns or []
        if text == values.NONE:
            dns.clear()
            self._forget_dns = True
            return
        addr = values.read_resolver(text)
        known = sum(other.version == addr.version for other in dns)
        if known < MAX_RESOLVERS and addr not in dns:
            dns.append(addr)

    def _enabled(self, option: str) -> bool:
        return bool(self._fields.get(_proto(option).lower(), True))

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for option, table in self._tables.items():
            if table.mode is None and self._enabled(option):
                table.add(self._default)
            key = option.replace("-", "_")
            found[key] = tuple(table.rules)
            found[f"{key}_auto"] = table.mode is PortMode.AUTO
        if self._dns is not None:
            found.update(dns=tuple(self._dns), dns_enabled=bool(self._dns))
        if self._forget_dns:
            found.update(dict.fromkeys(_DNS_FIELDS))
        return found


def _proto(option: str) -> str:
    return option.partition("-")[0].upper()
