# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's own rootless podman and rootlesskit, unmodified, with our slirp4netns."""

import socket
from collections.abc import Iterator

import pytest

from tests.lab import HOST4, REMOTE4, Lab, TcpServer
from tests.netns.program import wait_for
from tests.netns.rootless import RootlessUser, missing, rootless_user
from tests.netns.rootlesskit import use_rootlesskit

pytestmark = pytest.mark.skipif(
    missing() is not None, reason=f"{missing()} is not installed"
)


@pytest.fixture(scope="module")
def user(lab: Lab) -> Iterator[RootlessUser]:
    with rootless_user(lab) as made:
        made.offer("slirp4netns")
        done = made.do("$P import image.tar t")
        assert done.returncode == 0, done.stdout
        yield made
        made.do("$P rm --all --force --time 0; $P pod rm --all --force")


def test_a_container_has_slirps_network(user: RootlessUser) -> None:
    done = user.do(
        "$P run --rm --cgroups=disabled t "
        "sh -c 'ip addr show tap0; ip route; cat /etc/resolv.conf'"
    )
    assert done.returncode == 0, done.stdout
    for words in (
        "10.0.2.100/24",
        "fd00::100/64",
        "mtu 65520",
        "via 10.0.2.2 dev tap0",
    ):
        assert words in done.stdout
    assert "nameserver 10.0.2.3" in done.stdout
    assert "--netns-type=path" in user.calls.read_text()


def page(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def test_it_reaches_the_outside(lab: Lab, user: RootlessUser) -> None:
    with TcpServer(lab.remote, REMOTE4, page) as server:
        done = user.do(
            "$P run --rm --cgroups=disabled t "
            f"wget -q -O - http://{REMOTE4}:{server.port}/"
        )
    assert done.stdout.endswith("hello"), done.stdout


def test_containers_have_a_network_and_a_port_each(user: RootlessUser) -> None:
    """One has its port by rootlessport, and one by slirp4netns itself."""
    ports = {"rootlesskit": 18081, "slirp4netns": 18082}
    script = [
        f"$R --name {handler} -p {port}:80 "
        f"--network slirp4netns:port_handler={handler} t httpd -f -p 80 -h /www"
        " >/dev/null"
        for handler, port in ports.items()
    ]
    script += [
        f"fetch http://{address}:{port}/"
        for port in ports.values()
        for address in ("127.0.0.1", HOST4)
    ]
    before = user.calls.read_text()
    script.append(f"$P rm -f -t 0 {' '.join(ports)} >/dev/null")
    done = user.do("; ".join(script))
    assert done.stdout == "hello\n" * 4, done.stdout
    calls = user.calls.read_text().removeprefix(before)
    assert calls.count(" tap0\n") == 2
    assert calls.count("--api-socket") == 1


def test_the_hosts_loopback_is_for_who_is_allowed(user: RootlessUser) -> None:
    get = "t wget -q -O - http://10.0.2.2:18083/"
    allowed = "--network slirp4netns:allow_host_loopback=true"
    done = user.do(
        "busybox httpd -f -p 127.0.0.1:18083 -h image/www & "
        "fetch http://127.0.0.1:18083/ >/dev/null; "
        f"$P run --rm --cgroups=disabled {allowed} {get}; echo $?; "
        f"$P run --rm --cgroups=disabled {get}; echo $?; kill $!"
    )
    assert done.stdout.startswith("hello\n0\n"), done.stdout
    assert done.stdout.count("hello") == 1
    assert "\n1\n" in done.stdout


def test_containers_of_a_pod_share_it(user: RootlessUser) -> None:
    get = "until wget -q -O - http://127.0.0.1/ 2>/dev/null; do sleep 0.1; done"
    done = user.do(
        "$P pod create --name p -p 18084:80 --infra-image t --infra-command 'sleep 999'"
        " >/dev/null; $R --pod p t httpd -f -p 80 -h /www >/dev/null;"
        f"$P run --rm --pod p --cgroups=disabled t sh -c '{get}'; "
        "fetch http://127.0.0.1:18084/; $P pod rm -f -t 0 p >/dev/null"
    )
    assert done.stdout == "hello\nhello\n", done.stdout


def test_an_image_is_built_with_it(user: RootlessUser) -> None:
    # Buildah takes slirp4netns for dead that is not ready within a second.
    done = user.do(
        "printf 'FROM t\\nRUN ip addr show tap0\\n' >run/Containerfile; "
        "for i in $(seq 30); do "
        "said=$($P build --isolation=rootless -f run/Containerfile run 2>&1); done=$?; "
        'case $said in *"slirp4netns failed"*) ;; *) break;; esac; done; '
        'echo "$said"; exit $done'
    )
    assert done.returncode == 0, done.stdout
    assert "10.0.2.100/24" in done.stdout


@pytest.mark.parametrize("ports", ["slirp4netns", "builtin"])
def test_rootlesskit(user: RootlessUser, ports: str) -> None:
    said = use_rootlesskit(
        user,
        *("slirp4netns", ports, "busybox ip addr show tap0"),
        *("--slirp4netns-sandbox=true", "--slirp4netns-seccomp=true"),
    )
    assert "inet 10.0.2.100/24" in said
    assert "hello\n" in said


def test_nobody_is_left_behind(user: RootlessUser) -> None:
    user.do("$P rm -a -f -t 0")
    wait_for(lambda: not user.running("tap0"), "all networks end")
