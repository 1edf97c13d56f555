# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows that wait for a SOCKS5 proxy: what is asked for, and what becomes of them."""

import asyncio
import os
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, cast

import pytest

from passtpy.addr import UNSPECIFIED, Address, inany
from passtpy.egress.egress import Ruling
from passtpy.egress.model import Effect, Scheme, Via
from passtpy.errors import WireError
from passtpy.flow import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Action,
    FlowMiss,
    Pif,
    Relayed,
    Verdict,
)
from passtpy.net.host.relays import relay_socket
from passtpy.net.kernel.leaving import Leaving
from passtpy.policy.decide import Waiting
from passtpy.proxying import Proxying
from passtpy.wire.proxy import wrap_datagram
from tests.unit.served import Serve, one_client

HERE = IPv4Address("127.0.0.1")
FAR = IPv4Address("203.0.113.1")
TARGET = IPv4Address("198.51.100.1")
GREETING, TAKEN = b"\5\1\0", b"\5\0"
ASSOCIATE = b"\5\3\0\1" + bytes(6)


def said(code: int, bound: Address, port: int) -> bytes:
    kind = b"\1" if bound.version == 4 else b"\4"
    return bytes([5, code, 0]) + kind + bound.packed + port.to_bytes(2, "big")


class Engine:
    """What is done with flows; of the policy of `generation`."""

    def __init__(self, view: Any) -> None:
        self.view = view
        self.generation = 1
        self.done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.decided: list[object] = []

    def is_current(self, verdict: Verdict) -> bool:
        return verdict.generation == self.generation

    def decide(self, miss: object) -> None:
        self.decided.append(miss)

    def relay(self, miss: object, verdict: Verdict, relayed: Relayed) -> None:
        del miss, verdict
        self.done.set_result(relayed)

    def carry_out(self, miss: object, verdict: Verdict, fd: int) -> None:
        del miss, verdict
        self.done.set_result(fd)

    def go_on(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Names:
    """A policy that has a proxy told any name."""

    def name_for(self, ruling: Ruling, names: tuple[str, ...]) -> str | None:
        del ruling
        return names[0] if names else None


class View:
    """Of its configuration only what is needed."""

    class config:  # noqa: N801
        outbound_if4 = outbound_if6 = None


class Log:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def warning(self, name: str, **fields: str) -> None:
        assert name == "proxy.failed"
        self.reasons.append(fields["reason"])


def flow_by(
    serve: Serve,
    proto: int = IPPROTO_UDP,
    names: tuple[str, ...] = (),
    current: int = 1,
) -> tuple[object, Engine, list[str]]:
    """What becomes of a flow by a proxy that does this with its client."""
    with one_client(serve) as port:

        async def until_done() -> tuple[object, Engine, list[str]]:
            engine, log, refused = Engine(View()), Log(), []
            engine.generation = current
            proxying = Proxying(
                asyncio.get_running_loop(),
                cast(Any, engine),
                cast(Any, Names()),
                lambda miss, _: refused.append(miss),
                cast(Any, log),
            )
            to = inany(TARGET)
            miss = FlowMiss(proto, Pif.TAP, inany(FAR), 4000, to, 53)
            verdict = Verdict(Action.FORWARD, Pif.HOST, to, 53, UNSPECIFIED, 0, 1, 1)
            ruling = Ruling(Effect.ALLOW, 1, 0, names, None)
            via = Via(Scheme.SOCKS5, HERE, port)
            waiting = Waiting(verdict, ruling)
            assert proxying.take(cast(Any, miss), waiting, via)
            found = await asyncio.wait_for(engine.done, 30)
            assert bool(refused) == bool(log.reasons)
            return found, engine, log.reasons

        return asyncio.run(until_done())


def grants(code: int, bound: Address, port: int) -> Serve:
    def serve(sock: socket.socket) -> None:
        assert sock.recv(3) == GREETING
        sock.sendall(TAKEN)
        assert sock.recv(100) == ASSOCIATE
        sock.sendall(said(code, bound, port))

    return serve


@pytest.mark.parametrize("names", [(), ("a.example",)])
@pytest.mark.parametrize("bound", [HERE, IPv4Address(0), IPv6Address(0)])
def test_datagrams_get_the_relay_that_the_proxy_names(
    names: tuple[str, ...], bound: Address
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", 0))
        port = relay.getsockname()[1]
        relayed, _, _ = flow_by(grants(0, bound, port), names=names)
        assert isinstance(relayed, Relayed)
        os.close(relayed.control)
        with socket.socket(fileno=relayed.fd) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)
    host = names[0] if names else TARGET
    assert relayed.head == wrap_datagram(host, 53, b"")


def test_a_proxy_that_has_no_relays_is_told() -> None:
    found, engine, reasons = flow_by(grants(7, HERE, 0))
    assert (found, engine.decided, reasons) == (None, [], ["command not supported"])


def test_a_relay_without_a_port_is_none() -> None:
    assert flow_by(grants(0, HERE, 0))[2] == ["socks: no address of a relay"]


@pytest.mark.parametrize("proto", [IPPROTO_UDP, IPPROTO_TCP])
def test_another_policy_decides_anew(proto: int) -> None:
    def serve(sock: socket.socket) -> None:
        assert sock.recv(3) == GREETING
        sock.sendall(TAKEN)
        assert sock.recv(100)
        sock.sendall(said(0, HERE, 9))
        assert sock.recv(1) == b""  # it is let go

    found, engine, reasons = flow_by(serve, proto, current=2)
    assert (found, len(engine.decided), reasons) == (None, 1, [])


@pytest.mark.parametrize("where", ["127.0.0.1", "::ffff:127.0.0.1", "::1", "224.0.0.1"])
def test_no_proxy_leads_to_our_loopback(where: str) -> None:
    with pytest.raises(WireError, match="a relay at"):
        relay_socket(FAR, (ip_address(where), 53), Leaving())


def test_a_name_is_no_place_for_a_relay() -> None:
    with pytest.raises(WireError, match="no address"):
        relay_socket(HERE, ("relay.example", 53), Leaving())
