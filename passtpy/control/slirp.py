# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves the API socket of slirp4netns: one JSON request for each connection.

The client sends an object and ends its half of the connection; the answer is an object
too, and then we hang up. Ids and error texts are those that its callers know.
"""

import json
from collections.abc import Callable, Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from passtpy.config.portrule import MAX_PORT, PortRule, Side
from passtpy.control.forwards import Forwards, id_of, with_rules, without_rules
from passtpy.control.once import OneRequest
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP, PROTO_NAMES
from passtpy.record import record

MAX_REQUEST = 4095  # bytes

_PROTOS = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP}
_ANY = IPv4Address(0)


class _BadRequest(Exception):
    """The text behind "bad request: "."""


@record
class SlirpApi:
    """What all conversations share."""

    forwards: Forwards
    guest: Callable[[], IPv4Address]  # where ports lead unless the request says more


class SlirpConversation(OneRequest):
    """One request."""

    def __init__(self, api: SlirpApi) -> None:
        super().__init__()
        self._api = api
        self._data = bytearray()
        self._asked = False

    def begin(self) -> bytes:
        """Return what is said before anything is asked: nothing."""
        return b""

    def receive(self, data: bytes) -> bytes:
        """Take what the client sent (b"": it sends no more); return what to send."""
        if self._asked:
            return b""
        self._data += data
        try:
            if len(self._data) > MAX_REQUEST:
                raise _BadRequest("too large message")
            if not data:
                self._asked = True
                self._run(_read(bytes(self._data)))
        except _BadRequest as error:
            self._asked = True
            self._answer({"error": {"desc": f"bad request: {error}"}})
        return self.more()

    def _answer(self, body: dict[str, Any]) -> None:
        self._said = json.dumps(body).encode()
        self._waits = False
        self.over = True
        self.woken()

    def _run(self, request: dict[str, Any]) -> None:
        name = request.get("execute")
        if not isinstance(name, str):
            raise _BadRequest("no execute found")
        arguments = request.get("arguments")
        if not isinstance(arguments, dict):
            arguments = {}
        match name:
            case "add_hostfwd":
                self._add(arguments)
            case "list_hostfwd":
                entries = self._entries()
                self._answer({"return": {"entries": entries}, "entries": entries})
            case "remove_hostfwd":
                self._remove(arguments)
            case _:
                raise _BadRequest("unknown execute")

    def _entries(self) -> list[dict[str, Any]]:
        return [
            {
                "id": each.id,
                "proto": PROTO_NAMES[each.rule.proto],
                "host_addr": str(each.rule.addr or _ANY),
                "host_port": each.rule.first,
                "guest_addr": str(each.rule.target or self._api.guest()),
                "guest_port": each.rule.first + each.rule.delta,
            }
            for each in self._api.forwards.listed()
            if each.side is Side.HOST and not (each.rule.scan or each.rule.path)
        ]

    def _add(self, arguments: dict[str, Any]) -> None:
        forwards = self._api.forwards
        rule = self._rule(arguments)
        seen = forwards.tables()
        tables, refused = with_rules(seen, [(Side.HOST, rule)])
        failed = "add_hostfwd: slirp_add_hostfwd failed"
        if refused:
            raise _BadRequest(failed)

        def applied(reasons: Sequence[str]) -> None:
            if reasons:
                self._answer({"error": {"desc": f"bad request: {failed}"}})
            else:
                self._answer({"return": {"id": id_of(forwards, Side.HOST, rule)}})

        self._waits = True
        forwards.replace(seen, tables, applied)

    def _rule(self, arguments: dict[str, Any]) -> PortRule:
        what = "add_hostfwd: bad arguments"
        proto = _PROTOS.get(str(arguments.get("proto", "")))
        if proto is None:
            raise _BadRequest(f"{what}.proto")
        addr = _address(arguments, "host_addr", what) or _ANY
        port = _port(arguments, "host_port", what)
        target = _address(arguments, "guest_addr", what)
        inner = _port(arguments, "guest_port", what)
        if target in (_ANY, self._api.guest()):
            target = None
        return PortRule(proto, addr, None, port, port, inner - port, target)

    def _remove(self, arguments: dict[str, Any]) -> None:
        forwards, number = self._api.forwards, arguments.get("id")
        if isinstance(number, bool) or not isinstance(number, int):
            raise _BadRequest("remove_hostfwd: bad arguments.id")
        failed = "remove_hostfwd: slirp_remove_hostfwd failed"
        found = [e for e in forwards.listed() if e.id == number and e.side is Side.HOST]
        if not found:
            raise _BadRequest(failed)

        def applied(reasons: Sequence[str]) -> None:
            if reasons:
                self._answer({"error": {"desc": f"bad request: {failed}"}})
            else:
                self._answer({"return": {}})

        self._waits = True
        gone = [(each.side, each.rule) for each in found]
        seen = forwards.tables()
        forwards.replace(seen, without_rules(seen, gone), applied)


def _read(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise _BadRequest("cannot parse JSON") from None
    if not isinstance(value, dict):
        raise _BadRequest("no execute found")
    return value


def _address(arguments: dict[str, Any], name: str, what: str) -> IPv4Address | None:
    given = arguments.get(name)
    if given is None or given == "":  # podman 4 says so where it has no wish
        return None
    try:
        return IPv4Address(given if isinstance(given, str) else "")
    except AddressValueError:
        raise _BadRequest(f"{what}.{name}") from None


def _port(arguments: dict[str, Any], name: str, what: str) -> int:
    given = arguments.get(name)
    if isinstance(given, bool) or not isinstance(given, int):
        raise _BadRequest(f"{what}.{name}")
    if not 0 < given <= MAX_PORT:
        raise _BadRequest(f"{what}.{name}")
    return given
