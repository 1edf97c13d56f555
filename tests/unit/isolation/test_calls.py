# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of system calls: how much it lets through, and what it never does."""

import os
import re
from pathlib import Path

import pytest

from passtpy.config.model import Seccomp
from passtpy.isolation.bpf import ALLOW, ERRNO, KILL, LOG
from passtpy.isolation.calls import REFUSED, TABLE, Process, allowed
from passtpy.isolation.filter import program
from passtpy.isolation.numbers import ARCHITECTURES, NUMBERS, number
from tests.unit.isolation.test_bpf import run

KINDS = [Process.PASTA, Process.PASST, Process.FACTORY, Process.INIT, Process.LOOKOUT]
X86 = ARCHITECTURES["x86_64"]
ARM = ARCHITECTURES["aarch64"]
# Whoever makes one of these is out of the box, or looks into another one.
NEVER = re.findall(
    r"\w+",
    """acct add_key bpf clone clone3 creat delete_module execve execveat fork
    init_module io_uring_enter io_uring_register io_uring_setup kexec_load keyctl
    memfd_create mount
    move_mount open_by_handle_at open_tree perf_event_open personality pidfd_getfd
    pivot_root process_vm_readv process_vm_writev ptrace request_key seccomp setns
    setresuid setuid symlink umount2 unshare userfaultfd vfork""",
)
FILES = re.findall(
    r"\w+",
    """access chdir chmod chown chroot faccessat fchmodat link linkat mkdir mkdirat
    mknod mknodat open openat openat2 readlink readlinkat rename renameat renameat2
    rmdir stat statx symlinkat truncate unlink unlinkat""",
)


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        (Process.PASTA, 60),
        (Process.PASST, 45),
        (Process.INIT, 20),
        (Process.FACTORY, 20),
        (Process.LOOKOUT, 28),
    ],
)
def test_few_calls_are_left(kind: Process, most: int) -> None:
    """Of those that this machine's kernel has."""
    here = ARCHITECTURES[os.uname().machine]
    names = {row.name for row in allowed(kind) if number(row.name, here) is not None}
    assert len(names) <= most


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_nothing_leads_out(kind: Process) -> None:
    assert {row.name for row in allowed(kind)}.isdisjoint(NEVER)


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not Process.LOOKOUT])
def test_only_who_sees_no_packet_opens_files(kind: Process) -> None:
    assert {row.name for row in allowed(kind)}.isdisjoint(FILES)


def test_every_row_has_its_reason() -> None:
    assert [row.name for row in TABLE if len(row.why) < 5] == []


def test_no_call_has_two_rows_for_one_process() -> None:
    for kind in KINDS:
        names = [row.name for row in allowed(kind)]
        assert sorted(set(names)) == sorted(names)


AF = {"unix": 1, "inet": 2, "inet6": 10, "netlink": 16, "packet": 17, "vsock": 40}
STREAM, DGRAM, RAW = 1, 2, 3
CLOEXEC = 0o2000000


def judge(kind: Process, name: str, *args: int, mode: Seccomp = Seccomp.KILL) -> int:
    call = number(name, X86)
    assert call is not None
    return run(program(kind, mode, X86), call, args, X86.audit)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("family", AF)
@pytest.mark.parametrize("sort", [STREAM, DGRAM, RAW])
def test_sockets_are_of_few_kinds(kind: Process, family: str, sort: int) -> None:
    of_daemon = family in ("inet", "inet6")
    good = {
        Process.LOOKOUT: family == "unix" and sort == STREAM,
        Process.PASTA: of_daemon,
        Process.PASST: of_daemon,
        Process.FACTORY: of_daemon or family == "netlink",
        Process.INIT: of_daemon or family == "netlink",
    }[kind]
    wanted = ALLOW if good and sort != RAW else KILL
    assert judge(kind, "socket", AF[family], sort | CLOEXEC, 0) == wanted


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", ["mmap", "mprotect"])
def test_no_memory_is_executed(kind: Process, name: str) -> None:
    asked = [judge(kind, name, 0, 4096, protection) for protection in (3, 4, 5, 7)]
    expected = ALLOW if name in {row.name for row in allowed(kind)} else KILL
    assert asked == [expected, KILL, KILL, KILL]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_refused_is_told_so_and_not_ended(kind: Process) -> None:
    named = {row.name for row in allowed(kind)}
    for name, error in REFUSED:
        if name not in named and number(name, X86) is not None:
            assert judge(kind, name) == ERRNO | error


def test_the_log_tells_of_what_would_have_ended_us() -> None:
    assert judge(Process.PASTA, "socket", AF["unix"], mode=Seccomp.LOG) == LOG
    assert judge(Process.PASTA, "socket", AF["inet"], DGRAM, mode=Seccomp.LOG) == ALLOW


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_arm_has_every_call_too(kind: Process) -> None:
    other = {"poll": "ppoll", "readlink": "readlinkat", "unlink": "unlinkat"}
    for row in allowed(kind):
        assert number(other.get(row.name, row.name), ARM) is not None


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_the_kernels(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("no kernel headers of this architecture")
    text = HEADERS[machine].read_text()
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", text))
    column = ARCHITECTURES[machine].column
    for name, row in NUMBERS.items():
        if row[column] is not None:
            found = known.get(name) or known[name.removeprefix("new")]
            assert (name, row[column]) == (name, int(found))
