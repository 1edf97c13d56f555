# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection that tries one address after the other."""

import asyncio
import errno
import socket
from ipaddress import IPv4Address, IPv6Address

from passtpy.addr import inany
from passtpy.net.kernel.connecting import Connecting
from passtpy.net.kernel.leaving import Leaving

LOCAL4, LOCAL6 = inany(IPv4Address("127.0.0.1")), inany(IPv6Address("::1"))


def connect(targets: list[tuple[bytes, int]], leaving: Leaving) -> socket.socket | int:
    """Run a loop until it is connected, or not."""

    async def until_done() -> socket.socket | int:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[socket.socket | int] = loop.create_future()
        Connecting(loop, targets, leaving, done.set_result)
        return await done

    return asyncio.run(until_done())


def test_the_first_that_answers_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody, port = closed.getsockname()[1], server.getsockname()[1]
        got = connect([(LOCAL4, nobody), (LOCAL4, port)], Leaving())
        assert isinstance(got, socket.socket)
        with got, server.accept()[0] as peer:
            assert got.getpeername() == ("127.0.0.1", port)
            assert peer.getpeername() == got.getsockname()


def test_nobody_answers() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()[1]
        assert connect([(LOCAL4, nobody)], Leaving()) == errno.ECONNREFUSED
    assert connect([], Leaving()) == errno.EHOSTUNREACH


def test_an_address_of_the_other_family_is_not_bound_to() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        got = connect([(LOCAL6, port)], Leaving((LOCAL4,)))
        assert isinstance(got, socket.socket)
        got.close()


def test_who_gives_up_is_not_called_back() -> None:
    async def give_up() -> list[object]:
        loop, called = asyncio.get_running_loop(), list[object]()
        connecting = Connecting(loop, [(LOCAL4, 1)], Leaving(), called.append)
        connecting.close()
        await asyncio.sleep(0.01)
        return called

    assert asyncio.run(give_up()) == []
