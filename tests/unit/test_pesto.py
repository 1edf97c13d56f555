# SPDX-License-Identifier: GPL-2.0-or-later
"""The program passtpy-pesto against a daemon made of a socket and canned bytes."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from passtpy.config.portrule import Able, PortTable, Side
from passtpy.config.rawrule import SIDES, from_raw
from passtpy.control.pesto import greeting
from passtpy.pesto import PestoError, main, run
from passtpy.wire.pesto import UpdateReader
from tests.unit.control.fakes import rule

EPHEMERAL = (32768, 60999)
PASTA = Able(63)


class Daemon:
    """Greets one client, keeps what it sends, answers `reply`."""

    def __init__(self, path: Path, tables: tuple[PortTable, ...]) -> None:
        self.path = str(path)
        self.tables = tables
        self.reply = b""
        self.greeting = greeting(tables)
        self.got: dict[Side, list[str]] | None = None
        self.raw = b""
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(self.path)
        self._sock.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._sock.accept()
        reader = UpdateReader(frozenset(SIDES))
        with sock:
            sock.sendall(self.greeting)
            while reader.tables is None and (data := sock.recv(4096)):
                reader.feed(data)
                self.raw += data
            if reader.tables is not None:
                self.got = {
                    SIDES[number]: [str(from_raw(raw)) for raw in raws]
                    for number, raws in reader.tables
                }
                sock.sendall(self.reply)

    def finish(self) -> None:
        with socket.socket(socket.AF_UNIX) as poke:  # in case nobody came
            poke.connect(self.path)
        self._thread.join()
        self._sock.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    host = PortTable(
        Side.HOST, PASTA, (rule(22), rule(80, delta=1), rule(53, proto=17))
    )
    splice = PortTable(Side.SPLICE, PASTA, (rule(5432, ifname="lo"),))
    it = Daemon(tmp_path / "sock", (host, splice))
    yield it
    it.finish()


def pesto(daemon: Daemon, line: str) -> int:
    return run([*line.split(), daemon.path], EPHEMERAL)


def test_it_shows_what_there_is(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pesto(daemon, "") == 0
    assert capsys.readouterr().out == (
        f"passt/pasta configuration ({daemon.path})\n"
        "  HOST\n    TCP [*]:22  =>  22 \n    TCP [*]:80  =>  81 \n"
        "    UDP [*]:53  =>  53 \n  SPLICE\n    TCP [*]%lo:5432  =>  5432 \n"
    )
    assert daemon.got is None


@pytest.mark.parametrize("words", ["-t 81,proxy=v1", "-t unix:/x:80", "-T 1:unix:/x"])
def test_what_the_protocol_cannot_tell_is_refused(daemon: Daemon, words: str) -> None:
    with pytest.raises(PestoError, match=f"cannot tell {words}: use passtpy"):
        pesto(daemon, f"-A {words}")
    assert daemon.got is None


@pytest.mark.parametrize(
    ("line", "host", "splice"),
    [
        ("-t 8080:80", ["TCP 8080", "UDP 53"], ["TCP 5432"]),
        ("-t 8080:80 -t 81", ["TCP 81", "TCP 8080", "UDP 53"], ["TCP 5432"]),
        ("-u none", ["TCP 22", "TCP 80"], ["TCP 5432"]),
        ("-A -t 81", ["TCP 22", "TCP 80", "TCP 81", "UDP 53"], ["TCP 5432"]),
        ("--add --tcp-ports=0.0.0.0/81:9", ["TCP 22", "TCP 80", "TCP 81", "UDP 53"],
         ["TCP 5432"]),
        ("-D -t 22", ["TCP 80", "UDP 53"], ["TCP 5432"]),
        ("-D -t 80:81 -A -t 80", ["TCP 22", "TCP 80", "UDP 53"], ["TCP 5432"]),
        ("-C HOST", [], ["TCP 5432"]),
        ("-C HOST -t 81", ["TCP 81"], ["TCP 5432"]),
        ("-T 90", ["TCP 22", "TCP 80", "UDP 53"], ["TCP 90"]),
        ("-D -T 5432", ["TCP 22", "TCP 80", "UDP 53"], []),
    ],
)  # fmt: skip
def test_commands_apply_in_order(
    daemon: Daemon, line: str, host: list[str], splice: list[str]
) -> None:
    assert pesto(daemon, line) == 0
    assert daemon.got is not None

    def brief(side: Side) -> list[str]:
        lines = (daemon.got or {})[side]
        return sorted(f"{t[:3]} {t.split(':')[1].split()[0]}" for t in lines)

    assert brief(Side.HOST) == sorted(host)
    assert brief(Side.SPLICE) == splice


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-D -t 9", "Couldn't find forwarding rule to delete: TCP [*]:9"),
        ("-D -t 80", "Specifier TCP [*]:80  =>  80  conflicts with rule TCP [*]:80"),
        ("-A -t 22", "Forwarding configuration conflict"),
        ("-A -t 9,x", "Invalid port specifier '9,x'"),
        ("-C TAP", "Unsupported pif name TAP"),
    ],
)
def test_after_an_error_nothing_is_sent(
    daemon: Daemon, line: str, message: str
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - main() knows each kind
        pesto(daemon, line)
    assert str(caught.value).startswith(message)
    assert daemon.got is None


def test_what_the_daemon_refuses_is_an_error(daemon: Daemon) -> None:
    daemon.reply = b"Listen failed for HOST TCP port */81: Address already in use\n"
    with pytest.raises(PestoError, match="Address already in use"):
        pesto(daemon, "-A -t 81")


def test_a_change_may_be_shown(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pesto(daemon, "-s -C HOST") == 0
    said = capsys.readouterr().out
    assert said.index("Previous configuration") < said.index("Updated configuration")


def test_the_path_may_stand_anywhere(daemon: Daemon) -> None:
    assert run([daemon.path, "-A", "-t", "81"], EPHEMERAL) == 0
    assert daemon.got is not None


def test_passt_has_no_namespace(tmp_path: Path) -> None:
    it = Daemon(tmp_path / "sock", (PortTable(Side.HOST, Able(0x2F)),))
    try:
        with pytest.raises(PestoError, match="Can't use -T, no outbound interface"):
            pesto(it, "-T 80")
    finally:
        it.finish()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "exactly one path is needed"),
        (["a", "b"], "exactly one path is needed"),
        (["x" * 200], 'Invalid socket path "x'),
        (["/nowhere/at/all"], "Failed to connect to /nowhere/at/all: No such file"),
    ],
)
def test_a_path_is_needed(words: list[str], message: str) -> None:
    with pytest.raises(PestoError) as caught:
        run(words, EPHEMERAL)
    assert str(caught.value).startswith(message)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], EPHEMERAL) == 0
    assert capsys.readouterr().out.startswith("pesto ")


RULE = (  # -t 127.0.0.1%lo/8080-8081:8180-8181
    "00000000000000000000ffff7f000001 00000000000000000000000000000000"
    "6c6f0000000000000000000000000000 1f90 1f91 1ff4 06 00"
)
TARGET = (  # -u [::]/53:fd57:89::5/54
    "00000000000000000000000000000000 fd570089000000000000000000000005"
    "00000000000000000000000000000000 0035 0035 0036 11 00"
)


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("-C HOST -C SPLICE", "01 00000000 03 00000000 00"),
        (
            "-C HOST -C SPLICE -t 127.0.0.1%lo/8080-8081:8180-8181",
            f"01 00000001 {RULE} 03 00000000 00",
        ),
        (
            (
                "-C SPLICE -C HOST -A -t 127.0.0.1%lo/8080-8081:8180-8181"
                " --udp-ports [::]/53:fd57:89::5/54"
            ),
            f"01 00000002 {RULE} {TARGET} 03 00000000 00",
        ),
    ],
)
def test_what_is_sent_byte_by_byte(daemon: Daemon, line: str, sent: str) -> None:
    assert pesto(daemon, line) == 0
    assert daemon.raw == bytes.fromhex(sent)


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (b"", "Error reading from control socket"),
        (bytes.fromhex("626173696c3a7300 00000002"), "Error reading from control"),
        (
            bytes.fromhex("626173696c3a7300 00000002 00000080 00000010 01")
            + bytes(128)
            + bytes.fromhex("0000003f 00000100"),
            "Too many forwarding rules",
        ),
    ],
)
def test_a_daemon_that_says_something_else(
    tmp_path: Path,
    greeting: bytes,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        assert main([path]) == 1
        thread.join()
    assert capsys.readouterr().err.startswith(message)
