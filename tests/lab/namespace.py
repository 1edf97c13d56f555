# SPDX-License-Identifier: GPL-2.0-or-later
"""A network namespace as an object: run commands in it, open sockets in it.

A socket belongs for life to the namespace in which it was created, and ``setns()``
for a network namespace concerns one thread only. So a test can hold sockets of
remote, host and guest side by side in one process: enter, create, leave.
"""

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from tests.lab.process import Process, kill_tree

CLONE_NEWNET = 0x40000000
NETNS_DIR = Path("/run/netns")
TCP_LISTEN = "0A"
IFA_TENTATIVE = 0x40
SOCKET_TIMEOUT = 30.0
BIND_PATIENCE = 40.0

T = TypeVar("T", bound=socket.socket)

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(RuntimeError):
    """The lab could not be built, or something in it did not happen in time."""


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "setns")


def wait_until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Poll ``condition`` until it is true; ``LabError`` naming ``what`` if never."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout:g} s: {what}")
        time.sleep(0.01)


def ip(*words: str, batch: str | None = None) -> str:
    """Run iproute2, with a batch of commands on its input if given."""
    done = subprocess.run(
        ["ip", *words], input=batch, capture_output=True, text=True, timeout=60
    )
    if done.returncode != 0:
        raise LabError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Listener(socket.socket):
    """A socket that stops listening when it is closed, whoever else has its file.

    A thread in accept() has, and a child that has not come to its exec: their kernel
    would go on listening for them, and the next one could not have the port.
    """

    def close(self) -> None:
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
        super().close()


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, named by the path of its nsfs file."""

    path: Path

    @classmethod
    def create(cls, name: str) -> Self:
        """Make a namespace as ``ip netns add`` does, with its loopback up."""
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        return cls(NETNS_DIR / name)

    @classmethod
    def of_process(cls, pid: int) -> Self:
        """The namespace in which a process lives, for example a spawned guest."""
        return cls(Path(f"/proc/{pid}/ns/net"))

    @property
    def name(self) -> str:
        return self.path.name

    def delete(self) -> None:
        """End what still runs inside, then remove the name."""
        for pid in ip("netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        ip("netns", "del", self.name)

    def ip(self, *words: str, batch: str | None = None) -> str:
        """Run iproute2 inside; needs a namespace made by :meth:`create`."""
        return ip("-n", self.name, *words, batch=batch)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread inside for the length of a ``with`` block."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    # Commands

    def command(self, argv: Sequence[str], user: int | None = None) -> list[str]:
        """``argv`` with the prefix that runs it inside, as ``user`` if given."""
        words = ["nsenter", f"--net={self.path}", "--"]
        if user is not None:
            ids = [f"--reuid={user}", f"--regid={user}"]
            words += ["setpriv", *ids, "--clear-groups", "--"]
        return [*words, *argv]

    def run(
        self,
        *argv: str,
        timeout: float = 60,
        stdin: str | None = None,
        check: bool = True,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and capture what it prints.

        ``LabError`` if it fails (unless ``check=False``) or takes too long.
        """
        words = self.command(argv, user)
        with subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        ) as popen:
            try:
                out, err = popen.communicate(stdin, timeout)
            except BaseException as error:
                kill_tree(popen.pid)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                message = f"{argv[0]} in {self.name}: not finished in {timeout:g} s"
                raise LabError(message) from None
        done = subprocess.CompletedProcess(words, popen.returncode, out, err)
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise LabError(f"{argv[0]} in {self.name}: {done.returncode}: {said}")
        return done

    def start(
        self,
        *argv: str,
        log_dir: Path,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a background process inside; prefer ``Lab.start``, which ends it."""
        return Process.start(self.command(argv, user), log_dir, env, label=argv[0])

    # Sockets

    def new_socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM
    ) -> socket.socket:
        """A new socket that lives in this namespace."""
        return self._new(socket.socket, family, kind)

    def _new(self, type_: type[T], family: int, kind: int) -> T:
        with self.entered():
            made = type_(family, kind)
        made.settimeout(SOCKET_TIMEOUT)
        return made

    def connect(
        self, address: str, port: int, timeout: float = SOCKET_TIMEOUT
    ) -> socket.socket:
        """A TCP connection opened from here."""
        made = self.new_socket(family_of(address))
        try:
            made.settimeout(timeout)
            made.connect((address, port))
        except BaseException:
            made.close()
            raise
        return made

    def listen(self, address: str, port: int = 0, backlog: int = 1024) -> socket.socket:
        """A listening TCP socket here; port 0 lets the kernel choose."""
        return self._bound(socket.SOCK_STREAM, address, port, backlog)

    def udp(self, address: str, port: int = 0) -> socket.socket:
        """A bound UDP socket here; port 0 lets the kernel choose."""
        return self._bound(socket.SOCK_DGRAM, address, port)

    def _bound(
        self, kind: int, address: str, port: int, backlog: int | None = None
    ) -> socket.socket:
        """A socket that has this port, once whoever has it now has given it up."""
        type_ = socket.socket if backlog is None else Listener
        deadline = time.monotonic() + BIND_PATIENCE
        while True:
            made = self._new(type_, family_of(address), kind)
            try:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((address, port))
                if backlog is not None:
                    made.listen(backlog)
            except BaseException as error:
                made.close()
                if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
                    raise
                if time.monotonic() > deadline:
                    raise LabError(self._in_use(address, port)) from error
            else:
                return made
            time.sleep(0.01)

    def _in_use(self, address: str, port: int) -> str:
        """A complaint that names all who have anything to do with a port."""
        rows = self.run("ss", "-tuanpeH").stdout.splitlines()
        about = [row for row in rows if f":{port} " in row] or ["nobody, says ss"]
        head = f"{address} port {port} in {self.name} stays in use:"
        return "\n  ".join([head, *about])

    # Kernel state

    def sysctl(self, key: str, value: str) -> None:
        """Set a sysctl of this namespace, written ``net.ipv4.name``."""
        with self.entered():
            Path("/proc/sys", *key.split(".")).write_text(value)

    def read(self, table: str) -> str:
        """A file of this namespace's /proc/net, for example ``tcp6``."""
        with self.entered():
            return Path("/proc/thread-self/net", table).read_text()

    def has_route4(self) -> bool:
        """Whether there is an IPv4 default route."""
        rows = (line.split() for line in self.read("route").splitlines()[1:])
        return any(row[1] == row[7] == "00000000" for row in rows)

    def has_route6(self) -> bool:
        """Whether there are an IPv6 default route and a usable global address."""
        routes = (line.split() for line in self.read("ipv6_route").splitlines())
        default = any(r[1] == "00" and r[9] != "lo" for r in routes)
        addresses = (line.split() for line in self.read("if_inet6").splitlines())
        usable = any(
            a[3] == "00" and not int(a[4], 16) & IFA_TENTATIVE for a in addresses
        )
        return default and usable

    def is_bound(self, kind: str, port: int) -> bool:
        """Whether a ``tcp`` (listening) or ``udp`` socket of any family has it."""
        suffix = f":{port:04X}"
        for table in (kind, kind + "6"):
            for line in self.read(table).splitlines()[1:]:
                row = line.split()
                listens = kind == "udp" or row[3] == TCP_LISTEN
                if listens and row[1].endswith(suffix):
                    return True
        return False

    def wait_bound(self, kind: str, port: int, timeout: float = 30) -> None:
        """Wait until somebody listens on (``tcp``) or binds (``udp``) a port."""
        what = f"{kind} port {port} in {self.name}"
        wait_until(lambda: self.is_bound(kind, port), timeout, what)


def family_of(address: str) -> int:
    """AF_INET or AF_INET6, by the look of a literal address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def why_unavailable() -> str | None:
    """The reason why no lab can be built on this machine, or None."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "the namespace lab needs root"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing"
    return None
