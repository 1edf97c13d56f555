# SPDX-License-Identifier: GPL-2.0-or-later
"""A laboratory of network namespaces, for the namespace tests and the benchmark.

with Lab() as lab, lab.attach(TRANSLATORS["passtpy"]) as attached:
    with tcp_echo(lab.remote, REMOTE4) as server:
        with attached.guest.connect(REMOTE4, server.port) as sock:
            assert exchange(sock, b"hello") == b"hello"
"""

from tests.lab.namespace import LabError, Namespace, wait_until, why_unavailable
from tests.lab.process import Process
from tests.lab.topology import (
    GATEWAY4,
    GATEWAY6,
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    Attached,
    Lab,
)
from tests.lab.traffic import (
    Digest,
    TcpServer,
    UdpEcho,
    closing_all,
    exchange,
    in_parallel,
    receive_all,
    send_random,
    tcp_echo,
    tcp_pair,
    transfer,
    transfer_both_ways,
)
from tests.lab.translators import TRANSLATORS, Attachment, Passtpy, Translator

__all__ = [
    "GATEWAY4",
    "GATEWAY6",
    "HOST4",
    "HOST6",
    "REMOTE4",
    "REMOTE6",
    "TRANSLATORS",
    "Attached",
    "Attachment",
    "Digest",
    "Lab",
    "LabError",
    "Namespace",
    "Passtpy",
    "Process",
    "TcpServer",
    "Translator",
    "UdpEcho",
    "closing_all",
    "exchange",
    "in_parallel",
    "receive_all",
    "send_random",
    "tcp_echo",
    "tcp_pair",
    "transfer",
    "transfer_both_ways",
    "wait_until",
    "why_unavailable",
]
