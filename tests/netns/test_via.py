# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules that lead through a proxy: Debian's tinyproxy (HTTP), microsocks (SOCKS5).

Of SOCKS5 servers in Debian, dante passes on datagrams, and microsocks does not.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import HOST4, REMOTE4, Lab, Namespace, UdpEcho, tcp_echo, wait_until
from tests.lab.process import identify, kill_all, process_tree
from tests.netns.nameserver import NameServer, ask
from tests.netns.policed import ANYBODY, SOON, Policed, policed, policy, tcp_to
from tests.netns.resolvers import etc, with_etc

PORTS = {"socks5": 1080, "http": 3128}
PROGRAMS = ("tinyproxy", "microsocks", "danted")
MISSING = next((name for name in PROGRAMS if shutil.which(name) is None), None)
pytestmark = pytest.mark.skipif(
    MISSING is not None and "CI" not in os.environ, reason=f"{MISSING} is not installed"
)
ELSEWHERE = "198.51.100.9"  # where the proxy finds the name
ZONE = (f"echo.example. 300 A {REMOTE4}",)


DANTE = """
logoutput: stdout
internal: 127.0.0.1 port = 1080
external: {address}
socksmethod: username
clientmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{
  from: 0.0.0.0/0 to: 0.0.0.0/0 log: connect disconnect
  command: connect udpassociate udpreply
}}
"""
# "pw", as /etc/shadow has it
SECRET = "me:{}:19000:0:99999:7:::"


def dante(lab: Lab, place: Path) -> list[str]:
    """Its command; it asks the system for users, and a file of its own for names."""
    with (place / "etc" / "hosts").open("a") as hosts:
        hosts.write(f"{ELSEWHERE} echo.example\n")
    with (place / "etc" / "passwd").open("a") as passwd:
        passwd.write("me:x:1000:1000::/:/bin/sh\n")
    made = subprocess.run(
        ["openssl", "passwd", "-6", "pw"], capture_output=True, text=True, check=True
    )
    (place / "etc" / "shadow").write_text(SECRET.format(made.stdout.strip()) + "\n")
    config = lab.dir / "danted.conf"
    config.write_text(DANTE.format(address=HOST4))
    return ["danted", "-f", str(config), "-p", str(lab.dir / "danted.pid")]


@contextmanager
def proxy(lab: Lab, scheme: str, *, datagrams: bool = False) -> Iterator[Path]:
    """A real proxy on the host's loopback that wants a password; its log.

    It asks the remote host for names.
    """
    place = lab.dir / "host"
    etc(place, REMOTE4)
    log = lab.dir / f"{scheme}.log"
    if datagrams:
        words = dante(lab, place)
    elif scheme == "socks5":
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
            children = identify(process_tree(process.pid))
            process.terminate()
            process.wait()
            kill_all(children)  # who has the port as well


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
        wait_until(lambda: REMOTE4 in log.read_text(), SOON, "a line of the proxy's")
        # Asked for by its name, it is told to the proxy by its name
        assert ask(it.guest, ANYBODY, "echo.example").answer
        with it.guest.connect(REMOTE4, 7001) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        name = "echo.example"
        wait_until(lambda: name in log.read_text(), SOON, "its name is told")


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


def say(guest: Namespace, data: bytes, times: int = 1, patience: float = SOON) -> str:
    """What becomes of a datagram to the remote host: "open" if it is echoed."""
    with guest.udp("0.0.0.0") as sock:
        sock.settimeout(patience)
        sock.connect((REMOTE4, 7002))
        try:
            for _ in range(times):
                sock.send(data)
                assert sock.recv(1 << 16) == data
        except OSError as error:
            return type(error).__name__
    return "open"


def _wait_echoed(guest: Namespace, data: bytes, times: int) -> None:
    """Wait until so many datagrams of one socket are echoed.

    A busy proxy may need more than the two seconds that the first one is kept.
    """

    def echoed() -> bool:
        return say(guest, data, times, patience=4) == "open"

    wait_until(echoed, SOON, "an echo")


def _wait_refused(guest: Namespace) -> None:
    """Wait until a datagram is refused; none may be echoed.

    A busy machine may need more than the two seconds that one is kept.
    """

    def refused() -> bool:
        becomes = say(guest, b"x", patience=4)
        assert becomes != "open"
        return becomes == "ConnectionRefusedError"

    wait_until(refused, SOON, "a refusal")


def test_datagrams_leave_through_the_proxy(lab: Lab) -> None:
    lab.remote.run("ip", "addr", "add", f"{ELSEWHERE}/24", "dev", "wire0")
    with (
        NameServer(*ZONE).serving(lab.remote, REMOTE4),
        UdpEcho(lab.remote, REMOTE4, 7002) as dialled,
        UdpEcho(lab.remote, ELSEWHERE, 7002) as named,
        policed(lab, "--policy", str(rule(lab, "socks5")), resolv=(REMOTE4,)) as it,
    ):
        with proxy(lab, "socks5", datagrams=True) as log:
            _wait_echoed(it.guest, b"x" * 1400, 50)
            who = "udpassociate [: username%me"
            wait_until(lambda: who in log.read_text(), SOON, "a line of the proxy's")
            first = len(dialled.peers)
            assert first >= 50
            assert not named.peers
            # Asked for by its name, it is told to the proxy by its name
            assert ask(it.guest, ANYBODY, "echo.example").answer
            _wait_echoed(it.guest, b"y", 3)
            second = len(named.peers)
            assert (len(dialled.peers), second >= 3) == (first, True)
        # Flows end with the proxy, and nothing leaves beside it
        _wait_refused(it.guest)
        it.wait_log("proxy.failed")
        assert (len(dialled.peers), len(named.peers)) == (first, second)


def test_a_proxy_that_passes_on_no_datagrams_gets_none(lab: Lab) -> None:
    with (
        UdpEcho(lab.remote, REMOTE4, 7002),
        proxy(lab, "socks5"),
        policed(lab, "--policy", str(rule(lab, "socks5"))) as it,
    ):
        _wait_refused(it.guest)
        it.wait_log("command not supported")


def test_a_proxy_of_http_passes_on_tcp_alone(lab: Lab) -> None:
    with (
        UdpEcho(lab.remote, REMOTE4, 7002),
        policed(lab, "--policy", str(rule(lab, "http"))) as it,
    ):
        _wait_refused(it.guest)
        it.wait_refused(
            f"{lab.dir}/policy.toml:2: only TCP leaves through its proxy", port=7002
        )
