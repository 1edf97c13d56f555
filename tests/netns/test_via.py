# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules that lead through a proxy: Debian's tinyproxy (HTTP), microsocks (SOCKS5)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import REMOTE4, Lab, UdpEcho, tcp_echo, wait_until
from tests.netns.nameserver import NameServer, ask
from tests.netns.policed import ANYBODY, SOON, Policed, policed, policy, tcp_to
from tests.netns.resolvers import etc, with_etc

PORTS = {"socks5": 1080, "http": 3128}
PROGRAMS = ("tinyproxy", "microsocks")
MISSING = next((name for name in PROGRAMS if shutil.which(name) is None), None)
pytestmark = pytest.mark.skipif(
    MISSING is not None and "CI" not in os.environ, reason=f"{MISSING} is not installed"
)
ZONE = (f"echo.example. 300 A {REMOTE4}",)


@contextmanager
def proxy(lab: Lab, scheme: str) -> Iterator[Path]:
    """A real proxy on the host's loopback that wants a password; its log.

    It asks the remote host for names.
    """
    place = lab.dir / "host"
    etc(place, REMOTE4)
    log = lab.dir / f"{scheme}.log"
    if scheme == "socks5":
        words = ["microsocks", "-i", "127.0.0.1", "-p", "1080", "-u", "me", "-P", "pw"]
    else:
        config = lab.dir / "tinyproxy.conf"
        config.write_text(
            "Port 3128\nListen 127.0.0.1\nBasicAuth me pw\nMaxClients 10\n"
            "LogLevel Connect\n"
        )
        words = ["tinyproxy", "-d", "-c", str(config)]
    with log.open("w") as out:
        process = subprocess.Popen(
            lab.host.command(with_etc(place, words)),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            lab.host.wait_bound("tcp", PORTS[scheme])
            yield log
        finally:
            process.terminate()
            process.wait()


def rule(lab: Lab, scheme: str, credentials: str = "me:pw") -> Path:
    (lab.dir / "credentials").write_text(credentials + "\n")
    return policy(
        lab,
        '[[rule]]\nto = ["echo.example", "198.51.100.0/24"]\naction = "allow"\n'
        f'via = "{scheme}://127.0.0.1:{PORTS[scheme]}"\n'
        'via_credentials = "credentials"\n',
    )


@pytest.mark.parametrize("scheme", PORTS)
def test_connections_leave_through_the_proxy(lab: Lab, scheme: str) -> None:
    with (
        NameServer(*ZONE).serving(lab.remote, REMOTE4),
        tcp_echo(lab.remote, REMOTE4, 7001),
        proxy(lab, scheme) as log,
        policed(lab, "--policy", str(rule(lab, scheme)), resolv=(REMOTE4,)) as it,
    ):
        with it.guest.connect(REMOTE4, 7001) as sock:
            # Neither of the two knows what a half-closed connection is
            data, got = b"0123456789" * 2000, b""
            sock.sendall(data)
            while len(got) < len(data):
                piece = sock.recv(1 << 16)
                assert piece
                got += piece
            assert got == data
        assert REMOTE4 in log.read_text()
        # Asked for by its name, it is told to the proxy by its name
        assert ask(it.guest, ANYBODY, "echo.example").answer
        with it.guest.connect(REMOTE4, 7001) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        assert "echo.example" in log.read_text()


@pytest.mark.parametrize("words", [("reload",), ("policy", "reload")])
def test_a_reload_reads_the_password_again(lab: Lab, words: tuple[str, ...]) -> None:
    with (
        tcp_echo(lab.remote, REMOTE4, 7001),
        proxy(lab, "socks5"),
        policed(lab, "--policy", str(rule(lab, "socks5", "me:wrong"))) as it,
    ):
        with pytest.raises(OSError, match=r"refused|route"):
            it.guest.connect(REMOTE4, 7001)
        path = rule(lab, "socks5")
        it.say(*words, *([] if words == ("reload",) else [str(path)]))
        it.guest.connect(REMOTE4, 7001).close()


def _wait_told(it: Policed, reason: str) -> None:
    """Wait until a connection is refused and the log says why."""

    def refused() -> bool:
        assert tcp_to(it.guest, REMOTE4, 7001) == "ConnectionRefusedError"
        return reason in it.log.read_text()

    wait_until(refused, SOON, reason)


@pytest.mark.parametrize("scheme", PORTS)
def test_a_wrong_password_is_refused_and_told(lab: Lab, scheme: str) -> None:
    with (
        tcp_echo(lab.remote, REMOTE4, 7001),
        proxy(lab, scheme),
        policed(lab, "--policy", str(rule(lab, scheme, "me:wrong"))) as it,
    ):
        _wait_told(it, "proxy.failed")


def test_without_the_proxy_nothing_leaves(lab: Lab) -> None:
    with (
        tcp_echo(lab.remote, REMOTE4, 7001),
        policed(lab, "--policy", str(rule(lab, "socks5"))) as it,
    ):
        _wait_told(it, "Connection refused")


def test_what_is_no_tcp_does_not_leave_beside_it(lab: Lab) -> None:
    with (
        UdpEcho(lab.remote, REMOTE4, 7002),
        policed(lab, "--policy", str(rule(lab, "socks5"))) as it,
    ):
        with it.guest.udp("0.0.0.0") as sock:
            sock.connect((REMOTE4, 7002))
            sock.settimeout(2)
            sock.send(b"x")
            with pytest.raises(OSError, match=r"."):
                sock.recv(10)
        it.wait_refused(
            f"{lab.dir}/policy.toml:2: only TCP leaves through its proxy", port=7002
        )
