# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets of a running daemon are captured, and read by the reader that people have."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from tests.lab import REMOTE4, tcp_echo, wait_until
from tests.lab.pcapng import INTERFACE, SECTION, STATISTICS, blocks, packets
from tests.netns.program import PROGRAM
from tests.netns.test_control import Daemon, box, daemon, ping

__all__ = ["box"]

SOON = 30.0
IFRECV, IFDROP = 4, 5
STATISTICS_LEN = 76
MIB = 1 << 20


@pytest.fixture
def fresh() -> Iterator[Daemon]:
    with daemon() as made:
        yield made


def start(box: Daemon, *argv: str) -> subprocess.Popen[bytes]:
    """Start a command that captures, and wait until the daemon does."""
    before = {each["id"] for each in running(box)}  # some of them may be ending
    popen = subprocess.Popen(box.lab.host.command(argv), stdout=subprocess.PIPE)
    wait_until(lambda: {e["id"] for e in running(box)} - before, SOON, "capture")
    return popen


def capture(box: Daemon, *words: str) -> subprocess.Popen[bytes]:
    return start(box, str(PROGRAM), "capture", "-i", box.control, *words)


def capture_to(file: Path, box: Daemon, *words: str) -> subprocess.Popen[bytes]:
    """Capture to a file, which is there once signals are obeyed."""
    popen = capture(box, "-w", str(file), *words)
    wait_until(file.exists, SOON, "a file")
    return popen


def running(box: Daemon) -> list[Any]:
    captures: list[Any] = box.ask("GET", "/v1/capture")["captures"]
    return captures


def sender(box: Daemon) -> socket.socket:
    return box.guest.new_socket(kind=socket.SOCK_DGRAM)


def tshark(path: Path, *fields: str) -> list[list[str]]:
    argv = ["tshark", "-r", str(path), "-T", "fields"]
    argv += [word for field in fields for word in ("-e", field)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def talk(box: Daemon, file: Path, port: int) -> int:
    """Capture a connection to a port, and not another one; the number of its flow."""
    popen = capture_to(file, box, "tcp", "port", str(port))
    with tcp_echo(box.lab.remote, REMOTE4, port), tcp_echo(box.lab.remote, REMOTE4, 7):
        with box.guest.connect(REMOTE4, 7) as other:
            assert ping(other) == b"hello"
        with box.guest.connect(REMOTE4, port) as sock:
            assert ping(sock) == b"hello"
            flow: int = box.ask("GET", f"/v1/flows?filter=dport+{port}")["id"]
            (one,) = running(box)
            wait_until(lambda: running(box)[0]["packets"] >= 7, SOON, "packets")
    popen.send_signal(signal.SIGINT)
    out, _ = popen.communicate(timeout=SOON)
    assert out.decode().endswith(f" in {file}\n")
    assert one["filter"] == f"tcp port {port}"
    return flow


def test_both_sides_are_read_by_tshark(box: Daemon, tmp_path: Path) -> None:
    for port in range(7010, 7015):  # a kernel that waits too long says it again
        file = tmp_path / f"{port}.pcapng"
        flow = talk(box, file, port)
        if not told(file, "-Y", "tcp.analysis.retransmission"):
            break

    fields = ("frame.interface_name", "frame.comment", "tcp.dstport", "tcp.payload")
    rows = tshark(file, *fields)
    assert {row[0] for row in rows} == {"tap", "sockets"}
    rules = {rule["id"] for rule in box.ask("GET", "/v1/rules")["rules"]}
    for _, comment, *_ in rows:
        word, number, name, rule = comment.split()
        assert (word, int(number), name) == ("flow", flow, "rule")
        assert int(rule) in rules
    hello = b"hello".hex()
    for side in ("tap", "sockets"):
        sent = [row[2] for row in rows if row[0] == side and row[3] == hello]
        assert sent.count(str(port)) == 1
        assert len(sent) == 2
    expert = subprocess.run(
        ["tshark", "-r", str(file), "-Y", "_ws.malformed || tcp.analysis.flags"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert expert.stdout == ""


def test_a_connection_of_sockets_is_whole_for_tshark(
    box: Daemon, tmp_path: Path
) -> None:
    """It knows who began, that both have ended, and what each has said."""
    file = tmp_path / "sockets.pcapng"
    popen = capture_to(file, box, "--side", "sockets", "tcp", "port", "7000")
    with tcp_echo(box.lab.remote, REMOTE4, 7000):
        with box.guest.connect(REMOTE4, 7000) as sock:
            assert ping(sock) == b"hello"
        # S SA A, twice PA, twice FA and A
        wait_until(lambda: running(box)[0]["packets"] >= 9, SOON, "packets")
    popen.send_signal(signal.SIGINT)
    popen.communicate(timeout=SOON)
    *_, seen = told(file, "-T", "fields", "-e", "tcp.completeness").split()
    assert int(seen) == 0b11111  # SYN, SYN+ACK, ACK, data, FIN; and no RST
    table = told(file, "-q", "-z", "conv,tcp").splitlines()
    (line,) = (each for each in table if "<->" in each)
    assert f"{REMOTE4}:7000" in line.split("<->")[1]
    follow = told(file, "-q", "-z", "follow,tcp,ascii,0")
    assert follow.count("hello") == 2
    assert told(file, "-Y", "tcp.analysis.flags || _ws.malformed") == ""


def told(file: Path, *words: str) -> str:
    """What tshark says of a file."""
    argv = ["tshark", "-r", str(file), *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_it_can_be_piped_into_tshark(box: Daemon) -> None:
    line = (
        f"{PROGRAM} capture -i {box.control} -w - -c 4 'udp port 5300'"
        " | tshark -l -r - -T fields -e frame.interface_name -e data.data"
    )
    popen = start(box, "sh", "-c", line)
    with box.lab.remote.udp(REMOTE4, 5300) as server, sender(box) as client:
        client.sendto(b"ask", (REMOTE4, 5300))
        _, address = server.recvfrom(10)
        server.sendto(b"told", address)
        assert client.recv(10) == b"told"
    out, _ = popen.communicate(timeout=SOON)
    ask, told = b"ask".hex(), b"told".hex()
    assert [line.split() for line in out.decode().splitlines()] == [
        ["tap", ask],
        ["sockets", ask],
        ["sockets", told],
        ["tap", told],
    ]


def test_limits_end_it(box: Daemon) -> None:
    for words in (("-c", "3"), ("--bytes", str(MIB)), ("--seconds", "1")):
        argv = [str(PROGRAM), "capture", "-i", box.control, *words, "udp"]
        popen = subprocess.Popen(box.lab.host.command(argv), stdout=subprocess.PIPE)
        with sender(box) as client, ThreadPoolExecutor(1) as pool:
            reading = pool.submit(popen.communicate, timeout=SOON)
            while not reading.done():  # it has its packets whenever it begins
                client.sendto(b"x" * 1000, (REMOTE4, 5301))
                time.sleep(0.0005)
            raw, _ = reading.result()
        kinds = [block.kind for block in blocks(raw)]
        assert kinds[:3] == [SECTION, INTERFACE, INTERFACE]
        assert kinds[-2:] == [STATISTICS, STATISTICS]
        if "-c" in words:
            assert len(packets(raw)) == 3
        elif "--bytes" in words:
            assert MIB - 2000 < len(raw) <= MIB
        else:
            assert packets(raw)
        assert running(box) == []


def test_it_outlives_its_terminal_and_fills_files(box: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "days.pcapng"
    line = f"exec {PROGRAM} capture -i {box.control} -w {file} --rotate 20000 udp"
    popen = start(box, "sh", "-c", f"trap '' HUP; {line}")
    popen.send_signal(signal.SIGHUP)
    with sender(box) as client:

        def captured() -> bool:
            for _ in range(10):
                client.sendto(b"x" * 1000, (REMOTE4, 5301))
            return bool(running(box)[0]["packets"] >= 100)

        wait_until(captured, SOON, "packets")
    wait_until(lambda: any(tmp_path.iterdir()), SOON, "the first file")
    popen.send_signal(signal.SIGINT)
    out, _ = popen.communicate(timeout=SOON)
    files = sorted(tmp_path.iterdir())
    assert out.decode().endswith(f" in {files[-1]}\n")
    assert len(files) >= 5
    assert sum(len(packets(each.read_bytes())) for each in files) >= 100
    assert tshark(files[-1], "frame.interface_name")


def test_a_client_that_leaves_ends_it(box: Daemon) -> None:
    popen = capture(box)
    popen.kill()
    popen.communicate()
    wait_until(lambda: running(box) == [], SOON, "end")


def test_delete_ends_it_and_the_file_is_whole(box: Daemon) -> None:
    wait_until(lambda: running(box) == [], SOON, "the end of those before")
    first, second = capture(box, "tcp"), capture(box, "udp")
    told = json.loads(box.say("capture", "--list", "--json"))
    assert [each["filter"] for each in told] == ["tcp", "udp"]
    assert "FILTER" in box.say("capture", "--list")
    box.say("capture", "--stop", str(told[0]["id"]))
    raw, _ = first.communicate(timeout=SOON)
    assert [block.kind for block in blocks(raw)][-1] == STATISTICS
    assert [each["filter"] for each in running(box)] == ["udp"]
    box.say("capture", "--stop-all")
    second.communicate(timeout=SOON)
    assert box.run("capture", "--stop", "77").stderr == (
        "passtpy: there is no capture 77\n"
    )


def test_curl_is_told_of_rules_and_of_what_is_wrong(box: Daemon) -> None:
    told = box.ask("POST", "/v1/capture?filter=tcp+prt+5")
    assert told["error"]["field"] == "filter"
    argv = ["curl", "-sS", "--unix-socket", box.control, "-X", "POST"]
    url = "http://localhost/v1/capture?seconds=1"
    raw = subprocess.check_output(box.lab.host.command([*argv, url]))
    (section,) = (block for block in blocks(raw) if block.kind == SECTION)
    about, *rules = section.texts(1)
    assert about.endswith("of everything")
    ids = [rule["id"] for rule in box.ask("GET", "/v1/rules")["rules"]]
    assert [int(text.split()[1].rstrip(":")) for text in rules] == ids


def test_traffic_goes_on_while_nobody_reads(fresh: Daemon) -> None:
    """Its client is stopped: what it does not take is counted, then told to it."""
    box, size = fresh, 256 * MIB
    popen = capture(box, "-w", "/dev/null", "--json", "tcp")
    (told,) = running(box)
    os.kill(popen.pid, signal.SIGSTOP)
    received = 0

    def serve(listener: socket.socket) -> None:
        nonlocal received
        conn, _ = listener.accept()
        with conn:
            while data := conn.recv(MIB):
                received += len(data)

    with box.lab.remote.listen(REMOTE4, 7001) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        with box.guest.connect(REMOTE4, 7001) as sock:
            block = bytes(MIB)
            for _ in range(size // MIB):
                sock.sendall(block)
        server.join(timeout=60)
    assert received == size
    (told,) = running(box)
    assert told["dropped"]["tap"] > 0
    assert told["dropped"]["sockets"] > 0
    os.kill(popen.pid, signal.SIGCONT)
    box.ask("DELETE", "/v1/capture")
    out, _ = popen.communicate(timeout=SOON)
    assert json.loads(out)["bytes"] > MIB


def test_what_is_missing_is_told_in_the_file(fresh: Daemon, tmp_path: Path) -> None:
    box, file = fresh, tmp_path / "some.pcapng"
    popen = capture_to(file, box, "udp")
    os.kill(popen.pid, signal.SIGSTOP)
    with sender(box) as client:
        payload = b"x" * 60_000

        def dropped() -> bool:
            for _ in range(50):
                client.sendto(payload, (REMOTE4, 5302))
            (told,) = running(box)
            return bool(sum(told["dropped"].values()))

        wait_until(dropped, 60, "drops")
    os.kill(popen.pid, signal.SIGCONT)
    wait_until(lambda: popen.poll() or told_in(file), SOON, "counts")
    popen.send_signal(signal.SIGTERM)
    popen.communicate(timeout=SOON)
    last = [b for b in blocks(file.read_bytes()) if b.kind == STATISTICS][-2:]
    received = sum(block.number(IFRECV) for block in last)
    assert received - sum(block.number(IFDROP) for block in last) == len(
        packets(file.read_bytes())
    )


def told_in(file: Path) -> bool:
    """Whether counts stand in a file that is still being written."""
    return pack("=II", STATISTICS, STATISTICS_LEN) in file.read_bytes()
