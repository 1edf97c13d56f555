# SPDX-License-Identifier: GPL-2.0-or-later
"""A live view: flows by rate, the rates of rules and peers, and the daemon's own work.

Each look is two questions: which flows moved since the last one, and what the counters
say. Rates are differences; the daemon keeps nothing for it.
"""

import json
import os
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from passtpy.client.connect import Client
from passtpy.client.show import duration, endpoint, size, table
from passtpy.record import field, record

CLEAR = "\x1b[H\x1b[J"
GROUPS = 5  # rules and peers that are shown


@record
class Look:
    """What was seen at one time."""

    at: float  # seconds, monotonic
    flows: Mapping[int, dict[str, Any]]
    counters: Mapping[str, int]
    about: Mapping[str, Any]


@record
class Rates:
    """What moved between two looks, bytes a second unless it says otherwise."""

    sent: dict[int, float] = field(default_factory=dict)
    got: dict[int, float] = field(default_factory=dict)
    rules: Counter[str] = field(default_factory=Counter)
    peers: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0  # percent
    turns: float = 0.0  # a second

    def of(self, flow_id: int) -> float:
        """Return what a flow moved both ways."""
        return self.sent.get(flow_id, 0.0) + self.got.get(flow_id, 0.0)


def rates(before: Look, now: Look) -> Rates:
    """Return what moved between two looks."""
    elapsed = max(now.at - before.at, 1e-3)
    found = Rates(
        cpu=100 * (now.about["cpu_s"] - before.about["cpu_s"]) / elapsed,
        turns=(now.counters.get("turns", 0) - before.counters.get("turns", 0))
        / elapsed,
    )
    for flow_id, flow in now.flows.items():
        old = before.flows.get(flow_id)
        base = (
            old["bytes"] if old else [0, 0] if flow["age_ns"] < elapsed * 1e9 else None
        )
        if base is None:
            continue  # seen for the first time, but not new: nothing to compare with
        found.sent[flow_id] = (flow["bytes"][0] - base[0]) / elapsed
        found.got[flow_id] = (flow["bytes"][1] - base[1]) / elapsed
        rule = flow["rule"].get("name") or str(flow["rule"]["id"])
        found.rules[rule] += int(found.of(flow_id))
        found.peers[_peer(flow)] += int(found.of(flow_id))
    return found


def _peer(flow: Mapping[str, Any]) -> str:
    """Return the address of whoever is outside."""
    end = flow["src"] if flow["from"] == "host" else flow["target_dst"]
    return str(end["addr"])


def view(now: Look, moved: Rates, height: int, width: int) -> list[str]:
    """Return the lines of one look."""
    about, counters = now.about, now.counters
    total = sum(moved.sent.values()), sum(moved.got.values())
    who = f"{about['name']}  {about['program']} {about['pid']}"
    up = duration(int(about["uptime_s"] * 1e9))
    work = f"cpu {moved.cpu:.0f}%  turns {moved.turns:.0f}/s"
    groups = _group("  rules", moved.rules) + _group("  peers", moved.peers)
    lines = [
        f"{who}  up {up}  flows {counters.get('flows', 0)}  {work}",
        f"sent {size(total[0])}/s  got {size(total[1])}/s{groups}",
        "",
    ]
    order = sorted(now.flows, key=moved.of, reverse=True)
    rows = [_row(now.flows[flow_id], moved) for flow_id in order]
    head = ("ID", "TYPE", "FROM", "TO", "SENT/S", "GOT/S", "SENT", "GOT", "AGE", "RULE")
    lines += table(head, rows[: max(height - len(lines) - 2, 1)], width)
    return [line[:width] for line in lines]


def _group(title: str, counted: Counter[str]) -> str:
    shown = [f"{name} {size(n)}/s" for name, n in counted.most_common(GROUPS) if n]
    return f"{title}: {', '.join(shown)}" if shown else ""


def _row(flow: Mapping[str, Any], moved: Rates) -> Sequence[str]:
    sent, got = flow["bytes"]
    return (
        str(flow["id"]),
        flow["type"],
        endpoint(flow["src"]),
        endpoint(flow["target_dst"]),
        size(moved.sent.get(flow["id"], 0.0)),
        size(moved.got.get(flow["id"], 0.0)),
        size(sent),
        size(got),
        duration(flow["age_ns"]),
        flow["rule"].get("name") or str(flow["rule"]["id"]),
    )


def _look(client: Client, chosen: str, window_s: float) -> Look:
    recent = f"idle < {max(int(window_s * 1000), 1)}ms"
    query = {"filter": f"({chosen}) and {recent}" if chosen else recent}
    flows = {flow["id"]: flow for flow in client.lines("GET", "/v1/flows", query)}
    counters = client.ask("GET", "/v1/stats")["counters"]
    about = client.ask("GET", "/v1/instance")
    return Look(time.monotonic(), flows, counters, about)


def _looks(client: Client, args: Namespace) -> Iterator[tuple[Look, Rates]]:
    """Yield what is seen, and what moved since before."""
    chosen, window_s = " ".join(args.filter), 3 * args.delay + 1
    before = _look(client, chosen, window_s)
    rounds = 0
    while args.rounds is None or rounds < args.rounds:
        time.sleep(args.delay)
        now = _look(client, chosen, window_s)
        yield now, rates(before, now)
        before = now
        rounds += 1


def _as_json(moved: Rates) -> str:
    flows = [
        {"id": flow_id, "sent_per_s": moved.sent[flow_id], "got_per_s": got}
        for flow_id, got in moved.got.items()
    ]
    return json.dumps(
        {"cpu_percent": moved.cpu, "turns_per_s": moved.turns, "flows": flows}
    )


def run_top(client: Client, args: Namespace) -> int:
    """Show looks until stopped; on a terminal each takes the place of the last."""
    terminal = sys.stdout.isatty()
    for now, moved in _looks(client, args):
        if args.json:
            lines = [_as_json(moved)]
        else:
            columns, rows = (
                os.get_terminal_size(sys.stdout.fileno()) if terminal else (160, 40)
            )
            lines = view(now, moved, rows, columns)
        start = CLEAR if terminal and not args.json else ""
        sys.stdout.write(start + "\n".join(lines) + "\n")
        sys.stdout.flush()
    return 0
