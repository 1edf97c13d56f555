# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's own rootless podman and rootlesskit, unmodified, with our slirp4netns."""

import threading
from collections.abc import Iterator

import pytest

from tests.lab import HOST4, REMOTE4, Lab
from tests.netns.rootless import RootlessUser, missing, rootless_user

pytestmark = pytest.mark.skipif(
    missing() is not None, reason=f"{missing()} is not installed"
)
WAIT = (
    "for i in 1 2 3 4 5 6 7 8 9 10; do busybox wget -q -O - {} && break; sleep 1; done"
)


@pytest.fixture(scope="module")
def user(lab: Lab) -> Iterator[RootlessUser]:
    with rootless_user(lab) as made:
        done = made.do("$P import image.tar t")
        assert done.returncode == 0, done.stdout
        yield made


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


def test_it_reaches_the_outside(lab: Lab, user: RootlessUser) -> None:
    page = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with lab.remote.listen(REMOTE4, 8000) as server:

        def serve() -> None:
            with server.accept()[0] as sock:
                sock.recv(4096)
                sock.sendall(page)

        thread = threading.Thread(target=serve)
        thread.start()
        done = user.do(
            f"$P run --rm --cgroups=disabled t wget -q -O - http://{REMOTE4}:8000/"
        )
        assert done.stdout.endswith("hello"), done.stdout
        thread.join()


@pytest.mark.parametrize("handler", ["rootlesskit", "slirp4netns"])
def test_a_port_is_published(user: RootlessUser, handler: str) -> None:
    done = user.do(
        f"$R --name {handler} -p 18081:80 "
        f"--network slirp4netns:port_handler={handler} t httpd -f -p 80 -h /www"
        f" >/dev/null; {WAIT.format('http://127.0.0.1:18081/')}"
        f"; {WAIT.format(f'http://{HOST4}:18081/')}; $P rm -f -t 0 {handler} >/dev/null"
    )
    assert done.stdout == "hello\nhello\n", done.stdout
    assert ("--api-socket" in user.calls.read_text()) == (handler == "slirp4netns")


def test_the_hosts_loopback_is_for_who_is_allowed(user: RootlessUser) -> None:
    get = "t wget -q -O - http://10.0.2.2:18083/"
    allowed = "--network slirp4netns:allow_host_loopback=true"
    done = user.do(
        "busybox httpd -f -p 127.0.0.1:18083 -h image/www & sleep 0.5; "
        f"$P run --rm --cgroups=disabled {allowed} {get}; echo $?; "
        f"$P run --rm --cgroups=disabled {get}; echo $?; kill $!"
    )
    assert done.stdout.startswith("hello\n0\n"), done.stdout
    assert done.stdout.count("hello") == 1
    assert "\n1\n" in done.stdout


def test_containers_of_a_pod_share_it(user: RootlessUser) -> None:
    done = user.do(
        "$P pod create --name p -p 18084:80 --infra-image t --infra-command 'sleep 99'"
        " >/dev/null; $R --pod p t httpd -f -p 80 -h /www >/dev/null;"
        "$P run --rm --pod p --cgroups=disabled t wget -q -O - http://127.0.0.1/; "
        f"{WAIT.format('http://127.0.0.1:18084/')}; $P pod rm -f -t 0 p >/dev/null"
    )
    assert done.stdout == "hello\nhello\n", done.stdout


def test_an_image_is_built_with_it(user: RootlessUser) -> None:
    # Buildah takes slirp4netns for dead that is not ready within a second.
    done = user.do(
        "printf 'FROM t\\nRUN ip addr show tap0\\n' >run/Containerfile; "
        "for i in 1 2 3 4 5 6 7 8; do "
        "said=$($P build --isolation=rootless -f run/Containerfile run 2>&1); done=$?; "
        'case $said in *"slirp4netns failed"*) ;; *) break;; esac; done; '
        'echo "$said"; exit $done'
    )
    assert done.returncode == 0, done.stdout
    assert "10.0.2.100/24" in done.stdout


@pytest.mark.parametrize("driver", ["slirp4netns", "builtin"])
def test_rootlesskit(user: RootlessUser, driver: str) -> None:
    inside = "busybox ip addr show tap0; timeout 5 busybox httpd -f -p 80 -h image/www"
    done = user.do(
        f"rootlesskit --net=slirp4netns --copy-up=/etc --port-driver={driver} "
        "--publish 127.0.0.1:18085:80/tcp --disable-host-loopback "
        f"--slirp4netns-sandbox=true --slirp4netns-seccomp=true sh -c '{inside}' & "
        f"sleep 1; {WAIT.format('http://127.0.0.1:18085/')}; wait"
    )
    assert "inet 10.0.2.100/24" in done.stdout, done.stdout
    assert "hello\n" in done.stdout


def test_nobody_is_left_behind(user: RootlessUser) -> None:
    done = user.do("$P rm -a -f -t 0; sleep 1; ps -u $(id -u) -o args=")
    assert "tap0" not in done.stdout
