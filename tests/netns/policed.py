# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest under an egress policy, and what becomes of what it tries."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import REMOTE4, Attached, Lab, Namespace, wait_until
from tests.lab.namespace import family_of
from tests.netns.program import Commands
from tests.netns.resolvers import serving

SOON = 30.0
SILENCE = 1.5  # how long to listen to what should say nothing
ANYBODY = "203.0.113.99"  # nobody: whom the guest asks for names does not matter
NONE = ("-t", "none", "-u", "none", "-T", "none", "-U", "none")


def only_port(port: int) -> str:
    """A policy by which nothing is reached but a TCP or UDP port of the remote."""
    return f"""\
version = 1
[[rule]]
to = "{REMOTE4}"
ports = {port}
action = "allow"
"""


class Policed(Commands):
    """A guest under a policy, and who asks its daemon."""

    def __init__(self, it: Attached, control: Path, log: Path, audit: Path) -> None:
        super().__init__(it.lab, control)
        self.it, self.guest = it, it.guest
        self.log, self.audit = log, audit

    def counters(self) -> dict[str, int]:
        counters = json.loads(self.say("stats", "--json"))
        assert isinstance(counters, dict)
        return counters

    def wait_log(self, text: str) -> None:
        wait_until(lambda: text in self.log.read_text(), SOON, text)

    def records(self) -> list[dict[str, object]]:
        """What the audit says so far; the last line may be half written."""
        lines = self.audit.read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines]

    def wait_refused(self, reason: str, **fields: object) -> None:
        """Wait for an audit line that gives this reason, and says these fields."""

        def found() -> bool:
            return any(
                each.get("reason") == reason
                and all(each.get(name) == value for name, value in fields.items())
                for each in self.records()
            )

        wait_until(found, SOON, f"a refusal: {reason} {fields}")


@contextmanager
def policed(lab: Lab, *extra: str, resolv: tuple[str, ...] = ()) -> Iterator[Policed]:
    """A guest with these options, on a host with these resolvers."""
    control, log, audit = (lab.dir / name for name in ("control", "log", "audit"))
    for old in (control, log, audit):
        old.unlink(missing_ok=True)
    words = ("--control", str(control), "-l", str(log), "--audit", str(audit))
    with serving(lab, *NONE, *words, *extra, resolv=resolv) as attached:
        wait_until(control.exists, SOON, "control socket")
        yield Policed(attached, control, log, audit)


def policy(lab: Lab, text: str) -> Path:
    """Write a policy, over the one before; its file."""
    path = lab.dir / "policy.toml"
    path.write_text(f"version = 1\n{text}")
    return path


def tcp_to(guest: Namespace, address: str, port: int, patience: float = SOON) -> str:
    """What becomes of a connection: "open", or how it is refused."""

    def attempt(sock: socket.socket) -> None:
        sock.connect((address, port))

    return _becomes(guest, address, socket.SOCK_STREAM, patience, attempt)


def udp_to(guest: Namespace, address: str, port: int, patience: float = SOON) -> str:
    """What becomes of a datagram: "open" if it is answered."""

    def attempt(sock: socket.socket) -> None:
        sock.connect((address, port))
        sock.send(b"x")
        sock.recv(10)

    return _becomes(guest, address, socket.SOCK_DGRAM, patience, attempt)


def _becomes(
    guest: Namespace,
    address: str,
    kind: socket.SocketKind,
    patience: float,
    attempt: Callable[[socket.socket], None],
) -> str:
    """What becomes of an attempt."""
    with guest.new_socket(family_of(address), kind) as sock:
        sock.settimeout(patience)
        try:
            attempt(sock)
        except TimeoutError:
            return "silence"
        except OSError as error:
            return type(error).__name__
    return "open"
