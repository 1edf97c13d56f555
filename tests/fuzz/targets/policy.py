# SPDX-License-Identifier: GPL-2.0-or-later
"""Policy files, and the files that their sets include; then what they say of flows.

A NUL separates the two. What is wrong has a place, and nothing that a policy says
opens the host to an address that it does not name.
"""

import re
from ipaddress import ip_address

from passtpy.addr import inany
from passtpy.egress.document import parse_policy
from passtpy.egress.egress import Egress
from passtpy.egress.model import Effect
from passtpy.egress.names import NameFault, normalise
from passtpy.egress.show import show_policy
from passtpy.egress.zones import Surroundings
from passtpy.errors import PolicyError
from passtpy.flow import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP
from passtpy.policy.listing import RuleIds

_PLACE = re.compile(r"(policy|[^\n]*):[1-9][0-9]*:[1-9][0-9]*: .", re.DOTALL)
_TARGETS = [
    inany(ip_address(text))
    for text in (
        *("127.0.0.1", "10.0.0.1", "169.254.169.254", "203.0.113.7"),
        *("::1", "fe80::1", "64:ff9b::a00:1", "2001:db8::7"),
    )
]
_NAMES = ("a.example", "b.a.example", "xn--bcher-kva.example")


def _check(egress: Egress) -> None:
    for target in _TARGETS:
        for proto in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP):
            ruling = egress.judge(target, 443, proto)
            nothing_said = ruling.number < 0 and ruling.zone is not None
            assert not nothing_said or ruling.refuses
            named = egress.judge(target, 443, proto, names=_NAMES)
            by_name = named.by_name and named.effect is Effect.ALLOW
            assert not (by_name and named.zone is not None)


def play(data: bytes) -> None:
    """Read a policy, and decide after it."""
    text, _, included = data.decode("utf-8", "replace").partition("\0")
    wrong = ""
    try:
        policy = parse_policy(text, "policy", lambda _: included)
    except PolicyError as error:
        wrong = str(error)
    if wrong:
        assert _PLACE.match(wrong), wrong
        return
    egress = Egress(policy, Surroundings(), RuleIds().give, lambda: 0)
    _check(egress)
    show_policy(egress)
    for name in (*_NAMES, included[:300]):
        try:
            egress.may_ask(normalise(name), 0)
        except NameFault:
            continue
