# SPDX-License-Identifier: GPL-2.0-or-later
"""Real clients under a policy: what they may have they get, the rest they do not.

Each runs under `passtpy run`. Two names have one address; one of them is allowed. A
client tries it, then the other one, then the address by itself.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import REMOTE4, Lab
from tests.netns.internet import (
    ALLOWED,
    HIDDEN,
    PACKAGE,
    PAGE,
    QUIC_CLIENT,
    environment,
    internet,
)
from tests.netns.program import PROGRAM
from tests.netns.resolvers import etc, with_etc

PATIENCE = 120


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a client, or its server, is not installed."""
    missing = shutil.which(program) is None
    return pytest.mark.skipif(missing, reason=f"{program} is not installed")


pytestmark = [needs("nginx"), needs("git")]


class Net:
    """A host with these servers in its reach."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder

    def run(self, script: str, *options: str) -> tuple[int, str]:
        """Run a shell script under a policy; its status, and all that it said."""
        place = self.lab.dir / "host"
        place.mkdir(exist_ok=True)
        etc(place, REMOTE4)
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        words = options or ("--allow", f"{ALLOWED}:22,80,443")
        argv = [str(PROGRAM), "run", *words, "--", "sh", "-ec"]
        script = f"cd {work}\n{script}"
        done = self.lab.host.run(
            *with_etc(place, [*argv, script]),
            check=False,
            timeout=PATIENCE,
            env=environment(self.folder),
        )
        return done.returncode, done.stdout + done.stderr

    def check(self, command: str, expected: str) -> None:
        """Run a command about a {host}: the allowed has what is expected, no other.

        The address comes before the name that is allowed: that would pin it.
        """
        hosts = HIDDEN, REMOTE4, ALLOWED
        each = "mkdir {0}; (cd {0}; {1}) >{0}.said 2>&1 || touch {0}.failed"
        lines = [each.format(host, command.format(host=host)) for host in hosts]
        status, said = self.run("\n".join(lines))
        assert (status, said) == (0, "")
        work = self.folder / "work"
        for host in hosts:
            said = (work / f"{host}.said").read_text()
            assert (expected in said) == (host == ALLOWED), said
            assert (work / f"{host}.failed").exists() == (host != ALLOWED), said


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Lab() as lab, internet(lab) as folder:
        yield Net(lab, folder)


@needs("curl")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_curl(net: Net, scheme: str) -> None:
    net.check(f"curl -sSf -k {scheme}://{{host}}/", PAGE)


@needs("curl")
def test_curl_speaks_http2(net: Net) -> None:
    status, said = net.run(f"curl -sS -o x -w '%{{http_version}}' https://{ALLOWED}/")
    assert (status, said) == (0, "2")


@needs("curl")
def test_a_redirect_to_an_address_leads_nowhere(net: Net) -> None:
    status, said = net.run(f"curl -sSL https://{ALLOWED}/away")
    assert status == 7, said  # it could not connect


@needs("curl")
def test_a_name_that_is_fronted_is_known_by_its_outer_one(net: Net) -> None:
    """Told in docs/policy.md: what is within a TLS session is not seen."""
    status, said = net.run(f"curl -sS -H 'Host: {HIDDEN}' https://{ALLOWED}/")
    assert (status, said) == (0, PAGE)
    place = f"--connect-to ::{ALLOWED}:"
    status, said = net.run(f"curl -sS -k {place} https://{HIDDEN}/")
    assert status == 35, said
    assert "unrecognized name" in said


def test_git_over_http(net: Net) -> None:
    url = "https://{host}/cgi-bin/git/repo.git"
    net.check(f"git -c http.sslVerify=false clone -q {url} && cat repo/page", PAGE)


@needs("sshd")
def test_ssh(net: Net) -> None:
    net.check(f"{_ssh(net)} root@{{host}} echo it is $((40 + 2))", "it is 42")


@needs("sshd")
def test_git_over_ssh(net: Net) -> None:
    url = f"root@{{host}}:{net.folder}/cgi/repo.git"
    command = f"GIT_SSH_COMMAND='{_ssh(net)}' git clone -q {url} && cat repo/page"
    net.check(command, PAGE)


def _ssh(net: Net) -> str:
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    words = [f"-o {each}" for each in (*options, "BatchMode=yes", "LogLevel=ERROR")]
    return f"ssh -F none -i {net.folder}/client_key {' '.join(words)}"


def test_pip(net: Net) -> None:
    net.check(
        f"{sys.executable} -m pip --isolated --retries 0 download --no-deps -q "
        f"--no-cache-dir --disable-pip-version-check --trusted-host {{host}} "
        f"-i https://{{host}}/simple {PACKAGE} && ls",
        "lab_package-1.0-py3-none-any.whl",
    )


@needs("apt-get")
def test_apt(net: Net) -> None:
    words = (
        "-o Dir=$PWD -o Dir::Etc::sourcelist=$PWD/list -o Dir::State::status=/dev/null "
        "-o APT::Sandbox::User=root -o Acquire::Retries=0 "
        "-o Dir::Bin::methods=/usr/lib/apt/methods "
        "-o Acquire::https::Verify-Peer=false -o Acquire::https::Verify-Host=false "
        "-o Acquire::Languages=none -o APT::Update::Error-Mode=any"
    )
    net.check(
        "mkdir -p var/lib/apt/lists/partial var/cache/apt/archives/partial etc/apt && "
        "echo 'deb [trusted=yes] https://{host}/apt ./' >list && "
        f"apt-get {words} -qq update && apt-get {words} -qq download {PACKAGE} && ls",
        f"{PACKAGE}_1.0_all.deb",
    )


@needs("npm")
def test_npm(net: Net) -> None:
    words = "--no-audit --no-fund --fetch-retries=0 --strict-ssl=false --cache=$PWD/c"
    net.check(
        f"npm install {words} --registry=https://{{host}}/npm/ {PACKAGE} && "
        "ls node_modules",
        f"\n{PACKAGE}\n",
    )


PROBE = """
import socket, sys
with socket.socket(type=socket.SOCK_DGRAM) as sock:
    sock.connect((sys.argv[1], 443))
    sock.send(b"x")
    sock.recv(1)
"""


def test_http3_is_refused_unless_a_rule_lets_it_pass(net: Net) -> None:
    script = f"{sys.executable} - {ALLOWED} {net.folder}/ca <<'END'\n{{}}\nEND\n"
    status, said = net.run(script.format(PROBE))
    assert status == 1
    assert "ConnectionRefusedError" in said
    policy = net.folder / "policy.toml"
    rule = f'to = "{ALLOWED}"\nquic = "pin"\naction = "allow"\n'
    policy.write_text(f"version = 1\n[[rule]]\n{rule}")
    done = net.run(script.format(QUIC_CLIENT), "--policy", str(policy))
    assert done == (0, "over quic\n")
