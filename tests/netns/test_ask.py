# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows that wait until somebody has said whether they may be."""

import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from passtpy.client.approve import QUESTIONS
from passtpy.client.connect import Client
from tests.lab import REMOTE4, Lab, UdpEcho, tcp_echo, wait_until
from tests.netns.nameserver import NameServer, ask
from tests.netns.policed import ANYBODY, SILENCE, Policed, policed, policy, tcp_to
from tests.netns.program import PROGRAM

SOON = 30.0
PARKED_S = 2.0  # how long a datagram waits for an answer
ASKS = f"""\
ask_timeout = 30

[[rule]]
# whatever goes there
to = "{REMOTE4}"
action = "ask"
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made, tcp_echo(made.remote, REMOTE4, 7001):
        yield made


def _patient(it: Policed, port: int = 7001) -> "Future[str]":
    """Connect, with patience, in the background; what becomes of it."""

    def connect() -> str:
        return tcp_to(it.guest, REMOTE4, port)

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(connect)
    finally:
        pool.shutdown(wait=False)


def _question(it: Policed) -> str:
    """The number of the question that is open, once there is one."""

    def numbers() -> list[str]:
        return [
            line.split()[0] for line in it.say("approve", "--list").splitlines()[1:]
        ]

    wait_until(numbers, SOON, "a question")
    (number,) = numbers()
    return number


@pytest.mark.parametrize(
    ("answer", "becomes"), [("allow", "open"), ("deny", "ConnectionRefusedError")]
)
def test_a_flow_waits_for_its_answer(lab: Lab, answer: str, becomes: str) -> None:
    with policed(lab, "--policy", str(policy(lab, ASKS))) as it:
        connection = _patient(it)
        number = _question(it)
        assert not connection.done()
        said = it.say("approve", number, answer)
        assert said == f"tcp {REMOTE4}:7001: {answer}\n"
        assert connection.result(2 * SOON) == becomes
        assert it.say("approve", "--list").count("\n") == 1
        assert it.run("approve", number, answer).returncode == 1


def test_an_answer_for_the_session_is_not_asked_again(lab: Lab) -> None:
    with policed(lab, "--policy", str(policy(lab, ASKS))) as it:
        connection = _patient(it)
        it.say("approve", _question(it), "allow", "--for", "session")
        assert connection.result(2 * SOON) == "open"
        assert tcp_to(it.guest, REMOTE4, 7001) == "open"
        it.say("reload")  # the rule is still there, and so is the answer
        assert tcp_to(it.guest, REMOTE4, 7001) == "open"
        # Another port: it waits
        assert tcp_to(it.guest, REMOTE4, 7002, SILENCE) == "silence"


def test_what_is_approved_for_ever_is_in_the_file(lab: Lab) -> None:
    path = policy(lab, ASKS)
    with policed(lab, "--policy", str(path)) as it:
        connection = _patient(it)
        it.say("approve", _question(it), "allow", "--for", "always")
        assert connection.result(2 * SOON) == "open"
        rules = it.say("policy").splitlines()
        assert [line.split()[2] for line in rules[2:4]] == ["allow", "ask"]
    rule = f'to = ["{REMOTE4}"]\nports = [7001]\nproto = "tcp"\naction = "allow"\n'
    asks = "[[rule]]\n# what"
    text = f"version = 1\n{ASKS}".replace(asks, f"[[rule]]\n{rule}\n{asks}")
    assert path.read_text() == text
    with policed(lab, "--policy", str(path)) as it:
        assert tcp_to(it.guest, REMOTE4, 7001) == "open"


def test_a_datagram_that_is_sent_once_waits_as_well(lab: Lab) -> None:
    with policed(lab, "--policy", str(policy(lab, ASKS))) as it:
        for _ in range(20):  # a busy machine may let the two seconds pass
            with (
                UdpEcho(lab.remote, REMOTE4) as server,  # of which nothing is known yet
                it.guest.new_socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            ):
                sock.connect((REMOTE4, server.port))
                began = time.monotonic()
                sock.send(b"once")
                _allow(it)
                if time.monotonic() - began < PARKED_S:
                    assert sock.recv(10) == b"once"
                    return
        raise AssertionError(f"never answered within {PARKED_S} s")


def _allow(it: Policed) -> None:
    """Answer the question that comes next, without a program in between."""
    client = Client(it.control)
    questions: list[Any] = []
    with it.lab.host.entered():
        while not questions:
            questions = client.ask("GET", QUESTIONS)["questions"]
        path = f"{QUESTIONS}/{questions[0]['question']}"
        client.ask("POST", path, body={"answer": "allow"})


def test_nobody_answers_and_the_default_does(lab: Lab) -> None:
    path = policy(lab, ASKS.replace("30", "1"))
    with policed(lab, "--policy", str(path)) as it:
        assert _patient(it).result(2 * SOON) == "ConnectionRefusedError"


def test_a_new_policy_decides_about_what_waits(lab: Lab) -> None:
    with policed(lab, "--policy", str(policy(lab, ASKS))) as it:
        connection = _patient(it)
        _question(it)
        policy(lab, ASKS.replace('"ask"', '"allow"'))
        it.say("reload")
        assert connection.result(2 * SOON) == "open"
        assert it.say("approve", "--list").count("\n") == 1


def test_a_prompt_asks_and_obeys(lab: Lab) -> None:
    with policed(lab, "--policy", str(policy(lab, ASKS))) as it:
        words = [str(PROGRAM), "approve", "-i", it.control]
        with subprocess.Popen(
            lab.host.command(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as prompt:
            assert prompt.stdin is not None
            prompt.stdin.write("what?\no\n")
            prompt.stdin.flush()
            connection = _patient(it)
            assert prompt.stdout is not None
            said = prompt.stdout.readline() + prompt.stdout.readline()
            assert connection.result(2 * SOON) == "open"
            prompt.terminate()
    assert said.count("[o]nce, [s]ession") == 2
    assert "answer with one letter" in said
    assert said.endswith(f"tcp {REMOTE4}:7001: allow\n")


NAMED = """\
[[rule]]
to = "asked.example"
action = "ask"
"""
NAMES = f"asked.example. 300 A {REMOTE4}", f"other.example. 300 A {REMOTE4}"


def test_on_the_ports_of_the_web_it_is_asked_about_the_name_that_is_said(
    lab: Lab,
) -> None:
    get, page = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n", b"HTTP/1.1 403 Forbidden"
    with (
        NameServer(*NAMES).serving(lab.remote, REMOTE4),
        tcp_echo(lab.remote, REMOTE4, 80),
        policed(lab, "--policy", str(policy(lab, NAMED)), resolv=(REMOTE4,)) as it,
    ):
        assert ask(it.guest, ANYBODY, "asked.example").answer
        with it.guest.connect(REMOTE4, 80) as sock:
            sock.settimeout(SOON)
            sock.sendall(get % b"asked.example")
            assert "tcp asked.example:80 " in it.say(
                "approve", _question(it), "allow", "--for", "session"
            )
            assert sock.recv(1 << 10) == get % b"asked.example"
        for name, answer in ((b"asked.example", b"GET"), (b"other.example", page)):
            with it.guest.connect(REMOTE4, 80) as sock:
                sock.settimeout(SOON)
                sock.sendall(get % name)
                assert sock.recv(1 << 10).startswith(answer)
