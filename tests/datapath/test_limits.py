# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of bytes a second, of bytes in all, and of flows; time is virtual.

So what passes in a second is known to the byte: what a bucket held, and what came.
"""

import errno
import socket
import time
from collections.abc import Iterator

import pytest

from passtpy import _native
from passtpy.flow import FlowWhy, Pif, Verdict
from tests.datapath.conftest import Server
from tests.datapath.guest import Connection, Guest, Vnet, forward_to
from tests.datapath.packets import SPORT, echo, syn, udp
from tests.datapath.splice import RULE as SPLICED_RULE
from tests.datapath.splice import World, reset
from tests.datapath.tcp_peer import arrived, established, read_exactly
from tests.lab.loopback import wait_delivered

RULE = 1  # of forward_to()
GUEST = 0
MBIT = 125_000  # bytes a second
BURST = MBIT // 20  # what 50 ms bring
AT_ONCE = 2 * BURST  # of datagrams
STEP_S = 0.002
MOST_WORTH = BURST // 2  # what those who wait are called for
GSO_UDP = 5


def download(guest: Guest, conns: list[Connection], seconds: float) -> dict[int, int]:
    """Bytes that each connection gets in that time, acknowledged at once."""
    ports = {port_of(conn): conn for conn in conns}
    got = dict.fromkeys(ports, 0)
    for _ in range(round(seconds / STEP_S)):
        wait_delivered()  # the kernel goes on sending when it has heard of the last
        guest.advance(STEP_S)
        while frames := arrived(guest):
            for frame in frames:
                conn = ports[frame.tcp.dport]
                conn.ack = (conn.ack + len(frame.payload)) % 2**32
                got[frame.tcp.dport] += len(frame.payload)
            for conn in conns:
                conn.acknowledge(window=65535)
    return got


def port_of(conn: Connection) -> int:
    """The guest's port."""
    return int(conn.fields.get("sport", SPORT))


class Uploader:
    """A guest that sends whatever its window allows."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.edge = conn.seq + conn.peer_syn.tcp.window
        self.sent = 0

    @property
    def room(self) -> int:
        return int(self.edge - self.conn.seq) % 2**32

    def run(self, guest: Guest) -> None:
        """Send until the window is used, and learn the next one."""
        while True:
            for frame in arrived(guest):
                edge = frame.tcp.ack + (frame.tcp.window << 7)
                assert (edge - self.edge) % 2**32 < 2**31, "the window was taken back"
                self.edge = edge
            size = min(self.room, 16_000)
            if not size:
                return
            self.conn.send(bytes(size))
            self.sent += size


def upload(guest: Guest, senders: list[Uploader], seconds: float) -> int:
    before = sum(sender.sent for sender in senders)
    for _ in range(round(seconds / STEP_S)):
        for sender in senders:
            sender.run(guest)
        guest.advance(STEP_S)
    return sum(sender.sent for sender in senders) - before


@pytest.fixture
def filled(guest: Guest, server: Server) -> Connection:
    """A connection whose peer has sent much already; the limit comes first."""
    guest.dp.limit(RULE, rate_in=MBIT)
    conn, peer = established(guest, server)
    peer.sendall(bytes(400_000))
    return conn


def test_a_download_gets_its_rate(guest: Guest, filled: Connection) -> None:
    got = sum(download(guest, [filled], 2.0).values())
    # What is worth to be woken for may not have come together yet
    assert 2 * MBIT - MOST_WORTH <= got - BURST <= 2 * MBIT
    assert guest.dp.limits()[RULE][0] == got
    assert guest.counter("meter_waits") > 50


def test_what_was_saved_is_50_ms_worth(guest: Guest, filled: Connection) -> None:
    download(guest, [filled], 0.5)
    guest.now += 10_000_000_000
    got = sum(download(guest, [filled], STEP_S).values())
    assert got <= BURST + MBIT * STEP_S


def test_downloads_share_a_limit(guest: Guest, server: Server) -> None:
    guest.dp.limit(RULE, rate_in=4 * MBIT)
    conns = [established(guest, server, sport=20_000 + n)[0] for n in range(4)]
    for peer in server.accepted:
        peer.sendall(bytes(400_000))
    got = download(guest, conns, 2.0)
    assert sum(got.values()) == pytest.approx(8 * MBIT, rel=0.05)
    assert min(got.values()) >= 0.8 * max(got.values())


def test_an_upload_gets_its_rate(guest: Guest, server: Server) -> None:
    guest.dp.limit(RULE, rate_out=MBIT)
    sender = Uploader(established(guest, server)[0])
    assert sender.room <= BURST
    first = upload(guest, [sender], 0.2)
    got = upload(guest, [sender], 2.0)
    assert got == pytest.approx(2 * MBIT, abs=BURST)
    assert first <= 0.2 * MBIT + 2 * BURST
    assert guest.dp.limits()[RULE][1] == sender.sent


def test_a_window_never_promises_more_than_two_buckets(
    guest: Guest, server: Server
) -> None:
    guest.dp.limit(RULE, rate_out=MBIT)
    sender = Uploader(established(guest, server)[0])
    upload(guest, [sender], 0.2)
    guest.now += 10_000_000_000
    before = sender.sent
    sender.run(guest)  # what was promised, and what was saved since
    assert sender.sent - before <= 2 * BURST
    assert sender.room <= BURST


def test_uploads_share_a_limit(guest: Guest, server: Server) -> None:
    guest.dp.limit(RULE, rate_out=2 * MBIT)
    senders = []
    for number in range(4):
        conn, _ = established(guest, server, sport=20_000 + number)
        senders.append(Uploader(conn))
    upload_each(guest, senders, 2.0)
    total = sum(sender.sent for sender in senders)
    assert total == pytest.approx(4 * MBIT, rel=0.08)
    assert min(s.sent for s in senders) >= 0.7 * max(s.sent for s in senders)


def upload_each(guest: Guest, senders: list[Uploader], seconds: float) -> None:
    """The same, with frames that are for several connections."""
    ports = {port_of(sender.conn): sender for sender in senders}
    for _ in range(round(seconds / STEP_S)):
        moved = True
        while moved:
            moved = False
            for frame in arrived(guest):
                sender = ports[frame.tcp.dport]
                sender.edge = frame.tcp.ack + (frame.tcp.window << 7)
            for sender in senders:
                if size := min(sender.room, 16_000):
                    sender.conn.send(bytes(size))
                    sender.sent += size
                    moved = True
        guest.advance(STEP_S)


def test_a_window_that_was_not_used_is_given_back(guest: Guest, server: Server) -> None:
    guest.dp.limit(RULE, rate_out=MBIT)
    rooms = []
    for number in range(30):
        conn, _ = established(guest, server, sport=20_000 + number)
        rooms.append(Uploader(conn).room)
        conn.say("R")
        guest.turn()
    assert min(rooms) == max(rooms) > 0


def test_many_new_connections_wait_for_a_window(guest: Guest, server: Server) -> None:
    """The first ones get all that there is; the others are told once there is more."""
    guest.dp.limit(RULE, rate_out=MBIT)
    conns = [
        established(guest, server, sport=20_000 + number)[0] for number in range(6)
    ]
    empty = [conn for conn in conns if not conn.peer_syn.tcp.window]
    assert empty
    told: set[int] = set()
    for _ in range(200):
        guest.advance(STEP_S)
        told |= {f.tcp.dport for f in arrived(guest) if f.tcp.window}
    assert told >= {conn.fields["sport"] for conn in empty}


def test_an_end_waits_for_the_bytes_before_it(guest: Guest, server: Server) -> None:
    guest.dp.limit(RULE, rate_in=MBIT)
    conn, peer = established(guest, server)
    peer.sendall(bytes(30_000))
    peer.shutdown(socket.SHUT_WR)
    wait_delivered()
    got, fins = 0, 0
    for _ in range(300):
        guest.advance(STEP_S)
        for frame in arrived(guest):
            got += len(frame.payload)
            fins += "F" in frame.flags
            conn.ack = frame.tcp.seq + len(frame.payload) + ("F" in frame.flags)
            conn.acknowledge()
    assert (got, fins) == (30_000, 1)


def test_bytes_before_a_reset_wait_for_a_limit(guest: Guest, server: Server) -> None:
    guest.dp.limit(RULE, rate_in=MBIT)
    conn, peer = established(guest, server)
    peer.sendall(bytes(30_000))
    guest.wait_for(lambda: bool(guest.dp.limits()[RULE][0]), "bytes")
    reset(peer)
    got = 0
    for _ in range(300):
        guest.advance(STEP_S)
        for frame in arrived(guest):
            got += len(frame.payload)
            if "R" in frame.flags:
                break
            conn.ack = frame.tcp.seq + len(frame.payload)
            conn.acknowledge()
    assert got == 30_000
    assert not guest.flows()


def test_a_limit_that_is_lifted_lets_everybody_go(
    guest: Guest, filled: Connection
) -> None:
    guest.drain()
    guest.dp.unlimit(RULE)
    guest.turn()
    for _ in range(1000):  # in two seconds the limit would let 250 000 pass
        if filled.ack - filled.peer_syn.tcp.seq - 1 == 400_000:
            break
        download(guest, [filled], STEP_S)
        time.sleep(0.001)  # the kernel takes its own time
    assert filled.ack - filled.peer_syn.tcp.seq - 1 == 400_000


def test_an_open_flow_comes_under_a_limit(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    guest.dp.limit(9, rate_in=MBIT)
    (flow,) = guest.flows()
    guest.dp.verdict(flow.flow_id, rule=9, generation=2)
    peer.sendall(bytes(400_000))
    assert sum(download(guest, [conn], 1.0).values()) <= MBIT + BURST
    assert guest.dp.limits()[9][4] == 1


def test_flows_that_come_under_a_limit_bring_nothing_along(
    guest: Guest, server: Server
) -> None:
    """A window that was promised elsewhere is not given back, nor used, for free."""
    guest.dp.limit(RULE, rate_out=MBIT)
    conn, _ = established(guest, server)
    sender, decide = Uploader(conn), guest.decide

    def elsewhere(miss: _native.Miss) -> Verdict | None:
        verdict = decide(miss)
        return verdict and verdict._replace(rule=5)

    guest.decide = elsewhere
    sent = 0
    for n in range(100):
        sent += upload(guest, [sender], 5 * STEP_S)
        guest.send(syn(sport=20_000 + n))
        guest.dp.verdict(guest.opened[-1], rule=RULE, generation=2)
        guest.dp.close_flow(guest.opened[-1], FlowWhy.ASKED)
        for frame in arrived(guest):
            if frame.tcp.dport == port_of(conn):
                sender.edge = frame.tcp.ack + (frame.tcp.window << 7)
    assert guest.dp.limits()[RULE][1] == sent <= MBIT + BURST


def test_what_was_promised_elsewhere_is_paid_for_when_it_comes(
    guest: Guest, server: Server
) -> None:
    conn, _ = established(guest, server)
    guest.dp.limit(9, rate_out=MBIT)
    guest.dp.verdict(guest.opened[0], rule=9, generation=2)
    for size in (30_000, 30_000, 5000):  # of 64 KiB: for half a second
        conn.send(bytes(size))
        told = guest.expect("A", ack=conn.seq)
    assert told.tcp.window << 7 < 1000
    guest.advance(0.3)
    guest.expect_nothing()
    guest.advance(0.3)
    assert guest.expect("A", ack=conn.seq).tcp.window << 7 > 2000


def moved(guest: Guest, flow_id: int) -> int:
    """Have an open flow admitted by rule 9; return 0, or an errno."""
    try:
        guest.dp.verdict(flow_id, rule=9, generation=2, admit=True)
    except OSError as error:
        return error.errno or -1
    return 0


def test_an_open_flow_that_has_to_be_admitted_may_be_one_too_many(
    guest: Guest, server: Server
) -> None:
    guest.dp.limit(9, flows=1)
    guest.dp.limit(GUEST, new_flows=3)
    for n in range(3):
        established(guest, server, sport=20_000 + n)
    first, second, third = guest.opened
    assert [moved(guest, each) for each in guest.opened] == [0, *[errno.EUSERS] * 2]
    assert {each.flow_id: each.rule for each in guest.flows()} == {
        first: 9,
        second: RULE,
        third: RULE,
    }
    assert moved(guest, first) == 0  # it is there already
    assert guest.dp.limits()[9][4:6] == (1, 2)
    assert guest.counter("meter_refused") == 2
    guest.dp.close_flow(first, FlowWhy.ASKED)
    assert moved(guest, second) == 0
    guest.dp.verdict(third, rule=9, generation=2)  # who need not be is moved


def test_open_flows_are_admitted_at_the_rate_of_new_ones(
    guest: Guest, server: Server
) -> None:
    guest.dp.limit(9, new_flows=2)
    for n in range(4):
        established(guest, server, sport=20_000 + n)
    assert [moved(guest, each) for each in guest.opened] == [0, 0, *[errno.EUSERS] * 2]
    guest.advance(0.5)
    assert [moved(guest, each) for each in guest.opened[2:]] == [0, errno.EUSERS]


def test_no_open_flow_is_admitted_where_a_total_is_reached(
    guest: Guest, server: Server
) -> None:
    guest.dp.limit(9, total_out=10)
    first, _ = established(guest, server)
    assert moved(guest, guest.opened[0]) == 0
    established(guest, server, sport=20_000)
    first.send(bytes(10))
    guest.wait_for(lambda: len(guest.flows()) == 1, "the end of the first")
    assert moved(guest, guest.opened[1]) == errno.EDQUOT


def test_datagrams_of_the_guest_beyond_the_rate_are_dropped(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.limit(RULE, rate_out=MBIT)
    udp_peer.setblocking(False)
    got = 0
    for _ in range(500):  # twice the rate, in a second
        guest.send(udp(bytes(500)))
        wait_delivered()
        guest.now += 2_000_000
        got += sum(map(len, received(udp_peer)))
    counts = guest.dp.limits()[RULE]
    assert counts[1] == pytest.approx(MBIT + AT_ONCE, abs=500)
    assert counts[1] + 500 * counts[3] == 500 * 500
    assert guest.counter("meter_dropped") == counts[3]
    assert got == counts[1]


def received(sock: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield sock.recv(65536)
        except BlockingIOError:
            return


@pytest.mark.taps("vnet", "vhost", why="only there the guest has offload")
def test_a_super_segment_is_cut_to_what_may_pass(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.limit(RULE, rate_out=MBIT)
    frame = udp(bytes(30 * 1000))
    guest.send(frame, vnet=Vnet(1, GSO_UDP, 42, 1000, 34, 6))
    assert guest.dp.limits()[RULE][1] == AT_ONCE // 1000 * 1000
    assert guest.dp.limits()[RULE][3] == 30 - AT_ONCE // 1000


def test_datagrams_for_the_guest_beyond_the_rate_are_dropped(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.limit(RULE, rate_in=MBIT)
    guest.send(udp(b"x"))
    _, source = udp_peer.recvfrom(9)
    for _ in range(40):
        udp_peer.sendto(bytes(500), source)
    got = sum(len(frame.payload) for frame in guest.drain())
    assert got == AT_ONCE // 500 * 500
    guest.wait_for(lambda: guest.dp.limits()[RULE][2] == 15, "drops")


def test_a_datagram_longer_than_the_bucket_passes_when_it_is_full(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.limit(RULE, rate_out=MBIT)
    for _ in range(2):
        guest.send(udp(bytes(20_000)))
    assert guest.dp.limits()[RULE][1:4:2] == (20_000, 1)
    guest.now += round(1e9 * 20_000 / MBIT) + 1
    guest.send(udp(bytes(20_000)))
    assert guest.dp.limits()[RULE][1:4:2] == (40_000, 1)


def test_both_limits_of_a_flow_hold(guest: Guest, udp_peer: socket.socket) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.limit(RULE, rate_out=100 * MBIT)
    guest.dp.limit(GUEST, rate_out=MBIT)
    for _ in range(30):
        guest.send(udp(bytes(1000)))
    assert guest.dp.limits()[GUEST][1] == guest.dp.limits()[RULE][1] == 12_000


def test_datagrams_leave_half_to_a_download(
    guest: Guest, filled: Connection, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"x"))
    _, source = udp_peer.recvfrom(9)
    got = {True: 0, False: 0}
    for _ in range(500):
        udp_peer.sendto(bytes(500), source)  # twice as much as may pass
        guest.advance(STEP_S)
        for frame in arrived(guest):
            is_tcp = frame.packet.haslayer("TCP")
            got[bool(is_tcp)] += len(frame.payload)
            if is_tcp:
                filled.ack = (filled.ack + len(frame.payload)) % 2**32
                filled.acknowledge(window=65535)
    assert sum(got.values()) <= MBIT + AT_ONCE
    assert got[True] >= 0.4 * MBIT


@pytest.mark.parametrize("outwards", [False, True], ids=["in", "out"])
def test_a_spliced_connection_gets_its_rate(guest: Guest, outwards: bool) -> None:
    world = World(guest, socket.SOCK_STREAM, source=Pif.SPLICE)
    name = "rate_out" if outwards else "rate_in"
    guest.dp.limit(SPLICED_RULE, **{name: MBIT})
    client, server = world.pair(world.serve())
    source, sink = (client, server) if outwards else (server, client)
    source.sendall(bytes(400_000))
    guest.wait_for(lambda: bool(guest.dp.limits()[SPLICED_RULE][outwards]), "bytes")
    for _ in range(500):
        wait_delivered()
        guest.advance(STEP_S)
    moved = guest.dp.limits()[SPLICED_RULE][outwards]
    assert MBIT - MOST_WORTH <= moved - BURST <= MBIT
    assert len(read_exactly(sink, moved)) == moved
    world.close()


def test_a_total_ends_a_download_to_the_byte(guest: Guest, server: Server) -> None:
    guest.dp.limit(RULE, total_in=100_000)
    conn, peer = established(guest, server)
    other, _ = established(guest, server, sport=20_001)
    peer.sendall(bytes(400_000))
    got, resets = 0, set()
    for frame in guest.drain():
        got += len(frame.payload)
        if "R" in frame.flags:
            resets.add(frame.tcp.dport)
    assert got == 100_000
    assert resets == {port_of(conn), port_of(other)}
    assert not guest.flows()
    assert told(guest) == [(RULE, 0, 100_000)]
    assert guest.dp.limits()[RULE][6:] == (2, True)
    guest.send(syn(sport=20_002))
    guest.expect("RA", dport=20_002)  # no other one begins
    assert guest.dp.limits()[RULE][5] == 1


def told(guest: Guest) -> list[tuple[int, ...]]:
    """What the log says of totals that are reached."""
    names = [name for name, *_ in _native.EVENTS]
    spent = names.index("meter_spent")
    return [tuple(e.args[:3]) for e in guest.dp.events(4096) if e.event == spent]


def test_a_total_ends_an_upload_to_the_byte(guest: Guest, server: Server) -> None:
    guest.dp.limit(RULE, total_out=50_000)
    conn, _ = established(guest, server)
    for _ in range(4):
        conn.send(bytes(15_000))
    assert guest.dp.limits()[RULE][1] == 50_000
    assert "R" in guest.drain()[-1].flags
    assert told(guest) == [(RULE, 1, 50_000)]


def test_a_total_ends_an_upload_to_the_byte_when_a_gap_is_filled(
    guest: Guest, server: Server
) -> None:
    guest.dp.limit(RULE, total_out=20_000)
    conn, _ = established(guest, server)
    conn.send(bytes(15_000), seq=conn.seq + 10_000)
    conn.send(bytes(10_000))
    assert guest.dp.limits()[RULE][1] == 20_000
    assert "R" in guest.drain()[-1].flags
    assert told(guest) == [(RULE, 1, 20_000)]


def test_a_total_ends_datagrams(guest: Guest, udp_peer: socket.socket) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.limit(RULE, total_out=2_500)
    for _ in range(4):
        guest.send(udp(bytes(1000)))
    assert not guest.flows()
    assert guest.dp.limits()[RULE][1] == 2_000
    assert len(told(guest)) == 1


def test_a_total_that_is_raised_opens_again(guest: Guest, server: Server) -> None:
    guest.dp.log_level = 1
    guest.dp.limit(RULE, total_out=1_000)
    conn, _ = established(guest, server)
    conn.send(bytes(1_000))
    assert not guest.flows()
    reasons = [e.args[0] for e in guest.dp.events(4096) if is_end(e)]
    assert reasons == [FlowWhy.LIMIT]
    guest.drain()
    guest.dp.limit(RULE, total_out=2_000)
    conn, _ = established(guest, server, sport=20_001)
    conn.send(bytes(999))
    assert guest.dp.limits()[RULE][1] == 1_999
    assert guest.flows()
    guest.dp.limit(RULE, total_out=1_999)  # and lowered, it ends them
    guest.turn()
    assert not guest.flows()


def is_end(event: _native.Event) -> bool:
    return _native.EVENTS[event.event][0] == "flow_closed"


def test_flows_at_a_time(guest: Guest, server: Server) -> None:
    guest.dp.limit(RULE, flows=2)
    conns = [established(guest, server, sport=20_000 + n)[0] for n in range(2)]
    guest.send(syn(sport=20_002))
    guest.expect("RA", dport=20_002)
    assert guest.opened[-1] == 0
    conns[0].say("R")
    established(guest, server, sport=20_003)
    assert guest.dp.limits()[RULE][4:6] == (2, 1)
    assert guest.counter("meter_refused") == 1


def test_new_flows_a_second(guest: Guest, udp_peer: socket.socket) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.limit(GUEST, new_flows=5)
    for number in range(10):
        guest.send(udp(b"x", sport=20_000 + number))
    assert len(guest.flows()) == 5
    assert {f.packet.getlayer("ICMP").type for f in guest.drain()} == {3}
    guest.advance(0.4)
    for number in range(10):
        guest.send(udp(b"x", sport=30_000 + number))
    assert len(guest.flows()) == 7


def test_limits_of_flows_that_are_gone_make_room(guest: Guest) -> None:
    for rule in range(1, 1024):
        guest.dp.limit(rule, flows=1)
    guest.dp.limit(1024, flows=1)
    with pytest.raises(OSError, match="No space"):
        guest.dp.limit(1025, flows=1)
    guest.dp.unlimit(7)
    guest.dp.limit(1025, flows=1)
    assert 7 not in guest.dp.limits()


def test_nothing_is_counted_where_there_are_no_limits(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"x"), echo())
    assert guest.dp.limits() == {}
    guest.dp.unlimit(RULE)
    guest.dp.limit(RULE, rate_in=1)
    assert guest.dp.limits()[RULE] == (0, 0, 0, 0, 0, 0, 0, False)
