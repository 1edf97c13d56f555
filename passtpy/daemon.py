# SPDX-License-Identifier: GPL-2.0-or-later
"""Start order, signals, readiness: the ways in which a guest comes into being.

Start-up time is something users wait for, so two processes share the work for a
namespace: a child enters it and configures it while this process imports what opens
the datapath and the ports. The event loop and the rest of the control plane, more than
half of all imports, are for the guest's first packet: a command runs meanwhile. That is
why some imports stand inside functions here and in session.py.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import Final, assert_never

from passtpy import limits
from passtpy.config.forwards import needs_namespace_sockets
from passtpy.config.model import (
    AttachPath,
    AttachPid,
    Config,
    Machine,
    ServeFd,
    ServeSocket,
    SpawnCommand,
)
from passtpy.errors import SetupError
from passtpy.files import Files
from passtpy.isolation import stages
from passtpy.lifecycle import LifeCycle
from passtpy.log import Log
from passtpy.net.kernel import netlink
from passtpy.net.kernel.signals import (
    FORWARDED,
    STOPPING,
    TERMINAL,
    Signal,
    take_signals,
)
from passtpy.net.namespace import command, guest, netns, tap
from passtpy.session import EXIT_FAILURE, EXIT_OK, Session
from passtpy.supervisor import Supervisor, supervisor_from

Attach = AttachPid | AttachPath
STOP_GRACE_S: Final = 5.0  # how long a command may take to obey a SIGTERM


def run(config: Config) -> int:
    """Do everything that `config` asks for; return the exit status."""
    if config.wanted_sockets or "LISTEN_FDS" in os.environ:
        from passtpy.net.kernel.passed import with_passed

        config = with_passed(config, os.environ, os.getpid())
    target = config.target
    match target:
        case SpawnCommand(argv=argv):
            return _run_command(config, argv)
        case AttachPid() | AttachPath():
            return _serve(config, partial(attach, config, target))
        case ServeSocket() | ServeFd():
            return _serve(config, partial(_await, config, target))
        case _:
            assert_never(target)


class Caller:
    """Who started us, and stays: we are in the foreground."""

    def __init__(self) -> None:
        self.supervisor = supervisor_from(os.environ, os.getpid())

    def names_are_open(self) -> None:
        """Tell that everything the command line names has been opened."""

    def ready(self, log: Log) -> None:
        """Tell that we serve; the supervisor hears it elsewhere."""

    def watch(self, session: Session) -> None:
        """Let the caller end a session that is about to run."""


class WaitingCaller(Caller):
    """Who waits until we serve from the background.

    What it left open is closed once the names are: one may be /proc/self/fd/5.
    """

    def __init__(self, inherited: list[int], write_end: int) -> None:
        self.supervisor = Supervisor()  # what it waits for is the end of the parent
        self._inherited = inherited
        self._write_end = write_end
        self._null = -1

    def names_are_open(self) -> None:
        """Close what the caller left open."""
        stages.close_inherited(self._inherited)
        self._null = os.open(os.devnull, os.O_RDWR)  # out of reach once we are ready

    def ready(self, log: Log) -> None:
        """Leave its terminal, and let it go on."""
        stages.end_with_parent(0)
        log.leave_terminal()
        for fd in range(3):  # nobody hears any more what goes wrong
            os.dup2(self._null, fd)
        os.close(self._null)
        os.write(self._write_end, b"1")
        os.close(self._write_end)


def _serve(config: Config, serve: Callable[[Caller], int]) -> int:
    """Serve from here, or from a process in the background."""
    if config.foreground:
        return serve(Caller())
    return _daemonise(config, serve)


def _run_command(config: Config, argv: tuple[str, ...]) -> int:
    """Serve a command in new namespaces; return its exit status."""
    open_files = limits.raise_files()
    files = Files(config)
    terminal = command.Terminal()
    ours, theirs = _factory_pair(config)
    own_userns = not config.netns_only
    spec = command.Command(
        argv,
        open_files,
        own_userns,
        theirs,
        config.seccomp,
        config.hostname,
        config.own_resolver,
    )
    with netlink.open_socket() as host:
        process = command.start(config, spec, host)
    if theirs is not None:
        theirs.close()
    try:
        session = Session(config, files)
        session.load_opening()
        got = guest.receive(process.control)
        session.open(got, ours)
        files.write_pid()
        signals = take_signals(FORWARDED)
        process.go()
        status = _serve_command(session, process, got, signals)
        if got.tap_fd >= 0:
            tap.leave_to_namespace(got.tap_fd)
        session.close()
    finally:
        process.kill()
        process.wait()
        terminal.take_back()
        files.close()
    return status


def _factory_pair(
    config: Config,
) -> tuple[socket.socket, socket.socket] | tuple[None, None]:
    """Return the daemon's and the factory's end, if there is a need for it."""
    needed = needs_namespace_sockets(config) or guest.follows_namespace(config)
    may_be_needed = config.conf_path or config.control or config.api_socket
    if not needed and not may_be_needed:
        return None, None
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _serve_command(
    session: Session, process: command.CommandProcess, got: guest.Guest, signals: int
) -> int:
    """Serve a command that runs already: its packets wait in the tap until we do."""

    def ended() -> bool:
        return process.wait(block=False) is not None

    def on_end() -> None:
        status = process.wait(block=False)
        if status is not None:
            session.loop.remove_reader(process.fileno())
            session.finish(status)

    def forward(got: Signal) -> None:
        if got.from_kernel and got.number in TERMINAL:
            return  # Ctrl-C: the command has it already
        process.signal(got.number)
        if got.number in STOPPING:
            session.loop.call_later(STOP_GRACE_S, process.kill)

    def loaded(load: Callable[..., bool]) -> bool:
        """Whether there is something to serve, and all is imported that it takes."""
        return load(ended) or (session.was_asked() and load())

    if not loaded(session.load):
        return _status(process)
    session.complete(got)
    session.on_signals(signals, forward)
    session.loop.add_reader(process.fileno(), on_end)
    session.announce(got)
    if not loaded(session.load_rest):
        return _status(process)
    session.isolate(got, ended)
    return session.run()


def _status(process: command.CommandProcess) -> int:
    status = process.wait()
    assert status is not None
    return status


def attach(config: Config, target: Attach, caller: Caller) -> int:
    """Serve an existing namespace until it is gone or a signal says stop."""
    limits.raise_files()
    files = Files(config)
    watch = _watch(target) if config.netns_quit else None
    try:
        namespaces = netns.open_namespaces(config, target)
        caller.names_are_open()
        ours, theirs = _factory_pair(config)
        child, control = _start_configuring(config, namespaces, theirs)
        session = Session(config, files)
        session.load_opening()
        session.load()
        got = guest.receive(control)
        session.open(got, ours)
        session.complete(got)
        control.close()
        if ours is None:
            os.kill(child, signal.SIGKILL)  # it has told all, and may be stopped
            os.waitpid(child, 0)
        life = LifeCycle(session, caller.supervisor, files.log, config.drain_timeout)
        life.take_signals()
        if watch is not None:
            watch.start(session.loop, lambda: _netns_gone(session, files.log))
        files.write_pid()
        session.announce(got)
        session.isolate(got, watch=watch)
        caller.ready(files.log)
        caller.watch(session)
        life.start(f"serving {got.ifname}" if got.ifname else "serving")
        try:
            return session.run()
        finally:
            session.close()
    finally:
        files.close()


def _watch(target: Attach) -> netns.NetnsWatch | None:
    name = netns.name_to_watch(netns.netns_path(target))
    return None if name is None else netns.NetnsWatch(name)


def _netns_gone(session: Session, log: Log) -> None:
    log.info("namespace.gone")
    session.stop(EXIT_OK)


def _start_configuring(
    config: Config, namespaces: netns.Namespaces, sockets: socket.socket | None
) -> tuple[int, socket.socket]:
    """Fork the child that joins the namespace; return where its report will come."""
    ours, theirs = guest.control_pair()
    with netlink.open_socket() as host:
        child = os.fork()
        if child == 0:
            _configure(config, namespaces, theirs, host, sockets)
    theirs.close()
    if sockets is not None:
        sockets.close()
    namespaces.close()
    return child, ours


def _configure(
    config: Config,
    namespaces: netns.Namespaces,
    control: socket.socket,
    host: socket.socket,
    sockets: socket.socket | None,
) -> None:
    """Prepare the namespace, and stay in it if sockets are to be made there."""

    def prepare() -> guest.Guest:
        from passtpy.net.namespace import factory  # noqa: F401 (while its file can be read)

        stages.keep_debuggers_away()  # the container's root would be our master
        netns.join(namespaces)
        return guest.prepare(config, host)

    status = EXIT_FAILURE
    try:
        if guest.report(control, prepare):
            if sockets is not None:
                from passtpy.net.namespace.factory import Server

                server = Server(sockets)
                stages.stay_in_namespace(server.held(), config.seccomp)
                server.serve_all()
            status = EXIT_OK
    finally:
        os._exit(status)  # even with a traceback under way: the parent tells


def _await(config: Config, machine: Machine, caller: Caller) -> int:
    """Serve virtual machines until a signal says stop, or the first one has left."""
    from passtpy.net.machine.unix_socket import open_socket

    limits.raise_files()
    files = Files(config)
    try:
        session = Session(config, files)
        machine_socket = open_socket(machine, session.user)
        caller.names_are_open()
        try:
            got = guest.for_machine(config)
            session.open(got, None)
            session.complete(got)
            session.accept_machines(machine_socket)
            life = LifeCycle(
                session, caller.supervisor, files.log, config.drain_timeout
            )
            life.take_signals()
            files.write_pid()
            session.announce(got)
            session.isolate(got)
            caller.ready(files.log)
            life.start("serving virtual machines")
            return session.run()
        finally:
            session.close()
            machine_socket.close()
    finally:
        files.close()


def _failed(child: int) -> int:
    """Return our status when the background process is not ready; it has said why.

    Unless a signal has ended it: a library may give up that way.
    """
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        raise SetupError(f"The background process was ended by signal {-status}")
    return EXIT_FAILURE


def _daemonise(config: Config, serve: Callable[[Caller], int]) -> int:
    """Serve from a background process; return once it is ready, or has failed."""
    target = config.target
    keep = {it.fd for it in config.passed_sockets}
    if isinstance(target, ServeFd):
        keep.add(target.fd)
    inherited = stages.inherited(keep)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(write_end)
        return EXIT_OK if os.read(read_end, 1) else _failed(child)
    os.close(read_end)
    os.setsid()
    stages.end_with_parent(signal.SIGTERM)  # who waits for us may lose patience
    return serve(WaitingCaller(inherited, write_end))
