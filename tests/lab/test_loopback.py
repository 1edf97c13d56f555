# SPDX-License-Identifier: GPL-2.0-or-later
"""A loopback without others: ports are free there, and all that is sent arrives."""

import os
import socket

import pytest

from tests.lab.loopback import lonely_network, wait_delivered

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_others_have_is_free_there(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = lonely_network()
    assert made is not None
    with socket.create_server((host, 0), family=family) as held:
        end = held.getsockname()[:2]
        with (
            made.entered(),
            socket.create_server(end, family=family) as server,
            socket.create_connection(end) as client,
            server.accept()[0] as conn,
        ):
            assert conn.getpeername() == client.getsockname()
        with pytest.raises(OSError, match="in use"):
            socket.create_server(end, family=family)
    os.close(int(made.name))


def test_what_was_sent_is_there_once_it_is_waited_for() -> None:
    processors = os.sched_getaffinity(0)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        sender.connect(receiver.getsockname())
        for processor in processors:
            os.sched_setaffinity(0, {processor})
            sender.send(b"%d" % processor)
        os.sched_setaffinity(0, processors)
        wait_delivered()
        got = {int(receiver.recv(9)) for _ in processors}
    assert got == processors == os.sched_getaffinity(0)
