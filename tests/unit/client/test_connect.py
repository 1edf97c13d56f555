# SPDX-License-Identifier: GPL-2.0-or-later
"""An answer that the daemon does not end has not come whole, and that is said."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from passtpy.client.cli import run

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
END = b"0\r\n\r\n"
FLOW: dict[str, Any] = {
    "id": 77,
    "type": "tcp",
    "spliced": False,
    "from": "guest",
    "to": "host",
    "src": {"addr": "192.0.2.2", "port": 1},
    "target_dst": {"addr": "192.0.2.1", "port": 80},
    "rule": {"id": 7},
    "bytes": [0, 0],
    "age_ns": 0,
    "idle_ns": 0,
}
LINE = json.dumps(FLOW).encode() + b"\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@contextmanager
def answering(path: Path, said: bytes) -> Iterator[None]:
    """Somebody who takes one request, says `said` to it, and hangs up."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


COMMANDS = [
    ["flows"],
    ["flows", "--json"],
    ["events"],
    ["stats", "--prometheus"],
    ["capture", "-w", "/dev/null"],
    ["close", "tcp"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("cut", [0, len(END), len(END) + 4, 9999])
def test_an_answer_that_ends_early_is_an_error(
    words: list[str], cut: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "socket"
    line = LINE
    if words[0] == "events":
        line = b'{"event": "77"}\n'
    elif words[0] == "close":
        line = b'{"closed": 77}\n'
    body = chunk(line) + END
    with answering(path, HEAD + body[: max(len(body) - cut, 0)]):
        status = run([*words, "-i", str(path)])
    told = capsys.readouterr()
    error = f"passtpy: the answer from {path} ends early\n"
    assert (status, told.err) == ((1, error) if cut else (0, ""))
    if words[0] == "flows" and cut in (0, len(END)):
        assert "77" in told.out  # as far as it came


def test_half_a_line_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "socket"
    with answering(path, HEAD + chunk(LINE) + chunk(LINE[:-1])[:-4]):
        assert run(["flows", "-i", str(path)]) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert told.err.startswith("passtpy: ")
