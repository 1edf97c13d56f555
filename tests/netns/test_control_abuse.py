# SPDX-License-Identifier: GPL-2.0-or-later
"""Careless and hostile users of the control socket get errors, and hurt nobody."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import wait_until
from tests.lab.pcapng import packets
from tests.netns.program import PROGRAM
from tests.netns.test_capture import capture, running
from tests.netns.test_control import SOON, Daemon, box, daemon

__all__ = ["box"]

ABUSE = """
import json, socket, sys

def say(data, whole=True):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(sys.argv[1])
    try:
        sock.sendall(data)
        if whole:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    except (BrokenPipeError, ConnectionResetError):
        pass
    sock.close()

def ask(method, path, body=b""):
    head = f"{method} {path} HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: {len(body)}"
    return head.encode() + b"\\r\\n\\r\\n" + body

nines = "9" * 5000
ports = ",".join(map(str, range(1, 60000, 2)))
bodies = [b"{", b"[]", b"[" * 100000, b'"x"', b"\\xff", b'{"filter": 5}',
    b"x" * 5_000_000,
    json.dumps({"filter": "tcp " * 250_000}).encode(),
    json.dumps({"filter": "(" * 100_000}).encode(),
    json.dumps({"limit": -1}).encode(), b'{"limit": ' + nines.encode() + b"}",
    json.dumps({"specs": ["tcp:" + ports] * 9}).encode(),
    json.dumps({"specs": ["tcp:%\\udcff/80", "tcp:%a\\0b/80", {}, None]}).encode(),
    json.dumps({"level": "info", "for_s": 2**63 - 1}).encode(),
    json.dumps({"level": "info", "for_s": -1}).encode(),
    json.dumps({"dst": "\\udcff:80"}).encode(),
    json.dumps({"dst": f"1.2.3.4:{nines}"}).encode(),
    json.dumps({"since": 2**63 - 1}).encode()]
places = ["GET /v1/flows", "DELETE /v1/flows", "POST /v1/forwards", "PUT /v1/log",
    "GET /v1/explain", "POST /v1/capture", "DELETE /v1/capture", "GET /v1/rules"]
for place in places:
    for body in bodies:
        if place.startswith("POST /v1/capture") and body[:1] != b"{":
            continue
        say(ask(*place.split(), body))
for word in ("id", "rule", "port"):
    say(ask("GET", f"/v1/flows?filter={word}+{nines}"))
for word in (f"flows/{nines}", f"flows/{2**64}", f"flows/{2**64-1}", "forwards/-1"):
    say(ask("DELETE", f"/v1/{word}"))
request = ask("GET", "/v1/explain?dst=192.0.2.1:80", b"{}")
for end in range(len(request) + 1):
    say(request[:end], whole=False)
print("done")
"""


def sockets(box: Daemon) -> int:
    """How many sockets the daemon has for its clients, and to listen."""
    return box.lab.host.run("cat", "/proc/net/unix").stdout.count(box.control)


def test_abuse_is_refused_and_others_are_answered(box: Daemon) -> None:
    argv = box.lab.host.command([sys.executable, "-c", ABUSE, box.control])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as abuser:
        while abuser.poll() is None:
            assert box.ask("GET", "/v1/instance")["name"] == "box"
        assert abuser.communicate()[0] == "done\n"
    wait_until(lambda: sockets(box) == 1, SOON, "sockets closed")
    assert box.ask("GET", "/v1/stats")["counters"]["control_failed"] == 0
    assert box.process is not None
    assert "control.failed" not in box.process.stderr()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("flows", b"\xff"), 2),
        (("explain", b"\xff:80"), 1),
        (("ports", "add", b"tcp:%\xff/80:90"), 1),
        (("close", f"{2**64 - 1}0"), 2),
        (("flows", "-n", "-1"), 2),
        (("log", "debug", "--for", "0"), 2),
    ],
)
def test_a_careless_line_is_an_error(
    box: Daemon, words: tuple[str | bytes, ...], status: int
) -> None:
    first, *rest = (os.fsdecode(word) for word in words)
    done = box.run(first, *rest)
    assert done.returncode == status
    assert done.stderr.startswith("passtpy")
    assert "Traceback" not in done.stderr


def test_what_cannot_be_written_is_one_line(box: Daemon) -> None:
    line = f"{PROGRAM} rules -i {box.control} > /dev/full"
    done = box.lab.host.run("sh", "-c", line, check=False)
    assert (done.returncode, done.stderr) == (1, "passtpy: No space left on device\n")
    done = box.run("capture", "-w", "/dev/full")
    text = "passtpy: /dev/full: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, text)


def test_a_capture_that_is_refused_spares_the_file(box: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("what was there")
    assert box.run("capture", "-w", str(file), "blah").returncode == 2
    assert file.read_text() == "what was there"


def test_both_kinds_of_capture_see_the_same_frames(tmp_path: Path) -> None:
    whole, live = tmp_path / "all.pcap", tmp_path / "live.pcapng"
    os.chmod(tmp_path, 0o777)
    with daemon("-p", str(whole)) as box:
        popen = capture(box, "-w", str(live), "--side", "tap", "udp")
        with box.guest.new_socket(kind=socket.SOCK_DGRAM) as client:
            for n in range(50):
                client.sendto(b"frame %02d" % n, ("198.51.100.1", 5303))
        wait_until(lambda: running(box)[0]["packets"] >= 50, SOON, "packets")
        assert box.run("capture", "--stop-all").returncode == 0
        popen.communicate(timeout=SOON)
        seen = [packet.data for packet in packets(live.read_bytes())]
        marked = [data for data in seen if b"frame " in data]
        assert len(marked) == 50

        def written() -> bool:
            return all(data in whole.read_bytes() for data in marked)

        wait_until(written, SOON, "the same in the other file")
