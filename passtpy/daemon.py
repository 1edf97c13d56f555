# SPDX-License-Identifier: GPL-2.0-or-later
"""Start order, signals, readiness, PID file, stop.

Start-up time is something users wait for, so two processes share the work: a child
enters the namespace and configures it while this process imports the event loop and
the rest of the control plane. That is why some imports stand inside functions here.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, assert_never

from passtpy import __version__, isolation
from passtpy.addr import show_mac
from passtpy.config.model import AttachPath, AttachPid, Config, SpawnCommand
from passtpy.config.resolver import NO_RESOLVER
from passtpy.errors import SetupError
from passtpy.log import Log, LogLevel, LogSetup, open_log
from passtpy.net import command, guest, netlink, netns, tap
from passtpy.net.signals import (
    FORWARDED,
    STOPPING,
    TERMINAL,
    Signal,
    read_signals,
    take_signals,
)
from passtpy.policy.forward import needs_namespace_sockets

if TYPE_CHECKING:
    import asyncio

    from passtpy.engine import Engine
    from passtpy.net.follow import Follow
    from passtpy.net.forward import Forwarding
    from passtpy.net.nsockets import Factory

Attach = AttachPid | AttachPath

STOP_GRACE_S: Final = 5.0  # how long a command may take to obey a SIGTERM
FILE_MODE: Final = 0o600
EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1


def run(config: Config) -> int:
    """Do everything that `config` asks for; return the exit status."""
    match config.target:
        case SpawnCommand(argv=argv):
            return _run_command(config, argv)
        case AttachPid() | AttachPath() as target:
            if config.foreground:
                return _attach(config, target, lambda log: None)
            return _daemonise(config, target)
        case _:
            assert_never(config.target)


class Files:
    """What is opened before the user changes: log, PID file, capture."""

    def __init__(self, config: Config) -> None:
        self.log = _open_log(config)
        self._pid_path = os.path.abspath(config.pid_file) if config.pid_file else None
        self._pid_fd = _create("PID file", config.pid_file)
        self.pcap_fd = _create("capture file", config.pcap)
        for text in config.warnings:
            self.log.warning("config", text=text)

    def write_pid(self) -> None:
        """Tell our PID: this is the process that serves the guest."""
        if self._pid_fd >= 0:
            os.write(self._pid_fd, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Put the capture on the disk, remove the PID file, close the log."""
        if self.pcap_fd >= 0:
            with suppress(OSError):  # a pipe has no disk
                os.fsync(self.pcap_fd)
            os.close(self.pcap_fd)
            self.pcap_fd = -1
        if self._pid_path is not None:
            self._forget_pid(self._pid_path)
        self.log.close()

    def _forget_pid(self, path: str) -> None:
        """Remove the PID file; empty it where we lost the right to remove it."""
        try:
            if os.path.samestat(os.stat(path), os.fstat(self._pid_fd)):
                os.unlink(path)
        except OSError:
            os.ftruncate(self._pid_fd, 0)
        os.close(self._pid_fd)


def _open_log(config: Config) -> Log:
    setup = LogSetup(
        level=config.log_level,
        format=config.log_format,
        file=config.log_file,
        file_size=config.log_size,
        header=f"passtpy {__version__}: pasta ({os.getpid()})",
        syslog_ident=None if config.foreground else "pasta",
    )
    return open_log(setup)


def _create(what: str, path: str | None) -> int:
    if path is None:
        return -1
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags, FILE_MODE)
    except OSError as error:
        raise SetupError(f"Couldn't open {what} {path}: {error.strerror}") from error


class Session:
    """A guest being served: the engine, its loop, and what makes both stop."""

    def __init__(self, config: Config, files: Files) -> None:
        import uvloop

        self._config = config
        self._files = files
        self._user = isolation.user_to_become(config.runas)
        self._engine: Engine | None = None
        self._factory: Factory | None = None
        self._forwarding: Forwarding | None = None
        self._follow: Follow | None = None
        self._resolver = NO_RESOLVER
        self._far_end: socket.socket | None = None  # of the stand-in for a tap
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._done: asyncio.Future[int] = self.loop.create_future()
        if self._user is not None:
            isolation.preload()

    def open(self, got: guest.Guest, sockets: socket.socket | None) -> None:
        """Create the datapath, its policy and the listening sockets.

        `sockets` leads to the process that makes sockets in the namespace.
        """
        from passtpy.engine import Engine, open_datapath
        from passtpy.net.follow import Follow
        from passtpy.net.forward import Forwarding
        from passtpy.net.nsockets import Factory, SocketStock
        from passtpy.net.resolv import read_resolver
        from passtpy.policy.decide import Decider
        from passtpy.policy.guest import GuestAddresses
        from passtpy.policy.rules import rules_from_config
        from passtpy.services.registry import services_from_config

        config, log, stock = self._config, self._files.log, None
        for text in got.warnings:
            log.warning("namespace", text=text)
        seen = GuestAddresses.from_host(got.host)
        resolver = self._resolver = read_resolver() or NO_RESOLVER
        decider = Decider(rules_from_config(config, got.host, resolver), seen)
        services = services_from_config(config, got.host, seen, resolver)
        datapath = open_datapath(config, got, self._tap(got), self._files.pcap_fd)
        if sockets is not None:
            self._factory = Factory(sockets, self._factory_gone)
            if needs_namespace_sockets(config):
                stock = SocketStock(self._factory, config.preserve_source)
        relay = None
        if config.multicast_relay and not config.splice_only:
            from passtpy.net.multicast import Relay

            relay = Relay(config, got.host, datapath, seen, log)
        self._engine = Engine(
            datapath, decider, services, log, stock=stock, relay=relay
        )
        if got.plan is not None:
            self._follow = Follow(config, got, got.plan, resolver, seen, log)
        self._forwarding = Forwarding(config, got.host, datapath, self._factory, log)
        self._forwarding.open()

    def isolate(self) -> None:
        """Give up every privilege; only resolv.conf is opened by name after this."""
        if self._user is not None:
            isolation.become(self._user)
        isolation.lock()

    def announce(self, got: guest.Guest) -> None:
        """Log what the guest has got: from now on we serve it."""
        from passtpy.policy.summary import summary

        log, host = self._files.log, got.host
        if got.offloads != tap.ALL_OFFLOADS:
            log.info("tap.offloads", granted=hex(got.offloads))
        if log.enabled(LogLevel.INFO):
            lines = summary(self._config, host, self._resolver, got.ifname)
            log.say("summary", lines)
        log.info(
            "namespace.ready",
            interface=got.ifname,
            mac=show_mac(host.guest_mac or bytes(6)),
            mtu=got.mtu,
            template4=host.template4,
            template6=host.template6,
            address4=host.guest4,
            address6=host.guest6,
            gateway4=host.gateway4,
            gateway6=host.gateway6,
        )

    def run(self) -> int:
        """Serve until something says stop; return the exit status."""
        assert self._engine is not None
        gc.freeze()  # what exists by now stays: collections need not look at it again
        self._engine.start(self.loop, self._tap_gone)
        if self._factory is not None:
            self._factory.start(self.loop)
        if self._forwarding is not None:
            self._forwarding.start(self.loop)
        if self._follow is not None:
            self._follow.start(self.loop, self._engine, self._factory)
        if self._config.stats:
            from passtpy.control.stats import StatsTable

            StatsTable(self._config.stats, self._engine.statistics).start(self.loop)
        return self.loop.run_until_complete(self._done)

    def stop(self, status: int) -> None:
        """Make run() return `status`; the first one wins."""
        if not self._done.done():
            self._done.set_result(status)

    def close(self) -> None:
        """Release the datapath and the loop."""
        if self._follow is not None:
            self._follow.close()
        if self._forwarding is not None:
            self._forwarding.close()
        if self._engine is not None:
            self._engine.stop()
        if self._factory is not None:
            self._factory.close()
        self.loop.close()

    def on_signals(
        self, numbers: tuple[int, ...], handle: Callable[[Signal], None]
    ) -> None:
        """Call `handle` for each of these signals instead of what they normally do."""
        fd = take_signals(numbers)

        def ready() -> None:
            for got in read_signals(fd):
                handle(got)

        self.loop.add_reader(fd, ready)

    def _tap(self, got: guest.Guest) -> int:
        """Return the guest's tap, or a stand-in when it has none."""
        if got.tap_fd >= 0:
            return got.tap_fd
        stand_in, self._far_end = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        )
        return stand_in.detach()

    def _factory_gone(self) -> None:
        """Init ends with the command; in any other namespace nobody has to end."""
        if not isinstance(self._config.target, SpawnCommand):
            text = "no new spliced flows inwards, no changes to the interface"
            self._files.log.error("factory.gone", text=text)

    def _tap_gone(self, errno: int) -> None:
        self._files.log.error("tap.gone", reason=os.strerror(errno))
        self.stop(EXIT_FAILURE)


def _run_command(config: Config, argv: tuple[str, ...]) -> int:
    """Serve a command in new namespaces; return its exit status."""
    limits = isolation.raise_limits()
    files = Files(config)
    terminal = command.Terminal()
    ours, theirs = _factory_pair(config)
    own_userns = not config.netns_only
    spec = command.Command(argv, limits, own_userns, theirs, config.hostname)
    with netlink.open_socket() as host:
        process = command.start(config, spec, host)
    if theirs is not None:
        theirs.close()
    try:
        session = Session(config, files)
        got = guest.receive(process.control)
        session.open(got, ours)
        files.write_pid()
        session.isolate()
        session.announce(got)
        status = _serve_command(session, process)
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
    if not needs_namespace_sockets(config) and not guest.follows_namespace(config):
        return None, None
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _serve_command(session: Session, process: command.CommandProcess) -> int:
    def ended() -> None:
        status = process.wait(block=False)
        if status is not None:
            session.loop.remove_reader(process.fileno())
            session.stop(status)

    def forward(got: Signal) -> None:
        if got.from_kernel and got.number in TERMINAL:
            return  # Ctrl-C: the command has it already
        process.signal(got.number)
        if got.number in STOPPING:
            session.loop.call_later(STOP_GRACE_S, process.kill)

    session.on_signals(FORWARDED, forward)
    session.loop.add_reader(process.fileno(), ended)
    process.go()
    return session.run()


def _attach(config: Config, target: Attach, ready: Callable[[Log], None]) -> int:
    """Serve an existing namespace until it is gone or a signal says stop."""
    isolation.raise_limits()
    files = Files(config)
    watch = netns.NetnsWatch(netns.netns_path(target)) if config.netns_quit else None
    try:
        ours, theirs = _factory_pair(config)
        child, control = _start_configuring(config, target, theirs)
        session = Session(config, files)
        got = guest.receive(control)
        session.open(got, ours)
        control.close()
        if ours is None:
            os.waitpid(child, 0)
        session.on_signals(STOPPING, lambda got: session.stop(EXIT_OK))
        if watch is not None:
            watch.start(session.loop, lambda: _netns_gone(session, files.log))
        files.write_pid()
        session.isolate()
        session.announce(got)
        ready(files.log)
        try:
            return session.run()
        finally:
            session.close()
    finally:
        files.close()


def _netns_gone(session: Session, log: Log) -> None:
    log.info("namespace.gone")
    session.stop(EXIT_OK)


def _start_configuring(
    config: Config, target: Attach, sockets: socket.socket | None
) -> tuple[int, socket.socket]:
    """Fork the child that joins the namespace; return where its report will come."""
    namespaces = netns.open_namespaces(config, target)
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
        from passtpy.net import factory  # noqa: F401 (while its file can be read)

        netns.join(namespaces)
        return guest.prepare(config, host)

    status = EXIT_FAILURE
    try:
        if guest.report(control, prepare):
            if sockets is not None:
                from passtpy.net.factory import Server

                isolation.stay_in_namespace(sockets.fileno())
                Server(sockets).serve_all()
            status = EXIT_OK
    finally:
        os._exit(status)  # even with a traceback under way: the parent tells


def _daemonise(config: Config, target: Attach) -> int:
    """Serve from a background process; return once it is ready, or has failed."""
    isolation.close_inherited()
    read_end, write_end = os.pipe()
    if os.fork():
        os.close(write_end)
        return EXIT_OK if os.read(read_end, 1) else EXIT_FAILURE
    os.close(read_end)
    os.setsid()
    isolation.end_with_parent(signal.SIGTERM)  # who waits for us may lose patience

    def ready(log: Log) -> None:
        isolation.end_with_parent(0)
        log.leave_terminal()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        os.chdir("/")
        os.write(write_end, b"1")
        os.close(write_end)

    return _attach(config, target, ready)
