# SPDX-License-Identifier: GPL-2.0-or-later
"""The row about a large policy: how long it takes to load, and to decide.

It runs in this process, in processor time: there is nothing to compare with, and other
load on the machine must not count.
"""

import random
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

from passtpy.addr import inany
from passtpy.egress.document import parse_policy
from passtpy.egress.egress import Egress
from passtpy.egress.model import Mode, Policy
from passtpy.egress.zones import Surroundings
from passtpy.flow import IPPROTO_TCP
from passtpy.policy.listing import RuleIds
from passtpy.record import replace
from tests.bench.cell import Cell
from tests.bench.measure import Metrics
from tests.bench.row import Metric, Row, Target

COUNT = 10_000
TEXT = """\
version = 1
[sets]
names.include = "names"
networks.include = "networks"
[[rule]]
to = "@names"
ports = 443
action = "allow"
[[rule]]
to = "@networks"
action = "reject"
"""


def _files() -> dict[str, str]:
    names = (f"{'*.' * (n % 2)}h{n}.example" for n in range(COUNT))
    networks = (f"{n % 200 + 11}.{n // 200}.{n % 7}.0/24" for n in range(COUNT))
    return {"names": "\n".join(names), "networks": "\n".join(networks)}


def _egress(policy: Policy) -> Egress:
    return Egress(policy, Surroundings(), RuleIds().give, lambda: 0)


def decide(_: Cell) -> Metrics:
    """Seconds of a load, and microseconds of a decision about a pinned address."""
    files, rng = _files(), random.Random(1)
    start = time.process_time()
    policy = parse_policy(TEXT, "policy", files.__getitem__)
    egress = _egress(policy)
    loaded = time.process_time() - start
    targets = [inany(IPv4Address(rng.randrange(1 << 32))) for _ in range(COUNT)]
    # While names are only observed, all of them are pinned
    egress.replace(replace(policy, mode=Mode.OBSERVE))
    for target in targets:
        egress.may_answer(f"a.h{rng.randrange(2 * COUNT)}.example", [target], 300, 0)
    start = time.process_time()
    for target in targets:
        egress.judge(target, 443, IPPROTO_TCP)
    spent = time.process_time() - start
    return {
        "load_s": loaded,
        "load_each_s": _load_each(files),
        "decision_us": spent / COUNT * 1e6,
    }


def _load_each(files: dict[str, str]) -> float:
    """Seconds of a load where each target has a rule of its own."""
    rule = '[[rule]]\nto = "{}"\nports = 443\naction = "allow"\n'
    targets = "\n".join(files.values()).splitlines()
    text = "version = 1\n" + "".join(map(rule.format, targets))
    start = time.process_time()
    _egress(parse_policy(text, "policy", files.__getitem__))
    return time.process_time() - start


def policy_rows() -> Iterator[Row]:
    """Ten thousand names and ten thousand networks."""
    yield Row(
        "policy",
        "policy",
        "policy of 10 000 names and 10 000 networks, CPU",
        decide,
        (
            Metric("load_s", "load, s", 2),
            Metric("load_each_s", "load, a rule for each, s", 2),
            Metric("decision_us", "decision, µs"),
        ),
        (
            Target("load_s", 1, at_least=False),
            Target("load_each_s", 1, at_least=False),
            Target("decision_us", 10, at_least=False),
        ),
        quick=True,
        without=("direct", "pasta", "slirp4netns"),
    )
