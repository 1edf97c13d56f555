# SPDX-License-Identifier: GPL-2.0-or-later
"""`passtpy run`: a command, a network, and what is allowed of it."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab import GATEWAY4, REMOTE4, REMOTE6, Lab, tcp_echo
from tests.netns.nameserver import NameServer
from tests.netns.program import PROGRAM, Who, command_line
from tests.netns.resolvers import etc, with_etc

ZONE = (
    f"allowed.example. 300 A {REMOTE4}",
    f"allowed.example. 300 AAAA {REMOTE6}",
    f"other.example. 300 A {GATEWAY4}",
)
CONNECT = """
import errno, socket, sys, time
def tried(host, port):
    for _ in range(9):
        began = time.monotonic()
        try:
            socket.create_connection((host, port), 50).close()
            return "open"
        except OSError as error:
            became, late = type(error).__name__, error.errno == errno.EHOSTUNREACH
        if not late or time.monotonic() < began + 1.5:
            break  # else a busy machine has not decided in time
    return became
for name in sys.argv[1:]:
    host, _, port = name.rpartition(":")
    print(tried(host, int(port)), name)
"""
BOTH = pytest.mark.parametrize("who", ["root", "user"])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made, NameServer(*ZONE).serving(made.remote, REMOTE4):
        yield made


def _run(
    lab: Lab, *words: str, who: Who = "root", prepare: str = ":"
) -> subprocess.CompletedProcess[str]:
    """Run it on a host whose resolver knows ZONE."""
    place = lab.dir / "host"
    place.mkdir(exist_ok=True)
    etc(place, REMOTE4)
    argv = command_line(who, str(PROGRAM), "run", *words)
    return lab.host.run(*with_etc(place, argv, prepare), check=False)


def _tries(lab: Lab, *words: str, who: Who = "root") -> list[str]:
    """What becomes of connections to `NAME:PORT`s, which follow the `--`."""
    at = words.index("--")
    script = [sys.executable, "-c", CONNECT]
    done = _run(lab, *words[:at], "--", *script, *words[at + 1 :], who=who)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split()[0] for line in done.stdout.splitlines()]


@BOTH
def test_a_command_reaches_what_is_allowed_by_name(lab: Lab, who: Who) -> None:
    targets = ("allowed.example:7001", "other.example:7001", f"{GATEWAY4}:7001")
    with (
        tcp_echo(lab.remote, REMOTE4, 7001),
        tcp_echo(lab.remote, REMOTE6, 7001),
        tcp_echo(lab.remote, GATEWAY4, 7001),
    ):
        said = _tries(lab, "--allow", "allowed.example", "--", *targets, who=who)
    assert said == ["open", "gaierror", "ConnectionRefusedError"]


def test_without_a_rule_the_internet_is_allowed_and_the_host_is_not(lab: Lab) -> None:
    targets = ("other.example:53", f"{GATEWAY4}:7003", "127.0.0.1:7003")
    with (
        tcp_echo(lab.host, "127.0.0.1", 7003),
        tcp_echo(lab.remote, REMOTE4, 7001),
    ):
        said = _tries(lab, "--", f"{REMOTE4}:7001", *targets[1:])
    assert said == ["open", "ConnectionRefusedError", "ConnectionRefusedError"]


def test_the_command_asks_us_and_the_host_keeps_its_resolver(lab: Lab) -> None:
    done = _run(lab, "--", "cat", "/etc/resolv.conf")
    assert done.stdout.startswith(f"nameserver {GATEWAY4}\n")
    assert (lab.dir / "host/etc/resolv.conf").read_text() == f"nameserver {REMOTE4}\n"


def test_a_resolv_conf_that_is_a_link_of_systemd_is_replaced_as_well(lab: Lab) -> None:
    """Where it leads to is put aside: through the sockets there the host answers."""
    prepare = (
        "mount -t tmpfs run /run && mkdir -p /run/systemd/resolve"
        " && echo nameserver 127.0.0.53 > /run/systemd/resolve/stub-resolv.conf"
        " && mkfifo /run/systemd/resolve/io.systemd.Resolve"
        " && ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf"
    )
    script = "cat /etc/resolv.conf; ls /run/systemd/resolve"
    done = _run(lab, "--", "sh", "-c", script, prepare=prepare)
    assert done.stdout.startswith(f"nameserver {GATEWAY4}\n")
    assert done.stdout.endswith("\nstub-resolv.conf\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "a command is needed"),
        (("12345",), "it runs a command"),
        (("--allow", "a b", "--", "true"), "--allow: 'a b': expected a name"),
        (("--policy", "/nonexistent", "--", "true"), "/nonexistent: No such file"),
    ],
)
def test_what_is_wrong_is_one_line(
    lab: Lab, words: tuple[str, ...], message: str
) -> None:
    done = _run(lab, *words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"passtpy run: {message}")
    assert done.stderr.count("\n") == 1


def test_what_is_learnt_from_a_run_allows_the_next_one(lab: Lab) -> None:
    path = lab.dir / "learnt.toml"
    targets = ("allowed.example:7001", f"{GATEWAY4}:7003")
    with (
        tcp_echo(lab.remote, REMOTE4, 7001),
        tcp_echo(lab.remote, REMOTE6, 7001),
        tcp_echo(lab.host, "127.0.0.1", 7003),
    ):
        script = [sys.executable, "-c", CONNECT, *targets]
        done = _run(lab, "--learn", str(path), "--", *script)
        assert done.stdout.split()[::2] == ["open", "open"]
        assert 'to = ["allowed.example"]' in path.read_text()
        assert _tries(lab, "--policy", str(path), "--", *targets) == ["open", "open"]
        more = ("allowed.example:7002", "other.example:7001")
        said = _tries(lab, "--policy", str(path), "--", *more)
        assert said == ["ConnectionRefusedError", "gaierror"]
