# SPDX-License-Identifier: GPL-2.0-or-later
"""A policy as text, for people and for programs."""

from typing import Any, Final

from passtpy.config.limit import NO_LIMIT, show_limit
from passtpy.egress.egress import DEFAULT, Egress, Ruling
from passtpy.egress.model import EgressRule
from passtpy.flow import PROTO_NAMES

_MOST_SHOWN: Final = 6  # targets of a rule; a set may have thousands


def show_match(rule: EgressRule) -> str:
    """Return the conditions of a rule."""
    shown = list(rule.to[:_MOST_SHOWN])
    if len(rule.to) > _MOST_SHOWN:
        shown.append(f"{len(rule.to) - _MOST_SHOWN} more")
    parts = ["to " + (",".join(shown) or "anywhere")]
    if rule.ports:
        parts.append("ports " + ",".join(map(str, rule.ports)))
    if rule.protos:
        protos = dict.fromkeys(
            PROTO_NAMES[each].removesuffix("v6") for each in sorted(rule.protos)
        )
        parts.append(",".join(protos))
    if rule.via is not None:
        parts.append(f"via {rule.via}")
    if rule.limit != NO_LIMIT:
        said = show_limit(rule.limit).items()
        parts.append("limit " + ", ".join(f"{name} {value}" for name, value in said))
    return " ".join(parts)


def show_ruling(egress: Egress, ruling: Ruling) -> dict[str, Any]:
    """Return what the policy says of a flow, for programs."""
    told: dict[str, Any] = {
        "action": ruling.effect.value,
        "why": egress.reason(ruling),
        "mode": egress.policy.mode.value,
    }
    rule = egress.rule_of(ruling.number)
    if rule is not None:
        told |= {"rule": ruling.rule, "match": show_match(rule)}
    if ruling.number != DEFAULT:
        told["place"] = egress.policy.places[ruling.number]
    if ruling.names:
        told["names"] = list(ruling.names)
    if ruling.zone is not None:
        told["zone"] = ruling.zone.value
    return told


def show_policy(egress: Egress) -> dict[str, Any]:
    """Return the policy with its hits, for programs."""
    policy, hits = egress.policy, egress.hits
    return {
        "mode": policy.mode.value,
        "default": policy.default.value,
        "dns": "filtered" if egress.captures_dns else "as any flow",
        "rules": [
            {
                "id": each,
                "name": rule.name,
                "match": show_match(rule),
                "action": rule.effect.value,
                "place": place,
                "hits": count,
            }
            for each, rule, place, count in egress.listed()
        ],
        "default_hits": hits[0],
    }
