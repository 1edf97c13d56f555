# SPDX-License-Identifier: GPL-2.0-or-later
"""How the program behaves as a process: statuses, signals, clean-up, error lines."""

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.namespace import Namespace
from tests.lab.translators import Passtpy
from tests.netns.program import (
    Running,
    Who,
    command_line,
    ended,
    pasta,
    run,
    terminate,
    wait_for,
)

BOTH = pytest.mark.parametrize("who", ["root", "user"])


def status_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.fixture
def guest() -> Iterator[Namespace]:
    """A bare namespace that is deleted at the end, unless the test did it."""
    namespace = Namespace.create(f"passtpyproc-{os.getpid()}")
    yield namespace
    if namespace.path.exists():
        namespace.delete()


# The command's status


@BOTH
@pytest.mark.parametrize(
    ("script", "status"),
    [("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)],
)
def test_the_status_of_the_command_is_ours(who: Who, script: str, status: int) -> None:
    done = run(pasta(who, "--config-net", "--", "sh", "-c", script))
    assert (done.returncode, done.stdout) == (status, "")


@BOTH
@pytest.mark.parametrize(
    ("program", "status"), [("/nonexistent/program", 127), ("/etc/passwd", 126)]
)
def test_a_command_that_cannot_start_is_one_line(
    who: Who, program: str, status: int
) -> None:
    done = run(pasta(who, "--", program))
    assert done.returncode == status
    assert done.stdout.startswith("pasta: Failed to start command or shell: ")
    assert done.stdout.count("\n") == 1


# What the command finds


@BOTH
def test_the_command_is_root_of_its_own_namespaces(who: Who) -> None:
    script = "id -u; cat /proc/sys/net/ipv4/ping_group_range; ps ax | wc -l; ulimit -n"
    done = run(pasta(who, "--config-net", "--", "sh", "-c", script))
    limit = run(["sh", "-c", "ulimit -n"]).stdout.strip()
    words = done.stdout.split()
    assert words[:3] == ["0", "0", "0"]
    assert int(words[3]) < 8  # its own processes only
    assert words[4] == limit


@BOTH
def test_addresses_are_usable_before_the_command_starts(who: Who) -> None:
    argv = ["-a", "192.0.2.77/24", "-a", "2001:db8::77", "-g", "192.0.2.1"]
    argv += ["-g", "fe80::1", "-I", "net0", "--config-net", "--"]
    done = run(
        pasta(who, *argv, "sh", "-c", "ip addr show net0; ip route; ip -6 route")
    )
    assert "192.0.2.77/24" in done.stdout
    assert "2001:db8::77/64" in done.stdout
    assert "tentative" not in done.stdout
    assert "qlen 16384" in done.stdout
    assert "mtu 65520" in done.stdout
    assert "default via 192.0.2.1 dev net0" in done.stdout
    assert "default via fe80::1 dev net0" in done.stdout


def test_without_config_net_the_interface_is_bare() -> None:
    done = run(pasta("root", "-I", "net0", "--", "ip", "-br", "-4", "addr"))
    assert done.stdout.split() == ["lo", "UNKNOWN", "127.0.0.1/8"]


def test_without_config_net_the_interface_is_down() -> None:
    done = run(pasta("root", "-I", "net0", "--", "ip", "-br", "link", "show", "net0"))
    assert done.stdout.split()[:2] == ["net0", "DOWN"]


def test_an_mtu_below_that_of_ipv6_leaves_ipv4_and_says_nothing_more() -> None:
    words = ["--config-net", "-m", "1279", "-I", "net0", "--", "ip", "-br", "addr"]
    done = run(pasta("root", *words))
    lines = done.stdout.splitlines()
    (warning,) = [line for line in lines if " warning " in line]
    assert "MTU 1279 is too small for IPv6 (minimum 1280)" in warning
    (net0,) = [line.split()[2:] for line in lines if line.startswith("net0")]
    assert net0
    assert not any(":" in address for address in net0)


# Signals


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_us_ends_the_command(who: Who, number: signal.Signals) -> None:
    argv = pasta(who, "--", "sh", "-c", "echo up; exec sleep 1000")
    with Running(argv) as running:
        assert running.line() == "up"
        running.popen.send_signal(number)
        assert running.wait() == 128 + number
        running.wait_survivors_gone()


@BOTH
def test_a_signal_reaches_the_command_once(who: Who) -> None:
    script = "trap 'echo got; exit 5' USR1; echo up; while :; do sleep 0.1; done"
    with Running(pasta(who, "--", "sh", "-c", script)) as running:
        assert running.line() == "up"
        running.popen.send_signal(signal.SIGUSR1)
        assert running.line() == "got"
        assert running.wait() == 5


@pytest.mark.slow
@BOTH
def test_a_command_that_ignores_sigterm_is_killed(who: Who) -> None:
    script = "trap '' TERM; echo up; sleep 1000; sleep 1000"
    with Running(pasta(who, "--", "sh", "-c", script)) as running:
        assert running.line() == "up"
        running.popen.terminate()
        assert running.wait() == 137
        running.wait_survivors_gone()


@BOTH
def test_nothing_survives_the_command(who: Who) -> None:
    script = "setsid sleep 1000 & sleep 1000 & echo up; read x; exit 3"
    argv = pasta(who, "--", "bash", "-c", script)
    with Running(argv) as running:
        assert running.line() == "up"
        assert running.wait() == 3
        running.wait_survivors_gone()


@BOTH
def test_nothing_survives_our_own_violent_death(who: Who) -> None:
    argv = pasta(who, "--", "sh", "-c", "echo up; sleep 1000; sleep 1000")
    with Running(argv) as running:
        assert running.line() == "up"
        running.popen.kill()
        running.wait_survivors_gone()


# What the daemon may do


def _daemon_of(running: Running) -> int:
    return running.popen.pid


@BOTH
def test_the_daemon_of_a_command_has_no_privileges(who: Who) -> None:
    argv = pasta(who, "--config-net", "--", "sh", "-c", "echo up; exec sleep 1000")
    with Running(argv) as running:
        assert running.line() == "up"
        daemon = _daemon_of(running)
        # It locks itself up while the command starts, before it reads its packets.
        # The loop's filter is the first one.
        wait_for(lambda: status_of(daemon)["Seccomp_filters"] == "2", "it is locked up")
        status = status_of(daemon)
        assert status["Uid"].split()[1] != "0"
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        net = os.readlink(f"/proc/{running.popen.pid}/ns/net")
        assert net == os.readlink("/proc/self/ns/net")


def test_root_becomes_nobody_and_empties_the_bounding_set(
    guest: Namespace, tmp_path: Path
) -> None:
    pid = _start_daemon(guest, tmp_path)
    status = status_of(pid)
    assert status["Uid"].split() == ["65534"] * 4
    assert int(status["CapBnd"], 16) == 0
    assert status["Groups"].split() == []
    terminate(pid)


# Daemon


def _start_daemon(guest: Namespace, tmp_path: Path, *words: str) -> int:
    """Start a daemon; return its PID. Fails when the pipe stays open."""
    pid_file = tmp_path / "pid"
    argv = ["-q", "--config-net", "-P", str(pid_file), "-I", "net0"]
    done = run(pasta("root", *argv, *words, "--netns", str(guest.path)))
    assert (done.returncode, done.stdout) == (0, "")
    assert stat.S_IMODE(pid_file.stat().st_mode) == 0o600
    text = pid_file.read_text()
    assert text.endswith("\n")
    return int(text)


def test_the_parent_returns_when_the_interface_is_ready(
    guest: Namespace, tmp_path: Path
) -> None:
    pid = _start_daemon(guest, tmp_path, "-a", "192.0.2.5/24", "-t", "18080")
    assert "192.0.2.5/24" in guest.ip("addr", "show", "net0")
    assert not ended(pid)
    for fd in range(3):
        assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
    terminate(pid)


def test_sigterm_removes_the_interface(guest: Namespace, tmp_path: Path) -> None:
    pid = _start_daemon(guest, tmp_path)
    terminate(pid)
    wait_for(lambda: "net0" not in guest.ip("link"), "the interface goes")


def test_the_pid_file_stays_after_the_end(guest: Namespace, tmp_path: Path) -> None:
    pid = _start_daemon(guest, tmp_path)
    terminate(pid)
    assert (tmp_path / "pid").read_text() == f"{pid}\n"


def test_the_pid_file_stays_after_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    assert run(pasta("root", "-P", str(pid_file), "--", "true")).returncode == 0
    assert ended(int(pid_file.read_text()))


def test_a_deleted_tap_ends_the_daemon_with_a_line(
    guest: Namespace, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    pid = _start_daemon(guest, tmp_path, "-l", str(log))
    guest.ip("link", "del", "net0")
    wait_for(lambda: ended(pid), "the daemon quits")
    assert [w for w in log.read_text().splitlines() if "tap.gone" in w]


def test_deleting_the_namespace_ends_the_daemon(
    guest: Namespace, tmp_path: Path
) -> None:
    pid = _start_daemon(guest, tmp_path)
    guest.delete()
    wait_for(lambda: ended(pid), "the daemon quits")


def test_no_netns_quit_keeps_the_daemon(guest: Namespace, tmp_path: Path) -> None:
    pid = _start_daemon(guest, tmp_path, "--no-netns-quit")
    guest.delete()
    with pytest.raises(AssertionError, match="never"):
        _soon(lambda: ended(pid))
    terminate(pid)


def _soon(condition: "object") -> None:
    import time

    deadline = time.monotonic() + 1
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "never"
        time.sleep(0.05)


def test_pid_mode_ends_with_the_process(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    argv = ["unshare", "--user", "--map-root-user", "--net"]
    with Running([*argv, "sh", "-c", "echo up; exec sleep 1000"]) as sleeper:
        assert sleeper.line() == "up"
        target = sleeper.popen.pid
        words = ["-q", "--config-net", "-P", str(pid_file), "-I", "net0", str(target)]
        done = run(pasta("root", *words))
        assert (done.returncode, done.stdout) == (0, "")
        daemon = int(pid_file.read_text())
        inside = run(["nsenter", f"--net=/proc/{target}/ns/net", "ip", "link"])
        assert "net0" in inside.stdout
        assert not ended(daemon)
        sleeper.popen.kill()
        sleeper.popen.wait()
        wait_for(lambda: ended(daemon), "the daemon quits")


def test_foreground_serves_until_sigterm(guest: Namespace) -> None:
    argv = pasta("root", "-f", "-I", "net0", "--netns", guest.name)
    with Running(argv) as running:
        assert running.popen.stderr is not None
        assert "Template interface: " in running.popen.stderr.readline()
        assert "net0" in guest.ip("link")
        running.popen.terminate()
        assert running.wait() == 0


def test_root_of_another_user_namespace_stays_root() -> None:
    """As in podman's user namespace: netns and we belong to the same one."""
    script = (
        "mount -t tmpfs none /run && ip netns add inner || exit 9; "
        f"{Passtpy().program} -q --config-net -I net0 -P /run/pid "
        "--netns /run/netns/inner && ip -n inner -br link && "
        "ip netns del inner; for i in $(seq 300); do "
        "left=$(cat /proc/$(cat /run/pid)/cmdline 2>/dev/null | wc -c); "
        "[ $left != 0 ] || break; sleep 0.1; done; echo $left"
    )
    argv = ["unshare", "--user", "--map-root-user", "--mount", "--net", "sh", "-c"]
    done = run(command_line("user", *argv, script))
    assert "net0" in done.stdout, done.stdout
    assert done.stdout.splitlines()[-1] == "0"  # it has quit


# Errors: one line, status 1, never a traceback

HIDE_TUN = "mount -t tmpfs none /dev"
NO_ACCESS = (
    "touch /tmp/none-$$; chmod 0 /tmp/none-$$; mount --bind /tmp/none-$$ /dev/net/tun;"
    " rm -f /tmp/none-$$"
)


@BOTH
@pytest.mark.parametrize(
    ("words", "prepare", "line"),
    [
        (["-i", "nope0"], "", "Invalid interface name nope0: No such device"),
        (["-i", "lo", "-4"], "", "External interface not usable"),
        ([], HIDE_TUN, "Couldn't open /dev/net/tun: no such device"),
        (["--bad"], "", "unrecognized option '--bad'"),
        (["-P", "/nonexistent/pid"], "", "Couldn't open PID file /nonexistent/pid"),
        (["-p", "/nonexistent/cap"], "", "Couldn't open capture file"),
        (["-l", "/nonexistent/log"], "", "Couldn't open log file /nonexistent/log"),
        (["-t", "192.0.2.254/18099"], "", "Listen failed for HOST TCP port"),
    ],
)
def test_an_error_is_a_line_and_status_1(
    who: Who, words: list[str], prepare: str, line: str
) -> None:
    done = run(pasta(who, *words, "--", "echo", "it-runs", prepare=prepare))
    assert done.returncode == 1
    assert line in done.stdout.splitlines()[0]
    assert done.stdout.startswith("pasta: ")
    assert "Traceback" not in done.stdout
    assert "it-runs" not in done.stdout


def test_a_tun_device_without_permission() -> None:
    done = run(pasta("user", "--", "true", prepare=NO_ACCESS))
    assert done.returncode == 1
    assert done.stdout.startswith(
        "pasta: Couldn't open /dev/net/tun: permission denied"
    )
    assert done.stdout.count("\n") == 1


def test_forbidden_user_namespaces() -> None:
    script = "echo 0 > /proc/sys/user/max_user_namespaces; exec "
    inner = f"{script} {Passtpy().program} -- true"
    done = run(command_line("user", "unshare", "-Ur", "sh", "-c", inner))
    assert done.returncode == 1
    assert done.stdout.startswith("pasta: Couldn't create namespaces: ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (
            ["--netns", "nope"],
            "Couldn't open network namespace /run/netns/nope: No such",
        ),
        (["--netns", "/etc/passwd"], "Couldn't join network namespace: "),
        (["4194304"], "Couldn't open network namespace /proc/4194304/ns/net: "),
    ],
)
def test_a_namespace_that_is_not_there(target: list[str], line: str) -> None:
    done = run(pasta("root", *target))
    assert done.returncode == 1
    assert done.stdout.startswith(f"pasta: {line}")
    assert done.stdout.count("\n") == 1


def test_a_busy_port_is_told_before_the_parent_returns(guest: Namespace) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(pasta("root", "-t", f"127.0.0.1/{port}", "--netns", guest.name))
    assert done.returncode == 1
    assert f"Listen failed for HOST TCP port 127.0.0.1/{port}: Address" in done.stdout
    assert "Couldn't listen on requested ports" in done.stdout
    assert "net0" not in guest.ip("link")
