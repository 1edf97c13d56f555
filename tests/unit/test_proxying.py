# SPDX-License-Identifier: GPL-2.0-or-later
"""What a proxy is told in the guest's stead; the proxy, and the datapath, are away."""

from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from passtpy import proxying
from passtpy.addr import UNSPECIFIED, Address, inany
from passtpy.config.model import Config
from passtpy.egress.document import parse_policy
from passtpy.egress.egress import Egress
from passtpy.egress.model import Via
from passtpy.egress.zones import Surroundings
from passtpy.flow import IPPROTO_TCP, Action, FlowMiss, Pif, Verdict
from passtpy.policy.decide import Waiting
from passtpy.policy.listing import RuleIds
from passtpy.proxying import Proxying

SHARED = IPv4Address("192.0.2.1")  # of several names
OTHER = '[[rule]]\nto = "other.example"\nports = 443\naction = "allow"\n'
PROXY = 'via = "http://127.0.0.1:3128"\naction = "allow"\n'


def told(monkeypatch: pytest.MonkeyPatch, rules: str, *names: str) -> list[object]:
    """What the proxy is told of a connection to port 22 of an address."""
    found: list[object] = []

    def conversation(_via: Via, host: str | Address, _port: int) -> object:
        found.append(host)
        return object()

    monkeypatch.setattr(proxying, "conversation_with", conversation)
    monkeypatch.setattr(proxying, "Proxied", lambda *_: object())
    policy = parse_policy(f"version = 1\n{rules}", "policy", lambda _: "")
    egress = Egress(policy, Surroundings(), RuleIds().give, lambda: 0)
    target = inany(SHARED)
    for name in names:
        egress.pins.pin(name, [target], 60, 0)
    ruling = egress.judge(target, 22, IPPROTO_TCP)
    assert ruling.via is not None
    engine = SimpleNamespace(view=SimpleNamespace(config=Config()))
    nobody = cast(Any, None)
    made = Proxying(nobody, cast(Any, engine), egress, nobody, nobody)
    verdict = Verdict(Action.FORWARD, Pif.HOST, target, 22, UNSPECIFIED, 0, 1)
    miss = FlowMiss(IPPROTO_TCP, Pif.TAP, UNSPECIFIED, 40000, target, 22, -1)
    assert made.take(cast(Any, miss), Waiting(verdict, ruling), ruling.via)
    return found


def test_it_is_told_the_name_that_the_rule_is_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another name of the address, which was told first, may not go to port 22."""
    rules = OTHER + '[[rule]]\nto = "*.good.example"\n' + PROXY
    names = "other.example", "a.good.example"
    assert told(monkeypatch, rules, *names) == ["a.good.example"]


@pytest.mark.parametrize("to", ["192.0.2.0/24", "192.0.2.1"])
def test_a_rule_about_a_network_tells_no_name(
    monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """The proxy could find another address for it than the guest was told."""
    rules = OTHER + f'[[rule]]\nto = "{to}"\n' + PROXY
    assert told(monkeypatch, rules, "other.example") == [SHARED]
    assert told(monkeypatch, rules) == [SHARED]


@pytest.mark.parametrize("to", ['to = "@internet"\n', ""])
def test_a_rule_about_all_of_the_internet_tells_any(
    monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    rules = f"[[rule]]\n{to}" + PROXY
    assert told(monkeypatch, rules, "any.example") == ["any.example"]
