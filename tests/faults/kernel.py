# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that says no: the n-th system call of a name fails.

A filter (seccomp) in a program and its children sends such calls to this process, which
lets them go on or answers with an error. The program knows nothing of it.
"""

import ctypes
import errno
import os
import platform
import re
import select
import signal
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

# What start-up asks for, and an error that the kernel may give. What is not here (read,
# mmap, close, …) is what Python does for itself, has its places in C, or cannot fail:
# there is a folder "/", and randomness.
ERRORS = {
    "bind": errno.EADDRINUSE,
    "capset": errno.EPERM,
    "clone": errno.EAGAIN,
    "clone3": errno.EAGAIN,
    "connect": errno.ECONNREFUSED,
    "dup": errno.EMFILE,
    "epoll_create1": errno.EMFILE,
    "epoll_ctl": errno.ENOSPC,
    "eventfd2": errno.EMFILE,
    "execve": errno.ENOMEM,
    "fork": errno.EAGAIN,
    "inotify_add_watch": errno.ENOSPC,
    "inotify_init1": errno.EMFILE,
    "ioctl": errno.EPERM,
    "landlock_create_ruleset": errno.ENOMEM,
    "listen": errno.EADDRINUSE,
    "memfd_create": errno.EMFILE,
    "mkdir": errno.EACCES,
    "mount": errno.EPERM,
    "openat": errno.EMFILE,
    "pidfd_open": errno.EMFILE,
    "pipe2": errno.EMFILE,
    "pivot_root": errno.EPERM,
    "prctl": errno.EPERM,
    "prlimit64": errno.EPERM,
    "recvmsg": errno.ENOMEM,
    "seccomp": errno.ENOMEM,
    "sendmsg": errno.ENOBUFS,
    "sendto": errno.ENOBUFS,
    "sethostname": errno.EPERM,
    "setgroups": errno.EPERM,
    "setns": errno.EPERM,
    "setresgid": errno.EPERM,
    "setresuid": errno.EAGAIN,
    "setsid": errno.EPERM,
    "setsockopt": errno.ENOMEM,
    "signalfd4": errno.EMFILE,
    "socket": errno.EMFILE,
    "socketpair": errno.EMFILE,
    "timerfd_create": errno.EMFILE,
    "umount2": errno.EPERM,
    "unlink": errno.EACCES,
    "unshare": errno.ENOSPC,
    "vfork": errno.EAGAIN,
}
# Files that Python looks for by itself, in these folders or of these kinds
PYTHONS = re.compile(rb"\.(py|pyc|so|pth|cfg|zip)(\.\d+)*$|^/(usr/)?lib|^/etc/ld|^$")
TTY = 0x54  # upper byte of requests to terminals: isatty()

_SETUP = """
import ctypes, os, sys
filter_fd, told, go = map(int, sys.argv[1:4])
program = os.pread(filter_fd, 1 << 16, 0)
libc = ctypes.CDLL(None, use_errno=True)
class Prog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
prog = Prog(len(program) // 8, program)
fd = libc.syscall(int(sys.argv[4]), 1, 8, ctypes.byref(prog))
os.write(told, b"%d" % (fd if fd >= 0 else -ctypes.get_errno()))
os.read(go, 1)
os.execv(sys.argv[5], sys.argv[5:])
"""

_NOTIF = struct.Struct("=QIIiIQ6Q")
_RESP = struct.Struct("=QqiI")
_RECV, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_libc = ctypes.CDLL(None, use_errno=True)


@cache
def numbers() -> dict[str, int]:
    """Numbers of system calls on this machine, as the compiler knows them."""
    text = subprocess.run(
        ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-"],
        input="",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {
        name: int(number)
        for name, number in re.findall(
            r"^#define __NR_(\w+) (\d+)$", text, re.MULTILINE
        )
    }


def _program() -> bytes:
    """A filter: calls of ERRORS are told to us, all others go on."""

    def op(code: int, jt: int, jf: int, k: int) -> bytes:
        return struct.pack("=HBBI", code, jt, jf, k)

    wanted = [numbers()[name] for name in ERRORS if name in numbers()]
    ld, jeq, ret = 0x20, 0x15, 0x06
    lines = [op(ld, 0, 0, 0)]
    for i, number in enumerate(wanted):
        lines.append(op(jeq, len(wanted) - i, 0, number))
    lines += [op(ret, 0, 0, 0x7FFF0000), op(ret, 0, 0, 0x7FC00000)]
    return b"".join(lines)


@dataclass(frozen=True)
class Fault:
    """The `nth` call of a name fails, counted from 1."""

    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.name} {self.nth}"


class Kernel:
    """Starts a program, and answers its calls until everybody of it is gone."""

    def __init__(
        self,
        argv: Sequence[str],
        faults: Sequence[Fault] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.calls: Counter[str] = Counter()
        self.failed: list[Fault] = []
        self._faults = {(it.name, it.nth) for it in faults}
        self._names = {numbers()[name]: name for name in ERRORS if name in numbers()}
        self._listener = -1
        self._seen: set[int] = set()
        self.popen = self._start(argv, env)
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _start(
        self, argv: Sequence[str], env: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        filter_fd = os.memfd_create("filter")
        os.write(filter_fd, _program())
        (told, tell), (wait, go) = os.pipe(), os.pipe()
        theirs = (filter_fd, tell, wait)
        popen = subprocess.Popen(
            [
                *(sys.executable, "-S", "-c", _SETUP, *map(str, theirs)),
                *(str(numbers()["seccomp"]), *argv),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=theirs,
            env=env,
        )
        for fd in theirs:
            os.close(fd)
        number = int(os.read(told, 16))
        assert number >= 0, os.strerror(-number)
        pidfd = os.pidfd_open(popen.pid)
        self._listener = _libc.syscall(numbers()["pidfd_getfd"], pidfd, number, 0)
        assert self._listener >= 0, os.strerror(ctypes.get_errno())
        os.close(pidfd)
        os.write(go, b"1")
        os.close(told)
        os.close(go)
        return popen

    def __enter__(self) -> Self:
        return self

    def wait(self, seconds: float) -> None:
        """Wait until all of the program is gone; end what stays, and fail."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            left = self.kill()
            raise AssertionError(f"still there: {left}")

    def kill(self) -> list[str]:
        """End all of the program; return what it was."""
        left = []
        for pid in self._seen:
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                left.append(f"{pid} {b' '.join(words).decode()}")
                os.kill(pid, signal.SIGKILL)
        self._thread.join()
        self.popen.communicate()
        return left

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.join()
        os.close(self._listener)

    def _answer(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            ((_, events),) = poll.poll() or [(0, 0)]
            if not events & select.POLLIN:
                return  # the last of them has ended
            with suppress(FileNotFoundError):  # killed before it heard
                self._one()

    def _one(self) -> None:
        buffer = bytearray(_NOTIF.size)
        ioctl(self._listener, _RECV, buffer)
        ident, pid, _, number, _, _, *args = _NOTIF.unpack(buffer)
        self._seen.add(pid)
        name = self._names[number]
        error = 0
        if self._counts(name, pid, args):
            self.calls[name] += 1
            if (name, self.calls[name]) in self._faults:
                self.failed.append(Fault(name, self.calls[name]))
                error = -ERRORS[name]
        flags = 0 if error else _CONTINUE
        ioctl(self._listener, _SEND, bytearray(_RESP.pack(ident, 0, error, flags)))

    def _counts(self, name: str, pid: int, args: list[int]) -> bool:
        """Whether it is the program that asks, and not Python for itself."""
        if name == "ioctl":
            return args[1] >> 8 != TTY
        if name == "execve":
            return bool(self.calls)  # the first is how it starts
        if name != "openat":
            return True
        return not PYTHONS.search(_string_of(pid, args[1]))


def _string_of(pid: int, address: int) -> bytes:
    """A string in another process."""
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(256).partition(b"\0")[0]
    except OSError:
        return b""


def why_not() -> str | None:
    """Why this machine cannot do it."""
    if platform.machine() not in ("x86_64", "aarch64"):
        return "unknown processor"
    return None if os.geteuid() == 0 else "needs root"
