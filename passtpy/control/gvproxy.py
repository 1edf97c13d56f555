# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves gvproxy's HTTP endpoints on its services socket: ports, leases, statistics.

An exposed port is known by its local address, not by an id, or by the path of a UNIX
socket. Errors are plain text.
"""

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address

from passtpy.addr import Address, Mac, show_mac
from passtpy.config.portrule import MAX_PORT, PortRule, PortTable, Side
from passtpy.config.ports import read_address
from passtpy.config.unixend import path_fault
from passtpy.control.forwards import Forwards, Listed, with_rules, without_rules
from passtpy.control.http import dump
from passtpy.control.verb import (
    Arguments,
    Code,
    ControlError,
    Kind,
    Later,
    Param,
    Reply,
    Text,
    Verb,
)
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP
from passtpy.record import record

_PROTOS = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP}
_NAMES = {number: name for name, number in _PROTOS.items()}
_UNIX = "unix"
_PIPE = "npipe"
_TCP_URL = "tcp://"
JSON_TYPE = "application/json"

Tables = tuple[PortTable, ...]


@record
class Services:
    """What the endpoints ask."""

    forwards: Forwards
    guest: Callable[[], Address | None]  # where a remote of the guest's own leads
    leases: Callable[[], Mapping[Address, Mac]]
    statistics: Callable[[], Mapping[str, int]]


def _json(value: object) -> Text:
    return Text(dump(value) + b"\n", JSON_TYPE)


def _fail(text: str, code: Code = Code.INTERNAL) -> ControlError:
    return ControlError(code, text)


def _split(text: str, what: str) -> tuple[Address | None, int]:
    """Read `ADDR:PORT`, `[ADDR]:PORT` or `:PORT`; None: any address."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise _fail(f"{what}: no port in {text!r}")
    if not 0 < int(port[:6]) <= MAX_PORT:
        raise _fail(f"{what}: no port in {text!r}")
    if not host:
        return None, int(port)
    addr = read_address(host)
    if addr is None:
        raise _fail(f"{what}: {host!r} is no address")
    return addr, int(port)


def _proto(args: Arguments) -> int:
    name = args.get("protocol") or "tcp"
    if name == _PIPE:
        raise _fail("npipe: Windows has named pipes, use unix")
    proto = _PROTOS.get(name)
    if proto is None:
        raise _fail(f"unsupported protocol {name}")
    return proto


def _is_unix(args: Arguments) -> bool:
    return args.get("protocol") == _UNIX


def _local(args: Arguments) -> tuple[Address | None, int]:
    return _split(args["local"], "local")


def _remote(args: Arguments, services: Services) -> tuple[Address | None, int]:
    target, port = _split(args["remote"].removeprefix(_TCP_URL), "remote")
    return None if target == services.guest() else target, port


def _place(addr: Address | None, target: Address | None) -> Address | None:
    """Return where to listen: a port that leads to one family is of that family."""
    if addr is not None or target is None:
        return addr
    return type(target)(0)


def _unix_rule(services: Services, args: Arguments) -> PortRule:
    """Return the rule of a UNIX socket that leads to a port of the guest."""
    path, remote = args["local"], args["remote"]
    fault = path_fault(path)
    if fault is not None:
        raise _fail(f"local: {path!r}: {fault}")
    if not remote.startswith(_TCP_URL):
        raise _fail(f"remote: {remote!r} is not {_TCP_URL}ADDR:PORT")
    target, port = _remote(args, services)
    if target is not None:
        raise _fail("remote: a UNIX socket leads to the guest itself")
    return PortRule(IPPROTO_TCP, None, None, port, port, path=path)


def _expose_unix(services: Services, args: Arguments) -> Reply:
    rule = _unix_rule(services, args)
    seen = services.forwards.tables()
    tables, refused = with_rules(seen, [(Side.HOST, rule)])
    if refused:
        known = _exposed_at(services, rule.path)
        raise _fail("proxy already running" if known else refused[0][1])
    return _apply(services, seen, tables)


def expose(services: Services, args: Arguments) -> Reply:
    """Forward a port, or a UNIX socket."""
    if _is_unix(args):
        return _expose_unix(services, args)
    proto = _proto(args)
    addr, port = _local(args)
    target, inner = _remote(args, services)
    where = _place(addr, target)
    rule = PortRule(proto, where, None, port, port, inner - port, target)
    seen = services.forwards.tables()
    tables, refused = with_rules(seen, [(Side.HOST, rule)])
    if refused:
        raise _fail(_reason(services, proto, addr, port) or refused[0][1])
    return _apply(services, seen, tables)


def _reason(
    services: Services, proto: int, addr: Address | None, port: int
) -> str | None:
    if _exposed(services, proto, addr, port):
        return "proxy already running"
    return None


def _exposed(
    services: Services, proto: int, addr: Address | None, port: int
) -> list[Listed]:
    any_ = (None, IPv4Address(0))
    return [
        each
        for each in services.forwards.listed()
        if each.side is Side.HOST
        and each.rule.path is None
        and each.rule.proto == proto
        and each.rule.first == each.rule.last == port
        and (each.rule.addr == addr or (each.rule.addr in any_ and addr in any_))
    ]


def _exposed_at(services: Services, path: str | None) -> list[Listed]:
    return [it for it in services.forwards.listed() if path and it.rule.path == path]


def unexpose(services: Services, args: Arguments) -> Reply:
    """Stop forwarding a port, or a UNIX socket."""
    if _is_unix(args):
        found = _exposed_at(services, args["local"])
    else:
        found = _exposed(services, _proto(args), *_local(args))
    if not found:
        raise _fail("proxy not found")
    gone = [(each.side, each.rule) for each in found]
    seen = services.forwards.tables()
    return _apply(services, seen, without_rules(seen, gone))


def _apply(services: Services, seen: Tables, tables: Tables) -> Later:
    later = Later()

    def applied(reasons: Sequence[str]) -> None:
        if reasons:
            later.settle(_fail("; ".join(reasons)))
        else:
            later.settle(Text(b"", "text/plain"))

    services.forwards.replace(seen, tables, applied)
    return later


def _end(addr: Address | None, port: int) -> str:
    if addr is None:
        return f":{port}"
    return f"[{addr}]:{port}" if addr.version == 6 else f"{addr}:{port}"


def exposed(services: Services, _: Arguments) -> Reply:
    """List forwarded ports."""
    found = []
    for each in services.forwards.listed():
        rule = each.rule
        if each.side is not Side.HOST or rule.scan:
            continue
        target = rule.target or services.guest()
        if rule.path is not None:
            remote = _TCP_URL + _end(target, rule.first)
            found.append({"local": rule.path, "remote": remote, "protocol": _UNIX})
            continue
        found += [
            {
                "local": _end(rule.addr, port),
                "remote": _end(target, port + rule.delta),
                "protocol": _NAMES[rule.proto],
            }
            for port in range(rule.first, rule.last + 1)
        ]
    return _json(found)


def zones(services: Services, _: Arguments) -> Reply:
    """List zones of names: there are none, names are the host's resolver's."""
    del services
    return _json([])


def leases(services: Services, _: Arguments) -> Reply:
    """List which address which machine has."""
    return _json({str(a): show_mac(mac) for a, mac in services.leases().items()})


def stats(services: Services, _: Arguments) -> Reply:
    """Count."""
    counters = services.statistics()
    return _json(
        {
            "BytesSent": counters.get("tap_tx_bytes", 0),
            "BytesReceived": counters.get("tap_rx_bytes", 0),
            **counters,
        }
    )


def _post(
    name: str, path: str, run: Callable[[Services, Arguments], Reply], *params: str
) -> Verb[Services]:
    kinds = tuple(Param(p, Kind.TEXT, p, required=p != "protocol") for p in params)
    return Verb(name, "POST", path, name, "", run, kinds, lenient=True)


def _get(
    name: str, path: str, run: Callable[[Services, Arguments], Reply]
) -> Verb[Services]:
    return Verb(name, "GET", path, name, "", run)


GVPROXY_VERBS: tuple[Verb[Services], ...] = (
    _post(
        "expose", "/services/forwarder/expose", expose, "local", "remote", "protocol"
    ),
    _post("unexpose", "/services/forwarder/unexpose", unexpose, "local", "protocol"),
    _get("exposed", "/services/forwarder/all", exposed),
    _get("zones", "/services/dns/all", zones),
    _get("leases", "/services/dhcp/leases", leases),
    _get("leases-too", "/leases", leases),
    _get("stats", "/stats", stats),
)


def as_text(status: int, error: ControlError) -> tuple[int, Reply]:
    """Return an error as gvproxy says it."""
    return 400 if status == 405 else status, Text(
        f"{error.message}\n".encode(errors="surrogateescape"), "text/plain"
    )
