# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest being served: everything between the first socket and the last.

Who starts it, and how its guest comes into being, is for daemon.py to know.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from passtpy import limits, loading
from passtpy.addr import show_mac
from passtpy.config.forwards import tables_from_config, unix_targets
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.model import Config, RunAs, Seccomp, SpawnCommand
from passtpy.config.resolver import NO_RESOLVER, Resolver
from passtpy.config.view import View
from passtpy.control.sockets import ControlSockets
from passtpy.errors import SetupError
from passtpy.failures import log_failures
from passtpy.files import Files
from passtpy.flow import IPPROTO_TCP
from passtpy.governing import Governed, govern
from passtpy.isolation import stages
from passtpy.isolation.calls import Process
from passtpy.log import LogLevel
from passtpy.net.kernel.signals import Signal, read_signals
from passtpy.net.namespace import guest, tap
from passtpy.record import replace
from passtpy.traces import describe

if TYPE_CHECKING:
    import asyncio

    from passtpy.config.forwards import Forward
    from passtpy.control.server import WhoIs
    from passtpy.controlled import Control
    from passtpy.datapath import Datapath, Records
    from passtpy.egress.model import Policy
    from passtpy.egress.source import PolicySource
    from passtpy.engine import Engine
    from passtpy.flow import FlowRecord
    from passtpy.net.following.follow import Follow
    from passtpy.net.forwarding.listeners import Forwarding
    from passtpy.net.host.lookout import Lookout
    from passtpy.net.host.named import Folders
    from passtpy.net.host.template import Plan
    from passtpy.net.machine.acceptor import Acceptor
    from passtpy.net.machine.unix_socket import MachineSocket
    from passtpy.net.namespace.factory_client import Factory
    from passtpy.net.namespace.netns import NetnsWatch
    from passtpy.policy.decide import Decider
    from passtpy.reloading import Reload, Reloaded, Reloading

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1
GC_THRESHOLD: Final = 700  # Python's own, which was higher while we started

# A command has ended: how long what it sent has to go out, and how often we look
FINISH_S: Final = 0.3
FINISH_LOOK_S: Final = 0.005


def _never() -> bool:
    return False


class Session:
    """A guest being served: the engine, its loop, and what makes both stop."""

    def __init__(self, config: Config, files: Files) -> None:
        self._config = config
        self._files = files
        self._user = stages.user_to_become(config.runas)
        self._datapath: Datapath | None = None
        self._early: Records = ()  # before the engine was there
        self._engine: Engine | None = None
        self._factory: Factory | None = None
        self._forwarding: Forwarding | None = None
        self._follow: Follow | None = None
        self._acceptor: Acceptor | None = None
        self._socket: MachineSocket | None = None
        dialects = config.conf_path, config.api_socket, config.gvproxy_services
        asked = any((config.control_enabled, config.metrics, *dialects))
        more = loading.CONTROL if asked else ()
        self._imports = stages.imports(more)
        self._decider: Decider | None = None
        self._got: guest.Guest | None = None
        self._sockets: ControlSockets | None = None
        self.obey(self.reload, lambda: self.stop(EXIT_OK))
        self._control: Control | None = None
        self._source: PolicySource | None = None
        self._policy: Policy | None = None
        if config.has_policy:
            self._read_policy()
        self._governed = Governed()
        self._lookout: Lookout | None = None
        self._folders: Folders = ()  # of UNIX sockets
        self._reloading: Reloading | None = None
        self._resolver = NO_RESOLVER
        self._seen = GuestAddresses()
        self._far_end: socket.socket | None = None  # of the stand-in for a tap
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Future[int] | None = None
        self._serving = False

    def _read_policy(self) -> None:
        from passtpy.egress.source import PolicySource

        config = self._config
        said = config.policy, config.policy_words, config.policy_mode
        self._source = PolicySource(*said)
        self._policy = self._source.load()

    def load_opening(self) -> None:
        """Import what open() needs, while a child prepares the namespace."""
        for name in loading.OPENING:
            importlib.import_module(name)

    def load(self, ended: Callable[[], bool] = _never) -> bool:
        """Import what serves a guest; False: what is to be served has ended.

        That is most of a start. Whoever has somebody to wait for does it meanwhile.
        """
        for name in loading.SERVING:
            if ended():
                return False
            importlib.import_module(name)
        return True

    def load_rest(self, ended: Callable[[], bool] = _never) -> bool:
        """Import what will be used later; False: what is to be served has ended."""
        while not ended():
            if next(self._imports, None) is None:
                return True
        return False

    def was_asked(self) -> bool:
        """Tell whether a command that has ended left something on its way out.

        What it sent without waiting (a datagram, the bytes of a connection to the
        host's loopback) is in the tap or in a listening socket, and is to arrive.
        """
        from passtpy.datapath import wants_out

        assert self._datapath is not None
        self._early = *self._early, *self._datapath.turn()
        return any(map(wants_out, self._early))

    def open(self, got: guest.Guest, sockets: socket.socket | None) -> None:
        """Create the datapath and the listening sockets: what the guest has to find.

        `sockets` leads to the process that makes sockets in the namespace.
        """
        from passtpy.datapath import open_datapath
        from passtpy.net.forwarding.listeners import Forwarding
        from passtpy.net.namespace.factory_client import Factory

        config, log = self._config, self._files.log
        for text in got.warnings:
            log.warning("namespace", text=text)
        narrow = limits.narrowness()
        if narrow is not None:
            log.info("memory.limited", text=narrow)
        self._resolver = self._read_resolver()
        view = View.of(config, got.host, self._resolver)
        datapath = open_datapath(view, got, self._tap(got), self._files.pcap_fd)
        self._datapath = datapath
        if sockets is not None:
            self._factory = Factory(sockets, self._factory_gone, self._factory_silent)
        tables = tables_from_config(config)
        self._forwarding = Forwarding(
            config, tables, datapath, self._factory, log, self._forwards_changed
        )
        self._forwarding.open()
        if config.unix_folders:
            from passtpy.net.host.named import open_folders

            self._folders = open_folders(config.unix_folders)
        self._sockets = ControlSockets(config, log)

    def complete(self, got: guest.Guest) -> None:
        """Create what serves the guest: policy, services, the loop that runs them."""
        from passtpy.engine import Engine
        from passtpy.net.kernel.eventloop import new_event_loop
        from passtpy.net.kernel.source import SourceLookup
        from passtpy.net.namespace.factory_client import SocketStock
        from passtpy.policy.decide import Decider
        from passtpy.policy.rules import rules_from_view
        from passtpy.services.registry import services_from_view

        config, log, stock = self._config, self._files.log, None
        datapath = self._datapath
        assert datapath is not None
        if config.seccomp is not Seccomp.OFF:
            stages.refuse_rings()
        self._loop = new_event_loop()
        self._done = self._loop.create_future()
        log_failures(log, self._loop)
        seen = self._seen = GuestAddresses.from_host(got.host)
        # Without a way into the namespace all goes over the tap.
        rules_for = config if self._factory else replace(config, splice=False)
        view = View.of(rules_for, got.host, self._resolver)
        source_towards = SourceLookup(config.outbound_if4, config.outbound_if6)
        decider = Decider(rules_from_view(view), seen, source_towards)
        services = services_from_view(view, seen)
        if self._factory is not None:
            stock = SocketStock(self._factory, config.preserve_source)
        relay = None
        if config.multicast_relay and not config.splice_only:
            from passtpy.net.forwarding.multicast import Relay

            relay = Relay(config, got.host, datapath, seen, log)
        self._engine = Engine(
            datapath, decider, services, view, log, stock=stock, relay=relay
        )
        self._decider, self._got = decider, got
        ruled = self._files, self.loop, self._source, self._policy
        self._governed = govern(self._engine, decider, *ruled)

    def _read_resolver(self) -> Resolver:
        from passtpy.net.host.resolv import PATH, UnusableError, read_resolver

        try:
            return read_resolver() or NO_RESOLVER
        except (UnusableError, OSError) as error:
            self._files.log.warning("resolver.unusable", path=PATH, reason=str(error))
            return NO_RESOLVER

    def accept_machines(self, machine_socket: MachineSocket) -> None:
        """Accept machines on this socket, once we run."""
        from passtpy.net.machine.acceptor import Acceptor
        from passtpy.net.machine.transport import transport_for

        assert self._engine is not None
        log, welcome = self._files.log, self._engine.welcome
        self._socket = machine_socket
        self._acceptor = Acceptor(
            machine_socket,
            transport_for(self._config, self._engine.datapath, log, welcome),
            log,
            joined=welcome,
            left=self._machine_left,
        )

    def isolate(
        self,
        got: guest.Guest,
        ended: Callable[[], bool] = _never,
        watch: NetnsWatch | None = None,
    ) -> None:
        """Give up every privilege; nothing is imported or opened by name after this.

        A command runs meanwhile (its packets wait); for one that has `ended` nothing
        is looked after any more.
        """
        self.load_rest()
        self._prepare_ping()
        if not ended() or self._config.log_files > 1:
            self._keep_an_eye(got, watch)
        self._files.log.import_no_more()
        kept = stages.leave_files(self._user, self._config.chroot_fallback)
        if kept is not None:
            self._files.log.warning("root.kept", reason=kept)
        stages.lock()
        may_signal = isinstance(self._config.target, SpawnCommand)
        kept = stages.restrict(self._process, may_signal=may_signal)
        if kept is not None:
            self._files.log.info("landlock.missing", reason=kept)
        self._files.start_writing(stages.hold_in_thread)
        if self._datapath is not None:
            self._datapath.pcap_run()

    @property
    def _process(self) -> Process:
        return Process.PASST if self._config.for_machine else Process.PASTA

    def _keep_an_eye(self, got: guest.Guest, watch: NetnsWatch | None) -> None:
        """Start what looks at files for us, and what depends on it."""
        from passtpy.net.host.lookout_process import Orders, start, who_is
        from passtpy.net.kernel.local import name_of
        from passtpy.reloading import Reloading

        made = self._sockets
        owned = list(made.owned) if made is not None else []
        if self._socket is not None and self._socket.path is not None:
            owned.append(self._socket.path)
        if self._forwarding is not None:
            owned += self._forwarding.files()
        names = tuple(filter(None, map(name_of, owned)))
        logs = self._files.reopened(self._config)
        fixed = self._user, logs, self._source, names, self._config.seccomp
        orders = Orders(
            *fixed,
            unix_targets(self._config),
            folders=self._folders,
            log_files=self._config.log_files,
        )
        try:
            if watch is not None:
                orders = replace(orders, namespace=watch.place)
            self._lookout = start(orders)
        except OSError as error:
            raise SetupError(f"Couldn't start a process: {error.strerror}") from error
        for _, fd in self._folders:
            os.close(fd)
        if watch is not None:
            self._lookout.on_namespace_gone(watch.tell)
            watch.leave_place()
        if self._forwarding is not None:
            self._forwarding.name_by(self._lookout)
        assert self._engine is not None
        self._engine.connect_by(self._lookout.connect)
        said = (
            self._config,
            self._files,
            self._lookout,
            self._engine,
            self._governed.policed,
        )
        self._reloading = Reloading(*said)
        if self._source is not None:
            self._source.close()  # a folder leads everywhere, and is the lookout's now
        if got.plan is not None:
            self._follow = self._follow_host(got, got.plan)
        if made is not None and made.made:
            if self._forwarding is not None:
                self._forwarding.prepare()
            _, depth = who_is(os.getpid())
            self._control = self._make_control(made, self._lookout.who_is, depth)

    def _prepare_ping(self) -> None:
        config, datapath, user = self._config, self._datapath, self._user
        if not config.icmp or datapath is None:
            return
        from passtpy.net.kernel.ping import prepare_ping

        sockets = prepare_ping(datapath, None if user is None else user.gid)
        if sockets:
            self._files.log.debug("ping.raw", sockets=sockets)

    def _make_control(
        self, sockets: ControlSockets, who_is: WhoIs, depth: int
    ) -> Control:
        from passtpy.control.server import Outside
        from passtpy.controlled import Control, Parts

        assert self._engine is not None
        assert self._decider is not None
        assert self._forwarding is not None
        assert self._got is not None
        parts = Parts(
            self._config,
            self._got,
            self._engine,
            self._decider,
            self._forwarding,
            self._files.log,
            *self._governed,
            *self._obeyed,
        )
        admit = Outside(who_is, depth)
        return Control(sockets.made, parts, sockets.owner, admit, who_is)

    def _forwards_changed(self, forwards: tuple[Forward, ...]) -> None:
        assert self._engine is not None
        view = self._engine.view
        self._engine.tell(View.of(view.config, view.host, view.resolver, forwards))

    def _follow_host(self, got: guest.Guest, plan: Plan) -> Follow:
        from passtpy.net.following.follow import Follow
        from passtpy.net.host.resolv import ResolverFeed

        config, log, resolver = self._config, self._files.log, self._resolver
        feed = ResolverFeed(None if resolver is NO_RESOLVER else resolver)
        if self._lookout is not None:
            self._lookout.on_resolver(feed.hear)
        return Follow(config, got, plan, resolver, self._seen, log, feed)

    def announce(self, got: guest.Guest) -> None:
        """Log what the guest has got, while whatever it takes can be imported."""
        log, host = self._files.log, got.host
        if got.tap_fd >= 0 and got.offloads != tap.ALL_OFFLOADS:
            log.info("tap.offloads", granted=hex(got.offloads))
        if log.enabled(LogLevel.INFO):
            from passtpy.control.summary import bound, qemu_options, summary

            if self._config.conf_path is not None:
                log.say("summary", (bound(self._config.conf_path),))
            lines = summary(View.of(self._config, host, self._resolver), got.ifname)
            log.say("summary", lines)
            if self._socket is not None and self._socket.path is not None:
                log.say("summary", qemu_options(self._config, self._socket.path))
        place: dict[str, object] = {
            "interface": got.ifname,
            "mac": show_mac(host.guest_mac or bytes(6)),
        }
        if self._socket is not None:
            place = {"socket": self._socket.path}
        log.info(
            "namespace.ready" if self._socket is None else "machine.awaited",
            **place,
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
        assert self._done is not None
        if self._done.done():
            return self._done.result()
        gc.freeze()  # what exists by now stays: collections need not look at it again
        gc.set_threshold(GC_THRESHOLD)
        try:
            return self.loop.run_until_complete(self._serve())
        except Exception as error:  # in the background nobody else would tell
            if self._serving:
                self._files.log.failure("serve.failed", error)
            else:
                self._files.log.error("loop.missing", error=describe(error))
            raise

    async def _serve(self) -> int:
        """Shut the door, then let packets in; return the exit status.

        Here, because the loop makes a pair of sockets for itself when it starts.
        """
        assert self._engine is not None
        assert self._done is not None
        if not stages.shut(self._process, self._config.seccomp):
            self._files.log.warning("seccomp.missing", text="unknown architecture")
        self._serving = True
        self._engine.start(self.loop, self._tap_gone, self._early)
        if self._governed.policed is not None:
            self._governed.policed.start(self.loop)
        if self._factory is not None:
            self._factory.start(self.loop)
        if self._forwarding is not None:
            self._forwarding.start(self.loop)
        if self._follow is not None:
            self._follow.start(self.loop, self._engine, self._factory)
        if self._config.stats:
            from passtpy.control.stats import StatsTable

            sink, source = self._files.stats, self._engine.statistics
            StatsTable(self._config.stats, source, sink).start(self.loop)
        if self._acceptor is not None:
            self._acceptor.start(self.loop)
        if self._lookout is not None:
            self._lookout.start(self.loop)
        if self._reloading is not None:
            self._reloading.start(self.loop)
        if self._control is not None:
            self._control.start(self.loop)
        try:
            return await self._done
        finally:
            if self._follow is not None:
                await self._follow.stop()

    def obey(self, reload: Reload, stop: Callable[[], None]) -> None:
        """Have these done when a control socket is told to: what signals do as well."""
        self._obeyed = reload, stop

    def reload(self, done: Reloaded) -> None:
        """Open log and audit again, and apply the policy to open flows."""
        assert self._reloading is not None
        self._reloading.begin(done)

    def refuse_connections(self) -> None:
        """Let no TCP connection begin any more, from either side."""
        assert self._engine is not None
        assert self._forwarding is not None
        self._engine.refuse_connections()
        self._forwarding.stop_listening(IPPROTO_TCP)

    def pages(self) -> Iterator[Sequence[FlowRecord]]:
        """Yield open flows, a page at a time; packets may move between two."""
        assert self._engine is not None
        return self._engine.pages()

    def statistics(self) -> Mapping[str, int]:
        """Return every counter."""
        assert self._engine is not None
        return self._engine.statistics()

    def finish(self, status: int) -> None:
        """Return `status` soon: once what is on its way has gone out."""
        poll = select.poll()
        assert self._datapath is not None
        poll.register(self._datapath.fileno(), select.POLLIN)
        until = self.loop.time() + FINISH_S

        def look(quiet: int) -> None:
            quiet = 0 if poll.poll(0) else quiet + 1
            if quiet > 1 or self.loop.time() > until:
                self.stop(status)
            else:
                self.loop.call_later(FINISH_LOOK_S, look, quiet)

        look(0)

    def stop(self, status: int) -> None:
        """Make run() return `status`; the first one wins."""
        if self._done is not None and not self._done.done():
            self._done.set_result(status)

    def close(self) -> None:
        """Release the datapath and the loop."""
        if self._control is not None:
            self._control.close()
        if self._sockets is not None:
            self._sockets.close()
        if self._acceptor is not None:
            self._acceptor.close()
        if self._follow is not None:
            self._follow.close()
        if self._forwarding is not None:
            self._forwarding.close()
        if self._governed.policed is not None:
            self._governed.policed.close()
        if self._engine is not None:
            self._engine.stop()
        elif self._datapath is not None:
            self._datapath.close()
        if self._factory is not None:
            self._factory.close()
        if self._reloading is not None:
            self._reloading.finish()
        if self._lookout is not None:
            self._lookout.close()
        if self._loop is not None:
            self._loop.close()

    def on_signals(self, fd: int, handle: Callable[[Signal], None]) -> None:
        """Call `handle` for each signal on this descriptor, see take_signals()."""

        def ready() -> None:
            for got in read_signals(fd):
                handle(got)

        self.loop.add_reader(fd, ready)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Return what everything runs on, once it is complete."""
        assert self._loop is not None
        return self._loop

    @property
    def user(self) -> RunAs | None:
        """Return whom we become in isolate()."""
        return self._user

    def _tap(self, got: guest.Guest) -> int:
        """Return the guest's tap, or a stand-in when it has none; -1: yet to come."""
        if got.tap_fd >= 0 or self._config.for_machine:
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

    def _factory_silent(self, silent: bool) -> None:
        if silent:
            text = "stopped? no new spliced flows inwards, no changes until it answers"
            self._files.log.error("factory.silent", text=text)
        else:
            self._files.log.info("factory.answers")

    def _machine_left(self) -> None:
        if self._config.one_off:
            self.stop(EXIT_OK)

    def _tap_gone(self, errno: int) -> None:
        if self._acceptor is not None:
            self._acceptor.gone(errno)
            return
        self._files.log.error("tap.gone", reason=os.strerror(errno))
        self.stop(EXIT_FAILURE)
