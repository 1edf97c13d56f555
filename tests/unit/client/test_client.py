# SPDX-License-Identifier: GPL-2.0-or-later
"""What people's commands print, and what they take."""

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from passtpy.__main__ import COMMANDS as KNOWN
from passtpy.__main__ import USAGE
from passtpy.client import commands
from passtpy.client.capture import _print
from passtpy.client.cli import NAMES, run
from passtpy.client.commands import COMMANDS
from passtpy.client.completion import SHELLS, completion
from passtpy.client.connect import refusal
from passtpy.client.programs import programs
from passtpy.client.show import count, duration, endpoint, size, table
from passtpy.client.top import Look, rates, view


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0kB"),
        (12_345, "12.3kB"),
        (999_499, "999kB"),
        (999_999, "1.0MB"),
        (5e9, "5.0GB"),
        (7e18, "7000PB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.34, "0.3s"),
        (42, "42s"),
        (310, "5m10s"),
        (3 * 3600 + 300, "3h05m"),
        (2 * 86400 + 4 * 3600, "2d04h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(int(seconds * 1e9)) == text


@pytest.mark.parametrize(
    ("addr", "port", "text"),
    [
        ("192.0.2.1", 80, "192.0.2.1:80"),
        ("2001:db8::1", 80, "[2001:db8::1]:80"),
        (None, 0, "*"),
        (None, 80, "*:80"),
    ],
)
def test_endpoints(addr: str | None, port: int, text: str) -> None:
    assert endpoint({"addr": addr, "port": port}) == text


def test_tables_are_aligned_and_cut() -> None:
    lines = table(("A", "LONG"), [("xyz", "1"), ("q", "22")], 7)
    assert lines == ["A    LO", "xyz  1", "q    22"]


def test_the_widest_columns_of_a_table_give_way() -> None:
    row = ("1", "a long explanation", "another one as long")
    lines = table(("#", "WHAT", "WHY"), [row], 25)
    assert lines == ["#  WHAT        WHY", "1  a long ex…  another o…"]
    assert table(("#", "WHAT", "WHY"), [row], None)[1] == "  ".join(row)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("turns", 12_345, "12345"),
        ("tap_rx_bytes", 12_345, "12.3kB"),
        ("turn_ns_max", 2_764_511, "2.8ms"),
    ],
)
def test_counters_are_shown_in_their_units(name: str, value: int, text: str) -> None:
    assert count(name, value) == text


def flow(number: int, sent: int, got: int, age_s: float = 60) -> dict[str, Any]:
    end = {"addr": "198.51.100.1", "port": 443}
    return {
        "id": number,
        "type": "tcp",
        "from": "guest",
        "src": {"addr": "192.0.2.2", "port": 1000 + number},
        "target_dst": end,
        "rule": {"id": 7},
        "bytes": [sent, got],
        "age_ns": int(age_s * 1e9),
    }


def look(at: float, *flows: dict[str, Any]) -> Look:
    about = {"name": "box", "program": "pasta", "pid": 5, "uptime_s": 9}
    counters = {"flows": len(flows), "turns": int(at * 100)}
    return Look(at, {f["id"]: f for f in flows}, counters, about | {"cpu_s": at / 2})


def test_rates_are_differences() -> None:
    before = look(10, flow(1, 0, 100), flow(2, 0, 0))
    now = look(12, flow(1, 0, 2100), flow(3, 4000, 0, age_s=1), flow(4, 9999, 0))
    moved = rates(before, now)
    assert moved.got[1] == 1000
    assert moved.sent[3] == 2000  # it is new
    assert 4 not in moved.sent  # was idle before: nobody knows since when it sent
    assert moved.cpu == pytest.approx(50)
    assert moved.rules == {"7": 3000}
    assert moved.peers == {"198.51.100.1": 3000}
    lines = view(now, moved, 24, 80)
    assert lines[0].startswith("box  pasta 5  up 9.0s  flows 3  cpu 50%  turns 100/s")
    assert [line.split()[0] for line in lines[4:]] == ["3", "1", "4"]
    assert max(map(len, lines)) <= 80


def test_the_program_knows_its_commands_without_importing_them() -> None:
    assert KNOWN == NAMES
    assert {command.name for command in COMMANDS} == set(NAMES)


def test_usage_names_every_command() -> None:
    told = re.split(r"\W+", USAGE.partition("\n\n")[0])
    assert set(NAMES) - set(told) == set()


@pytest.mark.parametrize("name", NAMES)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run([name, "--help"])
    assert caught.value.code == 0
    assert f"passtpy {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["ports", "add"], "passtpy: add what?"),
        (["ports", "remove", "-i", "/nowhere", "7", "x"], "passtpy: x is no id"),
        (["ports", "list", "8080"], "passtpy: list takes no 8080"),
        (["explain", "192.0.2.1:80", "--", "slirp"], "passtpy: behind -- stands"),
        (["explain", "nothing", "--", "pasta"], "passtpy: 'nothing' has no port"),
        (["log", "--for", "5"], "passtpy: --for needs a level"),
        (["top", "-d", "-1"], "invalid delay value: '-1'"),
        (["top", "-d", "nan"], "invalid delay value: 'nan'"),
        (["top", "-d", "inf"], "invalid delay value: 'inf'"),
        (["rules", "-x"], "passtpy rules: error: unrecognized arguments: -x"),
    ],
)
def test_wrong_use_is_status_2(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = run(words)
    except SystemExit as end:  # argparse's way
        status = end.code
    assert status == 2
    assert reason in capsys.readouterr().err


def test_a_long_filter_of_a_capture_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("passtpy.client.capture.width", lambda: 80)
    told = {"id": 1, "age_ns": 0, "side": "both", "packets": 0, "bytes": 0}
    told |= {"dropped": {"tap": 0}, "filter": "tcp or " * 50 + "udp"}
    _print([told], as_json=False)
    assert max(map(len, capsys.readouterr().out.splitlines())) == 80


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b'{"error": {"code": "bad_request", "message": "no filter"}}', 2),
        (b'{"error": {"code": "conflict", "message": "taken"}}', 1),
        (b"nonsense", 1),
    ],
)
def test_what_the_daemon_refuses_decides_the_status(answer: bytes, status: int) -> None:
    assert refusal(answer).status == status


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_name_every_command(shell: str) -> None:
    script = completion(shell, COMMANDS, programs())
    assert all(name in script for name in NAMES)


class Growing:
    """A daemon in which more has happened each time that it is asked."""

    def __init__(self, path: str) -> None:
        self.looks = 0
        assert path == "/at/its/path"

    def ask(self, method: str, path: str) -> Any:
        self.looks += 1
        assert method == "GET"
        if path == "/v1/stats":
            return {"counters": {"turns": 500 + self.looks}}
        assert path == "/v1/rules"
        words = {"match": "all", "outcome": "forward", "name": "", "why": "default"}
        return {"rules": [{"number": 1, "id": 7, "hits": 500 + self.looks} | words]}

    def lines(self, method: str, path: str, query: Any) -> list[Any]:
        self.looks += 1
        assert (method, path, query["filter"]) == ("GET", "/v1/flows", "tcp")
        now = {"to": "host", "spliced": False, "idle_ns": 0}
        return [flow(500 + self.looks, 0, 0) | now]

    def text(self, path: str) -> str:
        self.looks += 1
        assert path == "/metrics"
        return f"passtpy_turns_total {500 + self.looks}\n"


class Enough(Exception):
    """Ends a command that has no end."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Ask Growing, and go on twice without waiting; what was waited for."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            raise Enough

    monkeypatch.setattr(commands, "Client", Growing)
    monkeypatch.setattr("time.sleep", sleep)
    return waited


LOOKING = [
    ["flows", "tcp"],
    ["flows", "--json", "tcp"],
    ["rules"],
    ["rules", "--json"],
    ["stats"],
    ["stats", "--json"],
    ["stats", "--prometheus"],
]


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
@pytest.mark.parametrize("option", ["-w", "--follow"])
def test_who_follows_sees_what_has_changed_each_second(
    words: list[str],
    option: str,
    pauses: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Enough):
        run([*words, option, "-i", "/at/its/path"])
    assert pauses == [1.0] * 3
    seen = capsys.readouterr().out
    assert re.findall(r"\b50\d\b", seen) == ["501", "502", "503"]
    assert "\x1b" not in seen  # it is no terminal


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_who_does_not_follow_looks_once(
    words: list[str], pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "-i", "/at/its/path"]) == 0
    assert pauses == []
    assert re.findall(r"\b50\d\b", capsys.readouterr().out) == ["501"]


def test_each_look_begins_a_terminal_anew(
    pauses: list[float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(Enough):
        run(["stats", "-w", "-i", "/at/its/path"])
    first, *looks = capsys.readouterr().out.split("\x1b[H\x1b[2J")
    assert first == ""
    assert [look.split()[-1] for look in looks] == ["501", "502", "503"]
    assert len(pauses) == 3


# For each shell: how it is asked what may follow the words of $LINE; zsh has its own
# means in a terminal only, so that what the script tells them is printed instead.
ASKED = {
    "bash": """
COMP_WORDS=($LINE); COMP_CWORD=$((${#COMP_WORDS[@]}-1))
_passtpy; printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
compadd() { shift; print -rl -- ${(M)@:#$words[CURRENT]*} }
_files() { print -rl -- $words[CURRENT]*(N) }
_describe() { compadd -- ${commands%%:*} }
words=(${=LINE}) CURRENT=${#words}
_passtpy
""",
    "fish": """
complete -C "$LINE" | string replace -r '\\t.*' ''
""",
}


def test_what_a_help_says_is_one_word_of_a_completion() -> None:
    """Also where no fish is installed to say so."""
    odd = replace(COMMANDS[0], help=r"what it's for: a \ too")
    zsh = completion("zsh", [odd], {})
    assert f"{odd.name}:{odd.help}" in shlex.split(zsh.partition("commands=(")[2])
    for script in (completion("fish", [odd], {}), completion("fish", COMMANDS, {})):
        assert "'" not in re.sub(r"'(?:[^'\\]|\\.)*'", "", script)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("passtpy fl", ["flows"]),
        ("passtpy e", ["events", "explain"]),
        ("passtpy stats --p", ["--prometheus"]),
        ("passtpy completion z", ["zsh"]),
        ("passtpy ports re", ["remove"]),
        ("passtpy capture --sto", ["--stop", "--stop-all"]),
        ("passtpy ls --in", []),
        ("passtpy explain --proto u", ["udp"]),
        ("passtpy explain --from h", ["host"]),
        ("passtpy capture --side t", ["tap"]),
        ("passtpy flows -i w", ["web", "web2"]),
        ("passtpy close --instance b", ["box"]),
        ("passtpy capture -w scr", ["script"]),
        ("passtpy flows -n t", []),
        ("passtpy flows -w t", ["tcp"]),
        ("passtpy le", ["learn"]),
        ("passtpy run --all", ["--allow"]),
        ("passtpy-pasta --dns-f", ["--dns-forward"]),
        ("passtpy-passt --vh", ["--vhost-user"]),
        ("passtpy-pesto --cl", ["--clear"]),
        ("passtpy-slirp4netns --disable-d", ["--disable-dns"]),
    ],
)
def test_completions_work_in_the_real_shells(
    shell: str, line: str, words: list[str], tmp_path: Path
) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    script = completion(shell, COMMANDS, programs())
    if shell == "zsh":  # which makes a function of a file for completions
        script = f"_passtpy() {{\n{script}}}\n"
    path = tmp_path / "script"
    path.write_text(script + ASKED[shell])
    running = tmp_path / "bin" / "passtpy"
    running.parent.mkdir()
    running.write_text("#!/bin/sh\nprintf 'NAME  PID\\n%s  7\\n' box web web2\n")
    running.chmod(0o755)
    environment = {"LINE": line, "HOME": str(tmp_path)}
    environment["PATH"] = f"{running.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [program, str(path)],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=environment,
        text=True,
    )
    assert (done.stderr, sorted(done.stdout.split())) == ("", words)
