# SPDX-License-Identifier: GPL-2.0-or-later
"""UNIX sockets of the host as ends of forwards, with clients and servers as people use.

The daemon was started by root and becomes nobody: so the folder is everybody's, and so
is the socket of the server.
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.lab import GATEWAY4, HOST4, Attached, wait_until
from tests.netns.program import Commands
from tests.netns.test_forward import attached
from tests.netns.test_root import family

SOON = 30.0
PORT = 8000


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which everybody may do anything."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


def curl(*words: str) -> list[str]:
    return ["curl", "-sS", "--max-time", str(SOON), *words]


def answer_one(server: socket.socket) -> str:
    """Answer a request with whom it comes from; return that."""
    conn, peer = server.accept()
    with conn:
        conn.settimeout(SOON)
        request = b""
        while b"\r\n\r\n" not in request:
            piece = conn.recv(65536)
            assert piece, "the request ended early"
            request += piece
        who = str(peer[0]) if peer else "somebody"
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(who)}\r\n\r\n"
        conn.sendall((head + who).encode())
        return who


def guest_serves(it: Attached, path: Path) -> str:
    """Ask a server of the guest by a socket of the host; return whom it saw."""
    with it.guest.new_socket(socket.AF_INET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", PORT))
        server.listen()
        server.settimeout(SOON)
        request = curl("--unix-socket", str(path), "http://guest/")
        with subprocess.Popen(request, stdout=subprocess.PIPE, text=True) as asking:
            answer_one(server)
            told, _ = asking.communicate(timeout=SOON)
    return told


@pytest.mark.parametrize(
    ("options", "seen"),
    [((), HOST4), (("--no-splice",), GATEWAY4)],
    ids=["spliced", "tap"],
)
def test_curl_reaches_the_guest_by_a_unix_socket(
    folder: Path, options: tuple[str, ...], seen: str
) -> None:
    path = folder / "web.sock"
    with attached("-t", f"unix:{path}:{PORT},mode=640", *options) as (_, it):
        assert path.lstat().st_mode & 0o777 == 0o640
        assert guest_serves(it, path) == seen


def test_curl_of_the_guest_reaches_a_unix_socket_of_the_host(folder: Path) -> None:
    path = folder / "docker.sock"
    with ExitStack() as stack:
        server = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        server.bind(str(path))
        server.listen()
        server.settimeout(SOON)
        os.chmod(path, 0o666)
        _, it = stack.enter_context(attached("-T", f"2375:unix:{path}"))
        told = []
        for url in ("http://127.0.0.1:2375/", "http://[::1]:2375/"):
            answering = threading.Thread(target=answer_one, args=(server,))
            answering.start()
            asked = it.guest.command(curl(url))
            told.append(subprocess.check_output(asked, text=True, timeout=SOON))
            answering.join()
        server.close()
        path.unlink()
        refused = it.guest.command(curl("http://127.0.0.1:2375/"))
        failed = subprocess.run(refused, capture_output=True, timeout=SOON)
    assert told == ["somebody", "somebody"]
    # A reset, which curl may meet at any of its steps; never a success, nor a time-out
    assert failed.returncode not in (0, 28), failed.stderr
    assert failed.stdout == b""


@contextmanager
def asked(folder: Path, *options: str) -> Iterator[tuple[Commands, Attached, int]]:
    """A daemon that may use the folder, those who ask it, and its PID."""
    with tempfile.TemporaryDirectory() as sockets:
        control = Path(sockets) / "control"
        words = ["--control", str(control), "--unix-folder", str(folder), *options]
        words += ["--gvproxy-services", f"{control}.gvproxy"]
        with attached(*words) as (lab, it):
            pid = int((lab.dir / "pid").read_text())
            yield Commands(lab, control), it, pid


def gvproxy(box: Commands, verb: str, **body: str) -> str:
    """Return what gvproxy's services say to that about a UNIX socket."""
    told = json.dumps(body | {"protocol": "unix"})
    words = "--unix-socket", f"{box.control}.gvproxy", "-d", told
    url = f"http://localhost/services/forwarder/{verb}"
    done = subprocess.run(curl(*words, url), capture_output=True, text=True, check=True)
    return done.stdout


def host_serves(it: Attached, path: Path) -> str:
    """Ask a server of the host by a port of the guest; return what it said."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(SOON)
        os.chmod(path, 0o666)
        answering = threading.Thread(target=answer_one, args=(server,))
        answering.start()
        asking = it.guest.command(curl("http://127.0.0.1:2375/"))
        told = subprocess.check_output(asking, text=True, timeout=SOON)
        answering.join()
    path.unlink()
    return told


def holds_folders(pid: int) -> bool:
    held = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
    return any(map(os.path.isdir, held))


def test_sockets_become_ends_while_it_runs(folder: Path) -> None:
    first, web, docker = (folder / name for name in ("first", "web", "docker"))
    with asked(folder, "-t", f"unix:{first}:{PORT}") as (box, it, pid):
        assert first.is_socket()
        box.say("ports", "remove", "1")
        assert not first.exists()
        more = f"tcp:unix:{web}:{PORT},mode=666", f"tcp-ns:2375:unix:{docker}"
        box.say("ports", "add", *more, f"tcp:unix:{first}:{PORT}")
        assert web.stat().st_mode & 0o777 == 0o666
        assert guest_serves(it, web) == HOST4
        assert guest_serves(it, first) == HOST4
        assert host_serves(it, docker) == "somebody"
        assert not holds_folders(pid)
        # All or nothing
        (folder / "file").write_text("precious")
        names = "new", "file"
        refused = box.run(
            "ports", "add", *(f"tcp:unix:{folder / name}:{PORT}" for name in names)
        )
        said = f"UNIX socket {folder / 'file'}: it is there, and no socket"
        assert (refused.returncode, said in refused.stderr) == (1, True), refused.stderr
        assert sorted(os.listdir(folder)) == ["file", "first", "web"]
        refused = box.run("ports", "add", f"tcp:unix:/tmp/elsewhere:{PORT}")
        assert "(--unix-folder)" in refused.stderr
        forwards = json.loads(box.say("ports", "--json"))
        ids = {each["socket"]: str(each["id"]) for each in forwards}
        box.say("ports", "remove", ids[str(web)])
        assert sorted(os.listdir(folder)) == ["file", "first"]
        assert gvproxy(box, "expose", local=str(web), remote=f"tcp://:{PORT}") == ""
        assert guest_serves(it, web) == HOST4
        assert gvproxy(box, "unexpose", local=str(web)) == ""
        assert sorted(os.listdir(folder)) == ["file", "first"]
        assert it.process is not None
        it.process.signal(signal.SIGTERM)
        it.process.wait(SOON)
        # Who removes names may do so a little later
        wait_until(lambda: os.listdir(folder) == ["file"], SOON, "a tidy folder")


def test_without_the_lookout_names_are_refused_and_traffic_goes_on(
    folder: Path,
) -> None:
    path, more = folder / "web", folder / "more"
    with asked(folder, "-t", f"unix:{path}:{PORT},mode=666") as (box, it, pid):
        os.kill(family(pid)["lookout"], signal.SIGKILL)
        # Who asks is unknown from now on: gvproxy's socket does not want to know
        told = gvproxy(box, "expose", local=str(more), remote=f"tcp://:{PORT}")
        assert "the process that makes sockets by name has ended" in told
        assert not more.exists()
        assert guest_serves(it, path) == HOST4
