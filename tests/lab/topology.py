# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: remote – veth – host – translator – guest, each a network namespace.

The host sees the remote on its wire and two gateway addresses that belong to the
remote as well; they exist because a translator maps the gateway's address to the
host's loopback, which must not be the address that tests talk to. Servers on the
remote therefore bind to ``REMOTE4`` or ``REMOTE6``, not to all addresses.
"""

import itertools
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

from tests.lab.namespace import NETNS_DIR, LabError, Namespace, wait_until
from tests.lab.process import Process
from tests.lab.translators import Attachment, Translator

REMOTE4, REMOTE6 = "198.51.100.1", "2001:db8:2::1"
HOST4, HOST6 = "198.51.100.2", "2001:db8:2::2"
GATEWAY4, GATEWAY6 = "198.51.100.254", "2001:db8:2::fe"
WIRE_MTU = 65520
READY_TIMEOUT = 60.0
PREFIX = "passtpylab"

# Enough for the connections/s rows: each connection leaves a TIME_WAIT behind.
PORT_RANGE = "1024 65535"
# Ports that tests ask for by their numbers. Whoever connects would get one of them now
# and then, and keep it for a minute after its end.
NAMED_PORTS = (
    "1080,1900,2222,2375,3128,5000-5399,7000-9999,18000-18999,34567,34998,40000-40199"
)

_serial = itertools.count()
_reap_once = threading.Lock()


def _remote_setup(host: str) -> str:
    return f"""\
link add wire0 mtu {WIRE_MTU} type veth peer name eth0 mtu {WIRE_MTU} netns {host}
addr add {REMOTE4}/24 dev wire0
addr add {GATEWAY4}/24 dev wire0
addr add {REMOTE6}/64 dev wire0 nodad
addr add {GATEWAY6}/64 dev wire0 nodad
link set wire0 up
"""


HOST_SETUP = f"""\
addr add {HOST4}/24 dev eth0
addr add {HOST6}/64 dev eth0 nodad
link set eth0 up
route add default via {GATEWAY4}
route add ::/0 via {GATEWAY6}
"""


class Lab:
    """Remote and host namespaces, and any number of guests; a context manager.

    Names carry the process id and a serial number, so labs of parallel test runs
    do not meet, and what a killed run left behind is recognised and removed.
    """

    def __init__(self) -> None:
        self._tag = f"{PREFIX}-{os.getpid()}-{next(_serial)}"
        self._stack = ExitStack()
        self._guests = itertools.count()
        self.remote: Namespace
        self.host: Namespace
        self.dir: Path

    def __enter__(self) -> Self:
        if _reap_once.acquire(blocking=False):
            reap_dead_labs()
        with self._stack:
            self.dir = Path(mkdtemp(prefix=f"{PREFIX}-"))
            self._stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
            self.dir.chmod(0o755)
            self.remote = self._namespace("remote")
            self.host = self._namespace("host")
            self.remote.ip("-batch", "-", batch=_remote_setup(self.host.name))
            self.host.ip("-batch", "-", batch=HOST_SETUP)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _namespace(self, role: str) -> Namespace:
        made = Namespace.create(f"{self._tag}-{role}")
        self._stack.callback(made.delete)
        made.sysctl("net.ipv4.ip_local_port_range", PORT_RANGE)
        made.sysctl("net.ipv4.ip_local_reserved_ports", NAMED_PORTS)
        made.sysctl("net.ipv4.ping_group_range", "0 2147483647")
        made.sysctl("net.ipv4.ip_forward", "0")
        made.sysctl("net.ipv6.conf.all.forwarding", "0")
        return made

    def guest(self) -> Namespace:
        """A fresh empty namespace for a translator to attach to."""
        return self._namespace(f"guest{next(self._guests)}")

    def start(
        self,
        where: Namespace,
        *argv: str,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a background process, to be ended with the lab at the latest."""
        process = where.start(*argv, log_dir=self.dir, user=user, env=env)
        self._stack.callback(process.stop)
        return process

    def attach(
        self, translator: Translator, options: Attachment | None = None
    ) -> "Attached":
        """Run a translator on a fresh guest and wait until the guest is configured."""
        chosen = options or Attachment()
        if not translator.needs_guest:
            return Attached(self, self.host, None)
        guest = self.guest()
        translator.prepare(guest)
        argv = translator.attach_command(guest, chosen)
        env = {**translator.env, **chosen.env}
        attached = Attached(self, guest, self.start(self.host, *argv, env=env))
        try:
            attached.wait_ready(chosen)
        except BaseException:
            attached.close()
            raise
        return attached

    def spawn(
        self,
        translator: Translator,
        *argv: str,
        extra: Sequence[str] = (),
        user: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> "Attached":
        """Let a translator run a command in a namespace that it makes itself.

        The command must live for as long as the guest is used, as ``sleep`` does.
        """
        words = translator.spawn_command(argv, extra)
        if words is None:
            raise LabError(f"{translator.name} cannot run a command")
        process = self.start(
            self.host, *words, user=user, env={**translator.env, **(env or {})}
        )
        try:
            guest = self._guest_of(process)
        except BaseException:
            process.stop()
            raise
        attached = Attached(self, guest, process)
        attached.wait_ready(Attachment(ipv4="-6" not in extra, ipv6="-4" not in extra))
        return attached

    def _guest_of(self, process: Process) -> Namespace:
        """The namespace of the first descendant that left the host's."""
        home = self.host.path.stat().st_ino
        found: list[int] = []

        def left_home() -> bool:
            if not process.running():
                raise LabError(f"translator ended: {process.complaint()}")
            for pid in process.tree():
                with suppress(OSError):  # it has just ended
                    path = Path(f"/proc/{pid}/ns/net")
                    if pid != process.pid and path.stat().st_ino != home:
                        found.append(pid)
            return bool(found)

        wait_until(left_home, READY_TIMEOUT, "a descendant in a new namespace")
        return Namespace.of_process(found[0])


class Attached:
    """A translator at work and the guest that it serves."""

    def __init__(self, lab: Lab, guest: Namespace, process: Process | None) -> None:
        self.lab = lab
        self.guest = guest
        self.process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def wait_ready(self, options: Attachment) -> None:
        """Wait for the guest's routes and the translator's listening ports."""
        wait_until(lambda: self._configured(options), READY_TIMEOUT, "guest configured")
        for where, kind, ports in (
            (self.lab.host, "tcp", options.tcp_ports),
            (self.lab.host, "udp", options.udp_ports),
            (self.guest, "tcp", options.tcp_ns_ports),
            (self.guest, "udp", options.udp_ns_ports),
        ):
            for port in ports:
                where.wait_bound(kind, port)

    def _configured(self, options: Attachment) -> bool:
        self.check_alive()
        ready4 = self.guest.has_route4() or not options.ipv4
        ready6 = self.guest.has_route6() or not options.ipv6
        return ready4 and ready6

    def check_alive(self) -> None:
        """``LabError`` with its last words if the translator has ended."""
        if self.process and not self.process.running():
            status = self.process.popen.returncode
            raise LabError(f"translator ended ({status}): {self.process.complaint()}")

    def cpu_seconds(self) -> float:
        return self.process.cpu_seconds() if self.process else 0.0

    def waited_seconds(self) -> float:
        return self.process.waited_seconds() if self.process else 0.0

    def rss_bytes(self) -> int:
        return self.process.rss_bytes() if self.process else 0

    def close(self) -> None:
        """End the translator; the lab removes the guest namespace later."""
        if self.process:
            self.process.stop()


def reap_dead_labs() -> None:
    """Remove namespaces of labs whose process is gone."""
    if not NETNS_DIR.is_dir():
        return
    for path in NETNS_DIR.glob(f"{PREFIX}-*"):
        owner = path.name.split("-")[1]
        if not Path("/proc", owner).exists():
            with suppress(LabError):
                Namespace(path).delete()
