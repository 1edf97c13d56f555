# SPDX-License-Identifier: GPL-2.0-or-later
"""This tree keeps the rules of the house."""

from pathlib import Path

import pytest

from tests.house import calls, events, layers, rules, sys_calls, tcp_steps
from tests.house.rules import Rule

ROOT = Path(__file__).resolve().parents[2]

HOUSE: list[Rule] = [
    layers.python_layers,
    layers.strangers,
    layers.net_rooms,
    layers.native_door,
    layers.nothing_runs_what_it_reads,
    layers.c_layers,
    calls.c_calls,
    sys_calls.calls_go_through_the_table,
    sys_calls.every_call_is_known,
    events.events_are_printed,
    tcp_steps.tcp_steps_are_printed,
    tcp_steps.tcp_state_changes_in_one_place,
    rules.python_h_only_in_py,
    rules.one_door_into_epoll,
    rules.flows_written_in_table,
    rules.bytes_are_lent_by_scope,
    rules.backends_known_in_link,
    rules.gil_released_once,
    rules.files_are_short,
    rules.licence_is_named,
]


@pytest.mark.parametrize("rule", HOUSE, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule) -> None:
    assert rule(ROOT) == []
