# SPDX-License-Identifier: GPL-2.0-or-later
"""One line of a forwarding table: what it says, how it is written, when it is wrong.

A table belongs to the side on which its sockets listen; both protocols share it. The
same checks hold for a command line, for a client that changes a running daemon, and
for the daemon that takes such a change; the messages are pasta's.
"""

from collections.abc import Iterable
from enum import IntFlag, StrEnum
from ipaddress import IPv4Address

from passtpy.addr import Address
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP, PROTO_NAMES
from passtpy.record import record

MAX_PORT = 65535
MAX_RULES = 255  # of a table
MAX_SOCKETS = 327680  # of a table: every port of both protocols, with room
DEFAULT_MODE = 0o600  # of the file of a UNIX socket: its owner's alone
PROXIES = {"proxy=v1": 1, "proxy=v2": 2}  # versions of the PROXY protocol


class Side(StrEnum):
    """Where the sockets of a table listen."""

    HOST = "HOST"
    SPLICE = "SPLICE"


class Able(IntFlag):
    """What the daemon that owns a table can do (the numbers cross the wire)."""

    IPV4 = 1
    IPV6 = 2
    TCP = 4
    UDP = 8
    SCAN = 16
    IFNAME = 32


@record
class PortRule:
    """Listen on the ports `first` to `last`; deliver `delta` ports further.

    `addr` None: any address of both families, on one socket. `target` None: the
    guest's own address. `weak`: a port that cannot be had is worth a warning only.
    `scan`: open are only the ports on which the other side listens. `proxy`: version of
    the PROXY protocol by which a server is told who its client is; 0: it is not.

    `path`: listen at this UNIX socket of the host instead, whose file has that `mode`;
    `first` is the guest's port then. `to_path`: lead to this UNIX socket of the host.
    """

    proto: int
    addr: Address | None
    ifname: str | None
    first: int
    last: int
    delta: int = 0
    target: Address | None = None
    weak: bool = False
    scan: bool = False
    proxy: int = 0
    path: str | None = None
    mode: int = DEFAULT_MODE
    to_path: str | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether pesto's protocol has words for all of it."""
        return not (self.proxy or self.has_unix)

    @property
    def has_unix(self) -> bool:
        """Tell whether it begins or ends at a UNIX socket."""
        return self.path is not None or self.to_path is not None

    @property
    def ports(self) -> int:
        """Return how many ports the rule listens on."""
        return self.last - self.first + 1

    def __str__(self) -> str:
        """Return `TCP [ADDR]%IF:A-B  =>  TARGET:C-D ` and what is special about it."""
        text = f"{proto_name(self.proto)} {self._source()}  =>  {self._goal()} "
        text += "" if self.mode == DEFAULT_MODE else f" (mode {self.mode:03o})"
        text += " (best effort)" if self.weak else ""
        text += " (auto-scan)" if self.scan else ""
        return text + (f" (PROXY v{self.proxy})" if self.proxy else "")

    def _source(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        where = f"[{'*' if self.addr is None else self.addr}]"
        device = f"%{self.ifname}" if self.ifname else ""
        return f"{where}{device}:{_span(self.first, self.last)}"

    def _goal(self) -> str:
        if self.to_path is not None:
            return f"unix:{self.to_path}"
        target = "" if self.target is None else f"{self.target}:"
        return target + _span(self.first + self.delta, self.last + self.delta)


class RuleError(Exception):
    """A rule that no table takes; the text is one line, or two."""


def proto_name(proto: int) -> str:
    """Return `TCP`, or the number of a protocol without a name."""
    return PROTO_NAMES.get(proto, str(proto)).upper()


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}-{last}"


def check_ports(rule: PortRule) -> None:
    """Raise RuleError unless the ports of a rule are ports: the first of all checks."""
    if rule.first > rule.last:
        raise RuleError(f"Rule has invalid port range {rule.first}-{rule.last}")
    if not rule.first:
        raise RuleError("Forwarding rule attempts to map from port 0")
    if rule.first + rule.delta <= 0 or rule.last + rule.delta > MAX_PORT:
        raise RuleError("Forwarding rule attempts to map to port 0")


def _check_family(rule: PortRule, able: Able) -> None:
    if rule.path is not None:
        return  # of none
    for version, flag in ((4, Able.IPV4), (6, Able.IPV6)):
        if able & flag:
            continue
        if rule.addr is None:
            raise RuleError(f"Dual stack forward, but IPv{version} not enabled")
        if rule.addr.version == version:
            raise RuleError(f"IPv{version} forward, but IPv{version} not enabled")


def _check_protocol(rule: PortRule, able: Able) -> None:
    name = proto_name(rule.proto)
    flag = {IPPROTO_TCP: Able.TCP, IPPROTO_UDP: Able.UDP}.get(rule.proto)
    if flag is None:
        raise RuleError(
            f"Unsupported protocol 0x{rule.proto:x} ({name}) for forwarding rule"
        )
    if not able & flag:
        raise RuleError(f"Can't add {name} forwarding rule, {name} not enabled")


def _check_target(rule: PortRule) -> None:
    target = rule.target
    if target is None:
        return
    if target.is_multicast or target == IPv4Address("255.255.255.255"):
        raise RuleError(f"Multicast target address {target} for forwarding rule")
    if rule.addr is None:
        any_ = "0.0.0.0" if target.version == 4 else "[::]"
        raise RuleError(
            f"Dual stack forward to IPv{target.version} address {target} unsupported\n"
            f"Did you mean {any_}/... instead?"
        )
    if rule.addr.version != target.version:
        raise RuleError(
            f"Forward from IPv{rule.addr.version} ({rule.addr})"
            f" to IPv{target.version} ({target}) unsupported"
        )


def _check_proxy(rule: PortRule) -> None:
    if rule.proxy and rule.proto != IPPROTO_TCP:
        raise RuleError("The PROXY protocol is for TCP")


def _overlap(a: PortRule, b: PortRule) -> bool:
    """Tell whether two rules claim one port; where they lead does not count."""
    if a.path is not None or b.path is not None:
        return a.path == b.path
    if a.proto != b.proto or a.first > b.last or b.first > a.last:
        return False
    if a.ifname and b.ifname and a.ifname != b.ifname:
        return False  # sockets of different devices do not collide
    if a.addr is None or b.addr is None:
        return True
    if a.addr.version != b.addr.version:
        return False
    return a.addr == b.addr or a.addr.is_unspecified or b.addr.is_unspecified


def check_rule(rule: PortRule, able: Able, known: Iterable[PortRule]) -> None:
    """Raise RuleError unless a table that holds `known` may take `rule`."""
    check_ports(rule)
    _check_family(rule, able)
    _check_protocol(rule, able)
    _check_target(rule)
    _check_proxy(rule)
    rules = tuple(known)
    for other in rules:
        if _overlap(rule, other):
            raise RuleError(f"Forwarding configuration conflict: {rule} versus {other}")
    if len(rules) >= MAX_RULES:
        raise RuleError(f"Too many rules (maximum {MAX_RULES})")
    if sum(other.ports for other in rules) + rule.ports > MAX_SOCKETS:
        raise RuleError(
            f"Rules require too many listening sockets (maximum {MAX_SOCKETS})"
        )


@record
class PortTable:
    """The rules of one side, in the order in which they are tried."""

    side: Side
    able: Able
    rules: tuple[PortRule, ...] = ()

    def add(self, rule: PortRule) -> "PortTable":
        """Return the table with `rule` at its end; RuleError with a second line."""
        try:
            check_rule(rule, self.able, self.rules)
        except RuleError as error:
            raise RuleError(f"{error}\nUnable to add rule {rule}") from None
        return PortTable(self.side, self.able, (*self.rules, rule))

    def delete(self, rule: PortRule) -> "PortTable":
        """Return the table without `rule`, which must be there as it stands."""
        rest = list(self.rules)
        if rule in rest:
            rest.remove(rule)
            return PortTable(self.side, self.able, tuple(rest))
        clash = next((other for other in rest if _overlap(rule, other)), None)
        if clash is None:
            reason = f"Couldn't find forwarding rule to delete: {rule}"
        else:
            reason = (
                f"Specifier {rule} conflicts with rule {clash},"
                " but doesn't match it, can't delete"
            )
        raise RuleError(f"{reason}\nUnable to delete rule {rule}")

    def plain(self) -> "PortTable":
        """Return the table without the rules that pesto's protocol cannot tell."""
        rules = tuple(rule for rule in self.rules if rule.is_plain)
        return PortTable(self.side, self.able, rules)

    def cleared(self) -> "PortTable":
        """Return the table without rules."""
        return PortTable(self.side, self.able)
