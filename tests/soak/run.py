# SPDX-License-Identifier: GPL-2.0-or-later
"""One soak: three daemons, everybody who comes and goes, and what is left each time."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from passtpy.client.connect import Client
from tests.lab import (
    HOST4,
    REMOTE4,
    TRANSLATORS,
    Attachment,
    Lab,
    Namespace,
    wait_until,
)
from tests.lab.process import Process
from tests.netns.machine import Daemon, passt
from tests.soak import deeds
from tests.soak.churn import Churn
from tests.soak.deeds import Deed
from tests.soak.echo import TCP_PORT, UDP_PORT, Echo
from tests.soak.held import Held, complaints, growth_kib

ROUND_S = 240.0  # at most; three at least, the first of which does not count
SOCKET_S = 30.0
CLOSE_S = 60.0  # TCP, everybody having gone
IDLE_S = 240.0  # all of it: the longest that a silent flow lives, and some
HURRY_S = 600.0  # a soak shorter than this does not wait for flows that are idle
CALM_S = 30  # until no descriptor comes or goes any more
SHOWN = 20

PASTA, STREAM, VHOST = "pasta", "passt, stream", "passt, vhost-user"
Clients = dict[str, Client]
More = Callable[[Clients], dict[str, Deed]]


@dataclass
class Soaked:
    """What was done, and what each daemon held after each round."""

    churn: Churn
    held: dict[str, list[Held]] = field(default_factory=dict)

    def complaints(self) -> list[str]:
        """Name what has grown, and deeds that never succeeded."""
        never = self.churn.refused.keys() - +self.churn.done
        return [f"{name}: never, {self.churn.why[name]}" for name in sorted(never)] + [
            f"{name}: {text}"
            for name, looks in self.held.items()
            for text in complaints(looks)
        ]

    def report(self) -> str:
        """Return a table for people."""
        lines = [f"{'daemon':20}{'flows':>10}{'descriptors':>13}{'KiB':>8}"]
        for name, looks in self.held.items():
            for look in looks:
                count = look.descriptors.total()
                lines.append(f"{name:20}{look.had:10}{count:13}{look.kib:8}")
            lines.append(f"{name:20}{growth_kib(looks):+10.0f} KiB per million flows")
        for name, count in sorted(self.churn.done.items()):
            refused = self.churn.refused[name]
            lines.append(f"{name:30}{count:10}   refused {refused}")
        return "\n".join(lines)


@dataclass
class Served:
    """A daemon, a client of its control socket, and whether it serves machines."""

    process: Process
    client: Client
    machines: bool

    def look(self, patient: bool) -> Held:
        """Wait until no flow is left, and look at what is held all the same.

        What a machine began stays for its next connection, and there is none: it is
        ended by hand, as that is which would only be idle, if there is no time for it.
        """
        deeds.remove_added(self.client)
        left: list[str] = []
        if not self.machines:
            left += self._wait_closed("tcp", CLOSE_S)
        if self.machines or not patient:
            for _ in self.client.lines("DELETE", "/v1/flows", {"filter": ""}):
                pass
        left += self._wait_closed("", IDLE_S if patient else CLOSE_S)
        held = self._held(left)
        counters = self.client.ask("GET", "/v1/stats")["counters"]
        stock = counters.get("splice_made", 0) - counters.get("splice_used", 0)
        held.descriptors["socket"] -= stock
        return replace(held, had=counters["flows_opened"])

    def _held(self, left: list[str]) -> Held:
        """Return what is held once the daemon has seen that its clients have left."""
        held = Held.by(self.process.tree(), open_flows=left)
        for _ in range(CALM_S):
            time.sleep(1)
            before, held = held, Held.by(self.process.tree(), open_flows=left)
            if held.descriptors == before.descriptors:
                break
        return held

    def _wait_closed(self, which: str, seconds: float) -> list[str]:
        """Return what is open after all."""
        deadline = time.monotonic() + seconds
        query = {"filter": which, "limit": SHOWN}
        while flows := list(self.client.lines("GET", "/v1/flows", query)):
            if time.monotonic() > deadline:
                return [json.dumps(flow) for flow in flows]
            time.sleep(0.2)
        return []


def soak(
    seconds: float,
    more: More = lambda _: {},
    say: Callable[[str], None] = lambda _: None,
) -> Soaked:
    """Let them come and go for so long, in rounds; the first one does not count."""
    with Lab() as lab, _daemons(lab) as (guest, daemons, served):
        clients = {name: each.client for name, each in served.items()}
        churn = Churn(_all_deeds(lab, guest, daemons, clients) | more(clients))
        soaked = Soaked(churn, {name: [] for name in served})
        rounds = max(3, round(seconds / ROUND_S))
        for number in range(rounds):
            churn.run(seconds / rounds)
            for name, each in served.items():
                soaked.held[name].append(each.look(patient=seconds > HURRY_S))
                held = soaked.held[name][-1]
                count = held.descriptors.total()
                say(
                    f"round {number}: {name}: {held.had} flows so far, "
                    f"{count} descriptors, {held.kib} KiB"
                )
    return soaked


@contextmanager
def _daemons(
    lab: Lab,
) -> Iterator[tuple[Namespace, dict[str, Daemon], dict[str, Served]]]:
    """Start them, and servers for their guests; enter the namespace they are in."""
    paths = {name: lab.dir / f"{name}.control" for name in (PASTA, STREAM, VHOST)}
    options = Attachment(
        tcp_ports=(TCP_PORT,),
        udp_ports=(UDP_PORT,),
        extra=("--control", str(paths[PASTA])),
    )
    with ExitStack() as stack:
        for where in (lab.host, lab.remote):
            _make_room(where)
        attached = stack.enter_context(lab.attach(TRANSLATORS["passtpy"], options))
        assert attached.process is not None
        _make_room(attached.guest)
        processes, daemons = {PASTA: attached.process}, {}
        for name, *words in ((STREAM,), (VHOST, "--vhost-user")):
            words += ["-t", "none", "-u", "none", "--control", str(paths[name])]
            daemons[name] = stack.enter_context(passt(lab, *words))
            processes[name] = daemons[name].process
        for path in paths.values():
            wait_until(path.exists, SOCKET_S, str(path))
        stack.enter_context(Echo(lab.remote, REMOTE4))
        stack.enter_context(Echo(attached.guest, "0.0.0.0"))
        # Who asks at a control socket must be where the daemon is
        stack.enter_context(lab.host.entered())
        yield (
            attached.guest,
            daemons,
            {
                name: Served(process, Client(str(paths[name])), name in daemons)
                for name, process in processes.items()
            },
        )


def _make_room(where: Namespace) -> None:
    """Have ports that nobody forwards, and let them be used again at once."""
    where.sysctl("net.ipv4.ip_local_port_range", "32768 60999")
    where.sysctl("net.ipv4.tcp_tw_reuse", "1")


def _all_deeds(
    lab: Lab, guest: Namespace, daemons: dict[str, Daemon], clients: Clients
) -> dict[str, Deed]:
    client = clients[PASTA]
    half = b"GET /v1/stats HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/fl"
    return {
        "connections out": deeds.talk_tcp(guest, REMOTE4),
        "connections out, reset": deeds.talk_tcp(guest, REMOTE4, rudely=True),
        "connections in": deeds.talk_tcp(lab.remote, HOST4),
        "connections, spliced": deeds.talk_tcp(lab.host, "127.0.0.1"),
        "datagrams out": deeds.talk_udp(guest, REMOTE4),
        "datagrams in": deeds.talk_udp(lab.remote, HOST4),
        "datagrams, spliced": deeds.talk_udp(lab.host, "127.0.0.1"),
        "pings": deeds.ping(guest, REMOTE4),
        "forwards": deeds.change_ports(client),
        "clients": deeds.ask(client),
        "clients that say half": deeds.say_half(client, half),
        "clients that say nothing": deeds.say_nothing(client),
        "captures": deeds.capture(client),
        "crowds": deeds.crowd(guest, REMOTE4, client),
        **{
            name: deeds.be_a_machine(each, clients[name])
            for name, each in daemons.items()
        },
    }
