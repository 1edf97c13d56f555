# SPDX-License-Identifier: GPL-2.0-or-later
"""Once the program serves, it imports, opens and executes nothing any more.

There may be no descriptor left to read a file with, or an upgrade may have put the
files of another version in its place; and whoever takes the daemon over is to find no
way from it into the host's files.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

from tests.lab import HOST4, REMOTE4, Lab, exchange, tcp_echo
from tests.netns.program import Who, pasta, run, wait_for

# Runs the program with a guard that refuses, and notes, each import after the last one;
# and notes what is opened by name, or run, once privileges are gone too.
GUARDED = """\
import errno, os, sys
notes = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
from passtpy.isolation import stages as isolation
from passtpy.session import Session
original, lock = isolation.imports, isolation.lock

class Guard:
    def find_spec(self, name, path=None, target=None):
        os.write(notes, f"{name}\\n".encode())
        raise OSError(errno.EMFILE, "Too many open files", name)

RUNS = "os.exec", "os.fork", "os.posix_spawn", "os.system", "subprocess.Popen"
passed = set()

def watch(event, args):
    if event in RUNS or event == "open" and not isinstance(args[0], int):
        os.write(notes, f"{event} {args[:1]}\\n".encode())

def pass_by(what):
    passed.add(what)
    if len(passed) == 2:
        sys.addaudithook(watch)
        os.write(notes, b"done\\n")

def lock_and_watch(*args):
    lock(*args)
    pass_by("lock")

def imports(*more):
    yield from original(*more)
    sys.meta_path.insert(0, Guard())
    pass_by("imports")

def fail():
    raise KeyError("nobody expects this")

run = Session.run

def run_and_fail(session):
    session.loop.call_later(1, fail)
    return run(session)

isolation.imports, isolation.lock, Session.run = imports, lock_and_watch, run_and_fail
from passtpy.__main__ import pasta
sys.exit(pasta())
"""

# Asks for what few guests ask for: DHCP and DHCPv6, each until it is answered.
CLIENT = """\
import socket, sys
from scapy.all import (BOOTP, DHCP, DHCP6_Solicit, DHCP6OptClientId, DHCP6OptIA_NA,
                       DUID_LL, Ether, IP, IPv6, UDP)
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind(("eth0", 3))
sock.settimeout(60)
mac = sock.getsockname()[4]
src = ":".join(f"{b:02x}" for b in mac)
def ask(frame, port):
    sock.send(bytes(frame))
    while True:
        got = Ether(sock.recv(65536))
        if UDP in got and got[UDP].dport == port:
            return
ask(Ether(src=src, dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
    / UDP(sport=68, dport=67) / BOOTP(chaddr=mac, xid=7)
    / DHCP(options=[("message-type", "discover"), "end"]), 68)
ask(Ether(src=src, dst="33:33:00:01:00:02") / IPv6(src="fe80::7", dst="ff02::1:2")
    / UDP(sport=546, dport=547) / DHCP6_Solicit(trid=7)
    / DHCP6OptClientId(duid=DUID_LL(lladdr=src)) / DHCP6OptIA_NA(iaid=1), 546)
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab of its own: its host changes."""
    with Lab() as made:
        yield made


@pytest.mark.parametrize("form", ["human", "json"])
def test_nothing_is_imported_while_serving(lab: Lab, tmp_path: Path, form: str) -> None:
    """Nor opened by name, nor executed."""
    tmp_path.chmod(0o777)
    notes, log = tmp_path / "notes", tmp_path / "log"
    lab.host.sysctl("net.ipv4.ip_local_port_range", "32768 60999")
    guest = lab.guest()
    words = ["-f", "--trace", "--stats", "1", "--log-format", form]
    words += ["--config-net", "-I", "eth0"]
    words += ["-t", "auto", "-T", "auto", "-l", str(log), "--netns", str(guest.path)]
    process = lab.start(lab.host, sys.executable, "-c", GUARDED, str(notes), *words)
    wait_for(lambda: notes.exists() and "done" in notes.read_text(), "all is imported")
    guest.run(sys.executable, "-c", CLIENT, timeout=60)
    with (
        tcp_echo(lab.remote, REMOTE4) as server,
        guest.connect(REMOTE4, server.port) as sock,
    ):
        assert exchange(sock, b"hello") == b"hello"
    with tcp_echo(guest, HOST4, 7000) as server:  # an automatic port
        wait_for(lambda: lab.host.is_bound("tcp", server.port), "it is open")
    lab.host.ip("addr", "add", "198.51.100.33/24", "dev", "eth0")
    wait_for(lambda: "198.51.100.33" in guest.ip("addr"), "the address is there")
    wait_for(lambda: "loop.failed" in log.read_text(), "the failure is logged")
    process.stop()
    done = set(notes.read_text().splitlines())
    assert done == {"done"}
    assert "Traceback" not in process.stderr()


# Runs the program so that its command ends before the last imports.
OVERTAKEN = """\
import os, sys
from passtpy.isolation import stages as isolation
original, go = isolation.imports, sys.argv.pop(1)

def imports(*more):
    os.close(os.open(go, os.O_WRONLY | os.O_CREAT))
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    yield from original(*more)

isolation.imports = imports
from passtpy.__main__ import pasta
sys.exit(pasta())
"""


@pytest.mark.parametrize("sends", [True, False])
def test_a_command_that_ends_early_lacks_nothing(
    lab: Lab, tmp_path: Path, sends: bool
) -> None:
    """What it sent is sent on, its status is ours, and nothing else is said."""
    go = str(tmp_path / "go")
    with lab.remote.udp(REMOTE4) as sock:
        script = f"until [ -e {go} ]; do sleep 0.05; done; "
        if sends:
            script += f"echo hello >/dev/udp/{REMOTE4}/{sock.getsockname()[1]}; "
        words = [
            "--config-net",
            "--stats",
            "600",
            "--",
            "bash",
            "-c",
            script + "exit 7",
        ]
        argv = [sys.executable, "-c", OVERTAKEN, go, *words]
        done = lab.host.run(*argv, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
        if sends:
            assert sock.recv(99) == b"hello\n"


UDP_CLIENT = """\
import sys, time, socket
socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(110)]
for sock in socks:
    sock.sendto(b"x", ("192.0.2.1", 9))
until = time.monotonic() + 60
while "Too many open files" not in open(sys.argv[1]).read():
    assert time.monotonic() < until, "never told"
    time.sleep(0.02)
print("sent")
"""


@pytest.mark.parametrize("who", ["root", "user"])
def test_udp_flows_that_use_up_descriptors_are_named_and_survived(
    who: Who,
) -> None:
    """An ordinary user's daemon imports what is left while the first packets move."""
    folder = Path(mkdtemp())  # pytest's own are closed to that user
    folder.chmod(0o777)
    log = folder / "log"
    network = ["-a", "192.0.2.77/24", "-g", "192.0.2.1", "-4", "--config-net"]
    words = ["-l", str(log), *network, "-t", "none", "-u", "none", "--"]
    argv = pasta(who, *words, sys.executable, "-c", UDP_CLIENT, str(log))
    done = run(["sh", "-c", 'ulimit -n 120; exec "$@"', "sh", *argv])
    assert (done.returncode, done.stdout) == (0, "sent\n")
    text = log.read_text()
    rmtree(folder)
    assert "sock_limit" in text
    assert "reason='Too many open files'" in text
    assert "loop.failed" not in text  # and so no traceback
    assert "Traceback" not in text
