# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP through the whole daemon and real kernels, as a user of the guest sees it."""

import errno
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import (
    GATEWAY4,
    GATEWAY6,
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    TRANSLATORS,
    Attached,
    Attachment,
    Lab,
    Namespace,
    closing_all,
    exchange,
    in_parallel,
    receive_all,
    send_random,
    tcp_echo,
    tcp_pair,
    transfer,
    transfer_both_ways,
    wait_until,
)
from tests.netns.load import Streams

FORWARDED, SERVED = 7080, 7777
MEGABYTES = 100_000_000
PASSTPY = TRANSLATORS["passtpy"]
BOTH = pytest.mark.parametrize("remote", [REMOTE4, REMOTE6], ids=["v4", "v6"])
UNREACHABLE4, PROHIBITED4, SILENT4 = "203.0.113.1", "203.0.113.65", "203.0.113.129"
UNREACHABLE6, PROHIBITED6 = "2001:db8:3::1", "2001:db8:4::1"
TCP_CONGESTION = 13
AVAILABLE = "net.ipv4.tcp_available_congestion_control"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The lab, with destinations that cannot be reached in several ways."""
    with Lab() as made:
        made.host.ip(
            "-batch",
            "-",
            batch=f"""\
route add unreachable 203.0.113.0/26
route add prohibit 203.0.113.64/26
route add 203.0.113.128/26 via {REMOTE4}
route add unreachable 2001:db8:3::/64
route add prohibit 2001:db8:4::/64
""",
        )
        yield made


@pytest.fixture(scope="module")
def attached(lab: Lab) -> Iterator[Attached]:
    """A guest, with one port forwarded to it."""
    with lab.attach(PASSTPY, Attachment(tcp_ports=(FORWARDED,))) as made:
        yield made
        made.check_alive()


@pytest.fixture
def guest(attached: Attached) -> Namespace:
    """The guest's namespace."""
    return attached.guest


def pair(
    lab: Lab, guest: Namespace, remote: str
) -> tuple[socket.socket, socket.socket]:
    """Guest's and remote's end of a connection that the guest opened."""
    return tcp_pair(guest, lab.remote, remote)


# Bytes


@BOTH
def test_upload_is_byte_exact(lab: Lab, guest: Namespace, remote: str) -> None:
    near, far = pair(lab, guest, remote)
    with near, far:
        transfer(near, far, MEGABYTES)


@BOTH
def test_download_is_byte_exact(lab: Lab, guest: Namespace, remote: str) -> None:
    near, far = pair(lab, guest, remote)
    with near, far:
        transfer(far, near, MEGABYTES)


@BOTH
def test_both_directions_at_once_are_byte_exact(
    lab: Lab, guest: Namespace, remote: str
) -> None:
    near, far = pair(lab, guest, remote)
    with near, far:
        transfer_both_ways(near, far, MEGABYTES // 2)


def test_both_families_at_once_are_byte_exact(lab: Lab, guest: Namespace) -> None:
    def both_ways(number: int) -> None:
        near, far = pair(lab, guest, (REMOTE4, REMOTE6)[number % 2])
        with near, far:
            transfer_both_ways(near, far, MEGABYTES // 8)

    in_parallel(4, both_ways)


@pytest.mark.parametrize("host", [HOST4, HOST6], ids=["v4", "v6"])
def test_forwarded_port_is_byte_exact(lab: Lab, guest: Namespace, host: str) -> None:
    any_address = "::" if ":" in host else "0.0.0.0"
    with guest.listen(any_address, FORWARDED) as listener:
        client = lab.remote.connect(host, FORWARDED)
        served, peer = listener.accept()
        served.settimeout(client.gettimeout())
        with client, served:
            assert peer[0] in (REMOTE4, GATEWAY4, REMOTE6, GATEWAY6)
            transfer_both_ways(client, served, MEGABYTES // 2)


@pytest.mark.parametrize("mtu", [1280, 1500, 9000])
def test_other_mtus_are_byte_exact(lab: Lab, mtu: int) -> None:
    with lab.attach(PASSTPY, Attachment(mtu=mtu)) as attached:
        for remote in (REMOTE4, REMOTE6):
            near, far = pair(lab, attached.guest, remote)
            with near, far:
                transfer_both_ways(near, far, MEGABYTES // 5)


def test_five_hundred_connections_at_once(lab: Lab, guest: Namespace) -> None:
    data = os.urandom(10_000)
    with tcp_echo(lab.remote, REMOTE4) as server:
        socks = in_parallel(500, lambda _: guest.connect(REMOTE4, server.port))
        with closing_all(socks):
            answers = in_parallel(500, lambda n: exchange(socks[n], data), threads=50)
    assert all(answer == data for answer in answers)


def test_five_hundred_forwarded_connections_at_once(lab: Lab, guest: Namespace) -> None:
    data = os.urandom(10_000)
    with tcp_echo(guest, "0.0.0.0", FORWARDED):
        socks = in_parallel(500, lambda _: lab.remote.connect(HOST4, FORWARDED))
        with closing_all(socks):
            answers = in_parallel(500, lambda n: exchange(socks[n], data), threads=50)
    assert all(answer == data for answer in answers)


def test_urgent_data_does_not_disturb_the_stream(lab: Lab, guest: Namespace) -> None:
    near, far = pair(lab, guest, REMOTE4)
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        far.sendall(b"abc")
        far.send(b"X", socket.MSG_OOB)
        far.sendall(b"def")
        far.shutdown(socket.SHUT_WR)
        got = b""
        while piece := near.recv(100):
            got += piece
        assert got == b"abcXdef"


# Peers that cannot be reached: the errno that a program in the guest sees


def is_quick(action: Callable[[], None]) -> bool:
    """Whether it is over at once; a busy machine may be slow, but not every time."""

    def once() -> bool:
        started = time.monotonic()
        action()
        return time.monotonic() - started < 0.5

    return any(once() for _ in range(20))


@BOTH
def test_refused(guest: Namespace, remote: str) -> None:
    def connect() -> None:
        with pytest.raises(ConnectionRefusedError):
            guest.connect(remote, 9)

    assert is_quick(connect)


@pytest.mark.parametrize(
    ("address", "code"),
    [
        (UNREACHABLE4, errno.EHOSTUNREACH),
        (PROHIBITED4, errno.EHOSTUNREACH),  # "filtered" is that on Linux
        (UNREACHABLE6, errno.EHOSTUNREACH),
        (PROHIBITED6, errno.EACCES),
    ],
)
def test_unreachable(guest: Namespace, address: str, code: int) -> None:
    def connect() -> None:
        with pytest.raises(OSError, match=r".") as caught:
            guest.connect(address, 80)
        assert caught.value.errno == code

    assert is_quick(connect)


def test_nobody_at_that_address(guest: Namespace) -> None:
    """The host's kernel asks for three seconds who has it (ARP)."""
    with pytest.raises(OSError, match=r".") as caught:
        guest.connect("198.51.100.77", 80)
    assert caught.value.errno == errno.EHOSTUNREACH


def test_silent_peer_is_silent_for_the_guest_too(lab: Lab, guest: Namespace) -> None:
    guest.sysctl("net.ipv4.tcp_syn_retries", "1")
    lab.host.sysctl("net.ipv4.tcp_syn_retries", "1")
    try:
        with pytest.raises(TimeoutError) as caught:
            guest.connect(SILENT4, 80)
        assert caught.value.errno == errno.ETIMEDOUT
    finally:
        guest.sysctl("net.ipv4.tcp_syn_retries", "6")
        lab.host.sysctl("net.ipv4.tcp_syn_retries", "6")


def test_closed_forwarded_port_resets_the_client(lab: Lab, guest: Namespace) -> None:
    """The host's kernel has accepted already: all that is left is a reset."""
    with pytest.raises(ConnectionResetError):
        read_from(lab.remote, HOST4, FORWARDED)


def read_from(where: Namespace, address: str, port: int) -> bytes:
    """Connect and read."""
    with where.connect(address, port) as client:
        return client.recv(1)


def write_on(sock: socket.socket) -> None:
    """Write more than any buffer takes."""
    for _ in range(1000):
        sock.sendall(bytes(100_000))


# Ends


@pytest.mark.parametrize("guest_first", [True, False])
def test_half_close_keeps_the_other_direction(
    lab: Lab, guest: Namespace, guest_first: bool
) -> None:
    near, far = pair(lab, guest, REMOTE4)
    first, second = (near, far) if guest_first else (far, near)
    with near, far:
        first.shutdown(socket.SHUT_WR)
        assert second.recv(1) == b""
        time.sleep(0.5)
        transfer(second, first, 10_000_000)


def test_end_without_reading_resets_the_writer(lab: Lab, guest: Namespace) -> None:
    near, far = pair(lab, guest, REMOTE4)
    with near, far:
        far.sendall(bytes(200_000))
        near.recv(1)
        near.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            write_on(far)


def test_answer_arrives_although_the_server_resets(lab: Lab, guest: Namespace) -> None:
    """A server that answers without reading the request: data, then RST."""
    for _ in range(20):
        near, far = pair(lab, guest, REMOTE4)
        with near, far:
            near.sendall(b"request that nobody reads")
            wait_readable(far)
            far.sendall(b"answer")
            far.close()
            assert near.recv(100) == b"answer"


def wait_readable(sock: socket.socket) -> None:
    """Wait until something has arrived, without reading it."""
    select.select([sock], [], [], 60)


SERVE = (
    "import socket,sys;s=socket.create_server((sys.argv[1],int(sys.argv[2])));"
    "print('ready',flush=True);c,_=s.accept();c.sendall(b'hello');"
    "import time;time.sleep(60)"
)
CLIENT = (
    "import socket,sys,time;"
    "c=socket.create_connection((sys.argv[1],int(sys.argv[2])));"
    "c.sendall(b'hello');print('ready',flush=True);time.sleep(60)"
)


def test_killed_server_is_noticed_by_the_guest(lab: Lab, guest: Namespace) -> None:
    server = lab.start(lab.remote, "python3", "-c", SERVE, REMOTE4, str(SERVED))
    server.wait_output("ready")
    with guest.connect(REMOTE4, SERVED) as near:
        assert near.recv(5) == b"hello"
        near.sendall(b"unread")
        wait_until(lambda: ":00000006 " in lab.remote.read("tcp"), 30, "6 unread bytes")
        kill(server.pid)
        with pytest.raises(ConnectionResetError):
            near.recv(1)


def test_killed_guest_program_is_noticed_by_the_server(
    lab: Lab, guest: Namespace
) -> None:
    with lab.remote.listen(REMOTE4) as listener:
        port = str(listener.getsockname()[1])
        client = lab.start(guest, "python3", "-c", CLIENT, REMOTE4, port)
        far, _ = listener.accept()
        with far:
            assert far.recv(5) == b"hello"
            client.wait_output("ready")
            kill(client.pid)
            far.settimeout(60)
            assert far.recv(1) == b""


def kill(pid: int) -> None:
    """SIGKILL, also for the program that a prefix such as nsenter started."""
    os.kill(pid, signal.SIGKILL)


# Flow control


def blocked_sender(sock: socket.socket) -> int:
    """Send until nothing more is taken; how many bytes were."""
    sock.setblocking(False)
    sent, quiet = 0, 0
    piece = bytes(range(256)) * 256
    while quiet < 20:
        try:
            sent += sock.send(piece[sent % 256 :])
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.02)
    sock.settimeout(60)
    return sent


def check_pattern(sock: socket.socket, size: int) -> None:
    """Read exactly what `blocked_sender` has sent."""
    pattern, at = bytes(range(256)) * 4097, 0
    while at < size:
        piece = sock.recv(min(1 << 20, size - at))
        assert piece
        assert piece == pattern[at % 256 : at % 256 + len(piece)]
        at += len(piece)


@pytest.mark.parametrize("upload", [True, False], ids=["upload", "download"])
def test_reader_that_sleeps_stops_the_writer_and_loses_nothing(
    lab: Lab, attached: Attached, upload: bool
) -> None:
    near, far = pair(lab, attached.guest, REMOTE4)
    writer, reader = (near, far) if upload else (far, near)
    with near, far:
        size = blocked_sender(writer)
        time.sleep(1)
        check_pattern(reader, size)
        transfer(writer, reader, 10_000_000)


def test_readers_that_sleep_do_not_fill_our_memory(
    lab: Lab, attached: Attached
) -> None:
    before = attached.rss_bytes()
    pairs = [pair(lab, attached.guest, REMOTE4) for _ in range(40)]
    with closing_all([s for both in pairs for s in both]):
        with ThreadPoolExecutor(40) as pool:
            sizes = list(pool.map(blocked_sender, [near for near, _ in pairs]))
        grown = attached.rss_bytes() - before
        assert grown < 100 << 20, f"{sum(sizes)} bytes sent, {grown} held"
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(check_pattern, [far for _, far in pairs], sizes))


def test_slow_reader_gets_everything(lab: Lab, guest: Namespace) -> None:
    near, far = pair(lab, guest, REMOTE4)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
    with near, far, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send_random, near, 3_000_000)
        for _ in range(50):
            far.recv(20_000, socket.MSG_PEEK)
            time.sleep(0.01)
        assert receive_all(far).size == 3_000_000
        assert sent.result(60).size == 3_000_000


def test_slow_writer_is_not_delayed(lab: Lab, guest: Namespace) -> None:
    """A timer of ours would be met by every write, or every other."""
    near, far = pair(lab, guest, REMOTE4)
    with near, far:
        for ends in ((near, far), (far, near)):
            # All else that the machine does is not always in the way.
            assert any(late_writes(*ends) < 10 for _ in range(10))


def late_writes(sender: socket.socket, receiver: socket.socket) -> int:
    """How many of thirty writes, one after the other, take long to arrive."""
    late = 0
    for _ in range(30):
        started = time.monotonic()
        sender.sendall(b"x" * 100)
        got = b""
        while len(got) < 100:
            got += receiver.recv(100)
        late += time.monotonic() - started > 0.15
    return late


# Guests of all kinds


@pytest.mark.parametrize("control", ["reno", "cubic", "bbr"])
def test_congestion_control_of_the_guest_does_not_matter(
    lab: Lab, control: str
) -> None:
    with lab.attach(PASSTPY, Attachment(mtu=1500)) as attached:
        near, far = pair(lab, attached.guest, REMOTE4)
        with near, far:
            try:
                near.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, control.encode())
            except OSError:
                pytest.skip(f"this kernel has no {control}")
            transfer(near, far, MEGABYTES)


@pytest.mark.parametrize("upload", [True, False], ids=["upload", "download"])
@pytest.mark.parametrize("count", [8, 32])
@pytest.mark.parametrize("mtu", [1500, 65520])
def test_no_stream_ever_stands_still(
    lab: Lab, count: int, upload: bool, mtu: int
) -> None:
    with lab.attach(PASSTPY, Attachment(mtu=mtu)) as attached:
        pairs = [pair(lab, attached.guest, REMOTE4) for _ in range(count)]
        with closing_all([s for both in pairs for s in both]):
            streams = Streams(pairs if upload else [(b, a) for a, b in pairs])
            for _ in range(5):
                waited = attached.waited_seconds()
                stalls = standing(streams.run(4))
                # Where others have the processor, frames are lost and repaired late.
                if not stalls or attached.waited_seconds() - waited < 1:
                    break
    assert not stalls, f"(second, stream) without a byte: {stalls}"


def standing(seconds: list[dict[int, int]]) -> list[tuple[int, int]]:
    """Which streams did not move in which seconds.

    A busy machine lets all of them wait: one that does among others is a stall.
    """
    return [
        (s, n) for s, moved in enumerate(seconds) for n, m in moved.items() if not m
    ]


def test_mtu_changes_while_bytes_flow(lab: Lab) -> None:
    with lab.attach(PASSTPY) as attached:
        guest, done = attached.guest, threading.Event()

        def change() -> None:
            for mtu in ("1500", "1280", "9000", "65520") * 50:
                guest.ip("link", "set", "dev", "eth0", "mtu", mtu)
                if done.wait(0.05):
                    return

        changer = threading.Thread(target=change)
        changer.start()
        try:
            near, far = pair(lab, guest, REMOTE4)
            with near, far:
                transfer_both_ways(near, far, MEGABYTES // 2)
        finally:
            done.set()
            changer.join()


# Frames lost and reordered on the tap


@pytest.mark.parametrize(
    "faults", ["drop_ppm=10000,seed=1", "reorder_ppm=10000,seed=2"]
)
@pytest.mark.parametrize("mtu", [1500, 65520])
def test_lost_and_reordered_frames_cost_time_only(
    lab: Lab, checked_env: dict[str, str], faults: str, mtu: int
) -> None:
    env = {**checked_env, "PASSTPY_FAULTS": faults}
    with lab.attach(PASSTPY, Attachment(mtu=mtu, env=env)) as attached:
        for remote in (REMOTE4, REMOTE6):
            near, far = pair(lab, attached.guest, remote)
            with near, far:
                transfer_both_ways(near, far, MEGABYTES // 5)
        attached.check_alive()


def test_guests_without_sack_survive_loss(
    lab: Lab, checked_env: dict[str, str]
) -> None:
    env = {**checked_env, "PASSTPY_FAULTS": "drop_ppm=10000,reorder_ppm=10000,seed=3"}
    with lab.attach(PASSTPY, Attachment(mtu=1500, env=env)) as attached:
        attached.guest.sysctl("net.ipv4.tcp_sack", "0")
        near, far = pair(lab, attached.guest, REMOTE4)
        with near, far:
            transfer_both_ways(near, far, MEGABYTES // 10)
