# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters in the text format of Prometheus (version 0.0.4).

Every counter of the daemon is one metric, named after it; rules and forwards have a
label each, flows have none: there may be 100 000.
"""

from collections.abc import Iterator, Mapping

from passtpy.control.owners import Owners

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Counters that go up and down.
_GAUGES = frozenset(("flows", "pending", "listeners", "services"))


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    shown = ",".join(f'{name}="{_escape(str(v))}"' for name, v in labels.items())
    return "{" + shown + "}"


def _metric(
    name: str, kind: str, text: str, samples: list[tuple[Mapping[str, object], float]]
) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    yield from (f"{name}{_labels(labels)} {value}" for labels, value in samples)


def _lines(owners: Owners) -> Iterator[str]:
    about = owners.instance.describe()
    info = {name: about[name] for name in ("name", "version", "program")}
    yield from _metric("passtpy_info", "gauge", "What is running.", [(info, 1)])
    yield from _metric(
        "passtpy_start_time_seconds",
        "gauge",
        "When it began, in seconds since 1970.",
        [({}, float(about["started_at"]))],
    )
    yield from _metric(
        "passtpy_policy_generation",
        "gauge",
        "How often the policy was replaced.",
        [({}, owners.rules.generation)],
    )
    for name, value in sorted(owners.instance.statistics().items()):
        if name in _GAUGES:
            yield from _metric(
                f"passtpy_{name}", "gauge", f"{name} now.", [({}, value)]
            )
        else:
            text = f"Counter {name}."
            yield from _metric(f"passtpy_{name}_total", "counter", text, [({}, value)])
    yield from _metric(
        "passtpy_rule_hits_total",
        "counter",
        "Flows that a rule decided about.",
        [
            ({"id": r.id, "name": r.name or "", "why": r.why}, r.hits)
            for r in owners.rules.listed()
        ],
    )
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
