# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the user's command in namespaces of its own.

The child that enters the namespaces stays as their first process (*init*) and starts
the command as its own child. So the command gets the signals it expects (the kernel
ignores most of those sent to a PID 1), orphans are reaped, and when init ends the
kernel ends everything that is left. Init and the daemon share a socket: the daemon
sends "go" and signals to forward; when the daemon is gone, however that happened, init
reads the end of the file and ends too. Hence the daemon needs no privilege to stop a
command of another user.

The command is root over init's namespaces, but not over init: nobody traces a process
that is not dumpable without rights in the namespace where its program was started, the
host's. Once the command runs, init holds nothing but what it needs to tell how that
ended.

The command stays in the daemon's process group: Ctrl-C and Ctrl-Z reach both, the
daemon leaves them to the command, and a shell makes a group of its own.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from errno import ENOENT
from typing import TYPE_CHECKING, Final

from passtpy import _native, limits
from passtpy.config.model import Config, Seccomp
from passtpy.isolation import stages
from passtpy.net.kernel.signals import FORWARDED, TERMINAL, read_signals, take_signals
from passtpy.net.namespace import guest, netns
from passtpy.net.namespace.resolv_conf import own_resolv_conf
from passtpy.record import record

if TYPE_CHECKING:
    from passtpy.net.namespace.factory import Server

MS_REC: Final = 0x4000
MS_SLAVE: Final = 0x80000
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8

NEW_NAMESPACES: Final = (
    netns.CLONE_NEWNET
    | netns.CLONE_NEWPID
    | netns.CLONE_NEWIPC
    | netns.CLONE_NEWUTS
    | netns.CLONE_NEWNS
)

GO: Final = b"\0"  # any other byte is the number of a signal to forward
EXIT_SETUP: Final = 1
EXIT_CANNOT_EXEC: Final = 126
EXIT_NOT_FOUND: Final = 127
EXIT_SIGNAL: Final = 128
HOSTNAME_MAX: Final = 63


class Terminal:
    """The controlling terminal, if we are in its foreground when we start.

    A shell in the namespaces takes the terminal for itself, and cannot give it back to
    a process group that does not exist where it lives: so we take it back.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._group = os.getpgrp()
        with suppress(OSError):
            fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
            if os.tcgetpgrp(fd) == self._group:
                self._fd = fd
            else:
                os.close(fd)

    def take_back(self) -> None:
        """Be in the foreground again."""
        if self._fd < 0:
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        with suppress(OSError):
            os.tcsetpgrp(self._fd, self._group)
        os.close(self._fd)
        self._fd = -1


@record
class Command:
    """What to run, and the limits it is to have."""

    argv: tuple[str, ...]
    limits: tuple[int, int]  # RLIMIT_NOFILE as it was before we raised it
    own_userns: bool = True
    factory: socket.socket | None = None  # init's end: it makes sockets for us
    seccomp: Seccomp = Seccomp.KILL  # for init
    hostname: str | None = None  # of its own; None: made from the host's
    own_resolver: bool = False  # asked at the gateway, where we answer


class CommandProcess:
    """The daemon's view of the command: init's PID, and the socket to it."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.control = control
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._status: int | None = None

    def fileno(self) -> int:
        """Return a descriptor that is readable once the command has ended."""
        return self._pidfd

    def go(self) -> None:
        """Let the command start: its network is up."""
        with suppress(OSError):  # it ended already; wait() tells how
            self.control.send(GO)

    def signal(self, number: int) -> None:
        """Send a signal to the command."""
        with suppress(OSError):
            self.control.send(bytes([number]))

    def kill(self) -> None:
        """End the command and everything else in its namespaces."""
        self.control.close()
        with suppress(OSError):  # not ours to kill once we changed the user
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self, block: bool = True) -> int | None:
        """Return the exit status as a shell tells it; None: it still runs."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, 0 if block else os.WNOHANG)
            if pid:
                self._status = shell_status(status)
                self.control.close()
        return self._status


def start(
    config: Config, command: Command, host_socket: socket.socket
) -> CommandProcess:
    """Clone init; it prepares the namespaces while the caller goes on."""
    ours, theirs = guest.control_pair()
    user, group = os.getuid(), os.getgid()
    flags = NEW_NAMESPACES
    if command.own_userns:
        flags |= netns.CLONE_NEWUSER
    pid = netns.clone(flags)
    if pid:
        theirs.close()
        return CommandProcess(pid, ours)
    status = EXIT_SETUP
    try:
        ours.close()
        _native.set_pdeathsig(signal.SIGKILL)

        def prepare() -> guest.Guest:
            if command.own_userns:
                netns.map_root(user, group)
            return guest.prepare(config, host_socket)

        status = _run_init(theirs, command, prepare)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the daemon ended meanwhile
    except Exception as error:
        reason = limits.reason(error)
        os.write(2, f"pasta: Namespace process failed: {reason}\n".encode())
    finally:
        os._exit(status)


def _run_init(
    control: socket.socket, command: Command, prepare: Callable[[], guest.Guest]
) -> int:
    """Be the first process of the namespaces; return the exit status."""
    prepared: list[guest.Guest] = []

    def prepare_and_keep() -> guest.Guest:
        got = prepare()
        prepared.append(got)
        return got

    if not guest.report(control, prepare_and_keep):
        return EXIT_SETUP
    _private_mounts()
    if command.own_resolver:
        own_resolv_conf(prepared[0])
    netns.allow_ping()
    hostname = command.hostname or f"pasta-{socket.gethostname()}"
    with suppress(OSError):
        socket.sethostname(hostname[:HOSTNAME_MAX])
    waited = (signal.SIGCHLD, *FORWARDED)
    signals = take_signals(waited)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    server = None
    if command.factory is not None:
        server = _SocketServer(command.factory)
        poll.register(server, select.POLLIN)
        server.load()  # while its file is ours: the command may mount another there
    if not _wait_for_go(control, server, poll):
        return EXIT_SETUP
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # likewise
    _native.set_dumpable(0)
    child = os.fork()
    if child == 0:
        _execute(command, waited)
    poll.register(signals, select.POLLIN)
    keep = {signals, control.fileno(), *(server.load().held() if server else ())}
    stages.stay_as_init(null, keep, command.seccomp)
    return _supervise(control, signals, server, poll, child)


def _private_mounts() -> None:
    """Give the namespaces their own /proc; leave the host's mounts alone."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    with suppress(OSError):
        _native.mount(None, "/", None, MS_SLAVE | MS_REC)
        # Refused where /proc is partly hidden (containers): then it stays as it is.
        _native.mount("proc", "/proc", "proc", flags)


class _SocketServer:
    """Makes sockets for the daemon.

    What it takes is imported when the daemon asks, or else once the command runs: a
    command that needs no socket does not wait for it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._server: Server | None = None

    def fileno(self) -> int:
        """Return what is readable when the daemon asks."""
        return self._sock.fileno()

    def load(self) -> Server:
        """Be able to answer."""
        from passtpy.net.namespace.factory import Server

        if self._server is None:
            self._server = Server(self._sock)
        return self._server

    def serve(self) -> bool:
        """Answer one request; False: the daemon is gone."""
        return self.load().serve()


def _serve(server: _SocketServer, poll: select.poll) -> None:
    if not server.serve():
        poll.unregister(server)


def _wait_for_go(
    control: socket.socket, server: _SocketServer | None, poll: select.poll
) -> bool:
    """Make sockets until the command may start; False: it never will."""
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if server is not None and server.fileno() in ready:
            _serve(server, poll)
        if control.fileno() in ready:
            return control.recv(1) == GO


def _supervise(
    control: socket.socket,
    signals: int,
    server: _SocketServer | None,
    poll: select.poll,
    child: int,
) -> int:
    """Reap, forward signals, make sockets, until the command or the daemon ends."""
    while True:
        for fd, _ in poll.poll():
            if fd == signals:
                status = _on_signals(signals, child)
                if status is not None:
                    return status
                continue
            if server is not None and fd == server.fileno():
                _serve(server, poll)
                continue
            order = control.recv(1)
            if not order:  # the daemon is gone, and the network with it
                return EXIT_SIGNAL + signal.SIGKILL
            _send(child, order[0])


def _on_signals(signals: int, child: int) -> int | None:
    """Forward what was sent to us; return the command's status once it ended."""
    for got in read_signals(signals):
        if got.number != signal.SIGCHLD and not (
            got.from_kernel and got.number in TERMINAL
        ):
            _send(child, got.number)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return EXIT_SETUP
        if pid == child:
            return shell_status(status)
        if pid == 0:
            return None


def _send(child: int, number: int) -> None:
    with suppress(OSError):
        os.kill(child, number)
        if number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(child, signal.SIGCONT)  # a stopped command could not obey


def _execute(command: Command, blocked: tuple[int, ...]) -> None:
    """Become the command; the process ends here in any case."""
    status = EXIT_CANNOT_EXEC
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them
        resource.setrlimit(resource.RLIMIT_NOFILE, command.limits)
        path, argv = program(command.argv)
        os.execvp(path, argv)
    except OSError as error:
        status = _exec_failed(error)
    finally:
        os._exit(status)


def program(argv: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the file to run and its arguments; without any, the login shell."""
    if argv:
        return argv[0], list(argv)
    shell = os.environ.get("SHELL") or "/bin/sh"
    return shell, ["-" + os.path.basename(shell)]


def _exec_failed(error: OSError) -> int:
    text = f"pasta: Failed to start command or shell: {error.strerror}\n"
    os.write(2, text.encode())
    if error.errno == ENOENT:
        return EXIT_NOT_FOUND
    return EXIT_CANNOT_EXEC


def shell_status(status: int) -> int:
    """Return a wait status as a shell would: 128+signal when killed."""
    code = os.waitstatus_to_exitcode(status)
    return EXIT_SIGNAL - code if code < 0 else code
