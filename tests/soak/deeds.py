# SPDX-License-Identifier: GPL-2.0-or-later
"""Who comes and goes: connections, datagrams, clients of the control socket, machines.

Each deed is a function that does one thing once; a thread does it again and again. What
the world refuses (a port in TIME_WAIT, a machine in the way of another) is counted.
"""

import itertools
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing, suppress

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether

from passtpy.client.connect import Client
from tests.lab import HOST4, REMOTE4, Namespace
from tests.lab.vhost_frontend import VNET
from tests.netns.machine import GUEST_MAC, OUR_MAC, Channel, Daemon, arp, dhcp
from tests.soak.echo import TCP_PORT, UDP_PORT

CROWD_PORTS = range(30000, 31000)
CROWD = f"udp and dst port {CROWD_PORTS[0]}-{CROWD_PORTS[-1]}"
ADDED = range(20000, 21000)
PATIENCE_S = 5.0
_BYTES = bytes(range(256)) * 8
_FLOWS = 5  # that a machine begins
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: an end without a good-bye
_MANY = 50  # records after which a client has enough

Deed = Callable[[], None]


def talk_tcp(where: Namespace, address: str, *, rudely: bool = False) -> Deed:
    """A connection that says something, hears it again, and ends."""

    def once() -> None:
        with where.new_socket() as sock:
            sock.settimeout(PATIENCE_S)
            if rudely:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.connect((address, TCP_PORT))
            sock.sendall(_BYTES)
            left = len(_BYTES)
            while left:
                left -= len(sock.recv(left)) or left

    return once


def talk_udp(where: Namespace, address: str) -> Deed:
    """A question and its answer, from a new port."""

    def once() -> None:
        with where.new_socket(kind=socket.SOCK_DGRAM) as sock:
            sock.settimeout(1)
            sock.sendto(b"question", (address, UDP_PORT))
            sock.recv(99)

    return once


def crowd(where: Namespace, address: str, client: Client) -> Deed:
    """A thousand flows in a moment, which are ended by hand."""

    def once() -> None:
        with where.new_socket(kind=socket.SOCK_DGRAM) as sock:
            for port in CROWD_PORTS:
                with suppress(ConnectionError):  # nobody listens there
                    sock.sendto(b"hello", (address, port))
        _disperse(client)

    return once


def _disperse(client: Client) -> None:
    for _ in client.lines("DELETE", "/v1/flows", {"filter": CROWD}):
        pass


def ping(where: Namespace, address: str) -> Deed:
    """An echo request with a new identifier, and its reply."""
    idents = itertools.cycle(range(1, 65536))

    def once() -> None:
        with where.entered():
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with sock:
            sock.settimeout(1)
            request = ICMP(type="echo-request", id=next(idents), seq=1) / b"ping"
            sock.sendto(bytes(request), (address, 0))
            sock.recv(999)

    return once


# Clients of a control socket


def change_ports(client: Client) -> Deed:
    """Forwards are added, listed and removed."""
    ports = itertools.cycle(ADDED)

    def once() -> None:
        specs = [f"tcp:{next(ports)}:80", f"udp:{next(ports)}:80"]
        client.ask("POST", "/v1/forwards", body={"specs": specs})
        remove_added(client)

    return once


def remove_added(client: Client) -> None:
    """Remove the forwards that were added, also those whose removal was refused."""
    found = client.ask("GET", "/v1/forwards")["forwards"]
    ids = [each["id"] for each in found if each["first"] in ADDED]
    if ids:
        client.ask("DELETE", "/v1/forwards", body={"ids": ids})


def ask(client: Client) -> Deed:
    """One that asks this and that, and has enough of a long answer."""

    def once() -> None:
        client.ask("GET", "/v1/stats")
        client.text("/metrics")
        for number, _ in enumerate(client.lines("GET", "/v1/flows")):
            if number == _MANY:
                break

    return once


def say_half(client: Client, words: bytes) -> Deed:
    """One that says this, and will say no more; it hears what there is, and leaves."""

    def once() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(client.path)
            sock.sendall(words)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

    return once


def say_nothing(client: Client) -> Deed:
    """One that is silent for a while, and one that reads nothing of what it asked."""

    def once() -> None:
        silent, deaf = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        with silent, deaf:
            silent.connect(client.path)
            deaf.connect(client.path)
            deaf.sendall(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
            time.sleep(0.05)

    return once


def capture(client: Client) -> Deed:
    """A capture that has enough, and one whose client leaves."""

    def once() -> None:
        query = {"filter": "tcp", "packets": _MANY, "seconds": 1}
        for _ in client.stream("POST", "/v1/capture", query).chunks():
            pass
        stream = client.stream("POST", "/v1/capture", {"filter": "udp"})
        next(stream.chunks(), None)

    return once


# Machines


def _wait_tcp(channel: Channel) -> None:
    """Wait for a TCP segment; others are thrown away."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    deadline = time.monotonic() + PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1000)
        if not channel.receive():
            raise ConnectionResetError("another machine has the socket")
        frames = [Ether(frame[channel.header :]) for frame in channel.take()]
        if any(frame.haslayer(TCP) for frame in frames):
            return
    raise TimeoutError("no answer came")


def be_a_crowd(daemon: Daemon, client: Client) -> None:
    """A machine that begins a thousand flows in a moment, which are ended by hand."""
    head = Ether(src=GUEST_MAC, dst=OUR_MAC) / IP(src=HOST4, dst=REMOTE4)
    frame = bytearray(bytes(head / UDP(sport=1, dport=0, chksum=0) / b"hello"))
    to = len(head) + 2
    with closing(daemon.channel()) as channel:
        before = bytes(VNET.size) if channel.header else b""
        for port in CROWD_PORTS:
            frame[to : to + 2] = port.to_bytes(2)
            channel.send(before + bytes(frame))
        _disperse(client)


def be_a_machine(daemon: Daemon, client: Client) -> Deed:
    """A machine that comes, begins some flows, and goes; now and then amid one.

    Every tenth one is a crowd.
    """
    ports = itertools.cycle(range(1024, 60000))
    head = Ether(src=GUEST_MAC, dst=OUR_MAC) / IP(src=HOST4, dst=REMOTE4)
    times = itertools.count()

    def once() -> None:
        nth = next(times)
        if not nth % 10:
            be_a_crowd(daemon, client)
            return
        hasty = nth % 4 == 3
        with closing(daemon.channel()) as channel:
            before = bytes(VNET.size) if channel.header else b""
            for _ in range(_FLOWS):
                mine = {"sport": next(ports), "dport": TCP_PORT}
                datagram = head / UDP(sport=next(ports), dport=UDP_PORT) / b"question"
                syn = head / TCP(**mine, flags="S", seq=0)
                frames = (arp(), dhcp("discover"), datagram, syn)
                channel.send(*(before + bytes(frame) for frame in frames))
                if hasty:
                    return
                _wait_tcp(channel)
                channel.send(before + bytes(head / TCP(**mine, flags="R", seq=1)))

    return once
