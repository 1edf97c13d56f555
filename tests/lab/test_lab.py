# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab itself: what it promises to the tests that use it."""

import os
import time
from pathlib import Path

import pytest

from tests import conftest
from tests.lab import (
    HOST4,
    REMOTE4,
    REMOTE6,
    TRANSLATORS,
    Lab,
    LabError,
    UdpEcho,
    closing_all,
    exchange,
    in_parallel,
    namespace,
    tcp_echo,
    tcp_pair,
    topology,
    transfer,
    transfer_both_ways,
    wait_until,
    why_unavailable,
)
from tests.lab.topology import reap_dead_labs

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable())),
]


@pytest.mark.parametrize("address", [REMOTE4, REMOTE6])
def test_bytes_cross_the_wire_exactly(address: str) -> None:
    with Lab() as lab:
        ends = tcp_pair(lab.host, lab.remote, address)
        with closing_all(ends):
            transfer_both_ways(*ends, 3_000_000)
        ends = tcp_pair(lab.host, lab.remote, address)
        with closing_all(ends):
            transfer(*ends, 1_000_000)


def test_echo_servers_answer_many_and_know_their_peers() -> None:
    with Lab() as lab, tcp_echo(lab.remote, REMOTE4) as server:

        def once(number: int) -> bytes:
            with lab.host.connect(REMOTE4, server.port) as sock:
                return exchange(sock, str(number).encode())

        assert in_parallel(40, once) == [str(n).encode() for n in range(40)]
        assert {peer[0] for peer in server.peers} == {HOST4}
        with UdpEcho(lab.remote, REMOTE6) as udp, lab.host.udp("::") as sock:
            sock.sendto(b"ping", (REMOTE6, udp.port))
            assert sock.recv(100) == b"ping"


def test_direct_is_the_host_itself() -> None:
    with Lab() as lab, lab.attach(TRANSLATORS["direct"]) as attached:
        assert attached.guest is lab.host
        assert attached.cpu_seconds() == 0


def test_a_lab_leaves_nothing_behind() -> None:
    with Lab() as lab:
        process = lab.start(lab.guest(), "sleep", "1000")
        directory, paths = lab.dir, [lab.remote.path, lab.host.path]
        assert process.running()
    assert not process.running()
    assert not directory.exists()
    assert not any(path.exists() for path in paths)


def test_a_dead_lab_is_reaped_with_its_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Others reap as well, and would have it before its process runs
    monkeypatch.setattr(topology, "PREFIX", f"{topology.PREFIX}{os.getpid()}")
    with Lab() as lab:
        child = lab.start(lab.host, "true")
        child.wait(30)
        stale = Path("/run/netns", f"{topology.PREFIX}-{child.pid}-0-guest")
        lab.host.run("ip", "netns", "add", stale.name)
        held = lab.start(lab.host, "ip", "netns", "exec", stale.name, "sleep", "1000")
        wait_until(lambda: "sleep" in _name_of(held.pid), 30, "sleep runs")
        reap_dead_labs()
        assert not stale.exists()
        assert held.wait(30) != 0


def _name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()


def test_a_failing_command_tells_what_it_said() -> None:
    with Lab() as lab, pytest.raises(LabError, match="No such file"):
        lab.host.run("ls", "/nonexistent")


def test_a_command_that_hangs_ends_with_its_children() -> None:
    with Lab() as lab:
        with pytest.raises(LabError, match="not finished"):
            lab.host.run("sh", "-c", "sleep 1000 & wait", timeout=0.3)
        assert lab.remote.run("ip", "netns", "pids", lab.host.name).stdout == ""


def test_a_port_is_had_once_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab() as lab:
        take = lab.remote.listen
        with take(REMOTE6, 53) as held:
            monkeypatch.setattr(namespace, "BIND_PATIENCE", 0.05)
            with pytest.raises(LabError, match=r"port 53 in .*:\n.*\(\(\"python"):
                take(REMOTE6, 53)
            monkeypatch.setattr(namespace, "BIND_PATIENCE", 30.0)
            monkeypatch.setattr(time, "sleep", lambda seconds: held.close())
            with take(REMOTE6, 53) as made:
                assert made.getsockname()[1] == 53
            assert held.fileno() == -1


def test_nobody_is_given_a_port_that_tests_name() -> None:
    with Lab() as lab:
        for where in (lab.remote, lab.host, lab.guest()):
            where.sysctl("net.ipv4.ip_local_port_range", "7000 9999")
            with where.new_socket() as sock, pytest.raises(OSError, match="in use"):
                sock.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="Cannot assign"):
            lab.host.connect(REMOTE4, 1)


def test_the_last_run_of_tests_leaves_the_machine_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tun, backlog = (tmp_path / name for name in ("hold", "tun", "backlog"))
    tun.touch(mode=0o600)
    backlog.write_text("1000\n")
    monkeypatch.setattr(conftest, "TUN", tun)
    monkeypatch.setattr(conftest, "BACKLOG", backlog)
    first = conftest.hold(path)
    tun.chmod(0o666)
    backlog.write_text("20000\n")
    second = conftest.hold(path)
    conftest.let_go(first)
    assert (tun.stat().st_mode & 0o777, backlog.read_text()) == (0o666, "20000\n")
    conftest.let_go(second)
    assert (tun.stat().st_mode & 0o777, backlog.read_text()) == (0o600, "1000\n")


def test_a_listener_ends_although_somebody_else_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(namespace, "BIND_PATIENCE", 0.0)
    with Lab() as lab:
        listener = lab.remote.listen(REMOTE6, 53)
        other = os.dup(listener.fileno())
        listener.close()
        lab.remote.listen(REMOTE6, 53).close()
        os.close(other)
