# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters in the text format of Prometheus (version 0.0.4).

Names follow its conventions: base units at the end of a name, `_total` behind what only
grows. Everything that was thrown away is one metric with a label for the reason, so
that it can be summed. Rules and forwards have labels, flows have none: there may be
100 000.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from passtpy.control.owners import Owners

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Samples = list[tuple[Mapping[str, object], float]]


class Metric(NamedTuple):
    """What a counter is called, and what it is divided by to have a base unit."""

    name: str
    kind: str = "counter"
    divisor: int = 1


_DROPS: Final = "passtpy_dropped_total"
_SECOND_NS: Final = 10**9
# Counters whose name does not say their unit, or that do not only grow.
_NAMED: Final = {
    "turn_ns_max": Metric("passtpy_turn_max_seconds", "gauge", _SECOND_NS),
    "turn_cpu_ns_max": Metric("passtpy_turn_max_cpu_seconds", "gauge", _SECOND_NS),
    "turn_work_max": Metric("passtpy_turn_work_max_seconds", "gauge", _SECOND_NS),
    "flows": Metric("passtpy_flows", "gauge"),
    "tap_rx_frames": Metric("passtpy_guest_sent_frames_total"),
    "tap_rx_bytes": Metric("passtpy_guest_sent_bytes_total"),
    "tap_tx_frames": Metric("passtpy_guest_received_frames_total"),
    "tap_tx_bytes": Metric("passtpy_guest_received_bytes_total"),
    "splice_buffered": Metric("passtpy_splice_buffered_bytes_total"),
    "tcp_buffered": Metric("passtpy_tcp_buffered_bytes_total"),
}
_MEANINGS: Final = {  # of those that are not the datapath's
    "flows": "flows now",
    "unknown": "frames for services that no service wanted",
    "oversized": "frames for services longer than any may be",
    "control_clients": "clients of the control sockets",
    "control_refused": "clients of the control sockets that were refused",
    "control_failed": "requests that failed by a bug of ours",
    "control_events_missed": "events that their listeners were too slow for",
    "closed_by_policy": "flows that a new policy refused",
    "log_lines_lost": "lines of the log that nobody took",
}


def _reason(counter: str) -> str | None:
    """Return why something was thrown away; None: the counter counts something else."""
    head, found, tail = counter.partition("drop_")
    return head + tail if found else None


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    shown = ",".join(f'{name}="{_escape(str(v))}"' for name, v in labels.items())
    return "{" + shown + "}"


def _metric(name: str, kind: str, text: str, samples: Samples) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    yield from (f"{name}{_labels(labels)} {value}" for labels, value in samples)


def _meaning(counter: str, meanings: Mapping[str, str]) -> str:
    text = meanings.get(counter) or _MEANINGS.get(counter, counter.replace("_", " "))
    return f"{text[:1].upper()}{text[1:]}."


def _counters(
    counters: Mapping[str, int], meanings: Mapping[str, str]
) -> Iterator[str]:
    drops: Samples = []
    for counter, value in sorted(counters.items()):
        reason = _reason(counter)
        if reason is not None:
            drops.append(({"reason": reason}, value))
            continue
        metric = _NAMED.get(counter, Metric(f"passtpy_{counter}_total"))
        scaled = value / metric.divisor if metric.divisor > 1 else value
        text = _meaning(counter, meanings)
        yield from _metric(metric.name, metric.kind, text, [({}, scaled)])
    yield from _metric(_DROPS, "counter", "What was thrown away, by reason.", drops)


def _instance(owners: Owners) -> Iterator[str]:
    about = owners.instance.describe()
    info = {name: about[name] for name in ("name", "version", "program")}
    numbers = (
        ("start_time_seconds", "gauge", "When it began, since 1970.", "started_at"),
        ("cpu_seconds_total", "counter", "Processor time that it used.", "cpu_s"),
    )
    yield from _metric("passtpy_info", "gauge", "What is running.", [(info, 1)])
    for name, kind, text, field in numbers:
        value = float(about[field])
        yield from _metric(f"passtpy_{name}", kind, text, [({}, value)])


def _limits(owners: Owners) -> Iterator[str]:
    """Yield what was counted for rules that have limits."""
    listed = list(owners.policy.limits())
    pairs = (
        ("bytes", "Bytes that moved under a limit.", "bytes"),
        ("dropped", "Datagrams dropped beyond a limit.", "dropped"),
    )
    for name, text, field in pairs:
        samples: Samples = [
            ({"rule": each["rule"], "direction": direction}, value)
            for each in listed
            for direction, value in zip(("in", "out"), each[field], strict=True)
        ]
        yield from _metric(f"passtpy_limit_{name}_total", "counter", text, samples)
    numbers = (
        ("flows", "gauge", "Flows under a limit.", "flows"),
        ("refused_total", "counter", "Flows refused beyond a limit.", "refused"),
        ("closed_total", "counter", "Flows closed: their bytes are used up.", "closed"),
    )
    for name, kind, text, field in numbers:
        samples = [({"rule": each["rule"]}, each[field]) for each in listed]
        yield from _metric(f"passtpy_limit_{name}", kind, text, samples)


def _lines(owners: Owners) -> Iterator[str]:
    yield from _instance(owners)
    instance = owners.instance
    yield from _counters(instance.statistics(), instance.meanings())
    yield from _metric(
        "passtpy_policy_generation",
        "gauge",
        "How often the policy was replaced.",
        [({}, owners.rules.generation)],
    )
    yield from _metric(
        "passtpy_rule_hits_total",
        "counter",
        "Flows that a rule decided about.",
        [
            ({"id": r.id, "name": r.name or "", "why": r.why}, r.hits)
            for r in owners.rules.listed()
        ],
    )
    yield from _limits(owners)
    yield from _metric(
        "passtpy_forward_open_ports",
        "gauge",
        "Ports of a forward on which a socket listens.",
        [
            ({"id": f.id, "side": f.side, "rule": str(f.rule).strip()}, f.open_ports)
            for f in owners.forwards.listed()
        ],
    )


def metrics(owners: Owners) -> bytes:
    """Return the page."""
    return "\n".join((*_lines(owners), "")).encode("utf-8", "replace")
