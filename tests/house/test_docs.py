# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents of this tree name only what exists."""

from pathlib import Path

import pytest

from tests.house import documents
from tests.house.rules import Rule

ROOT = Path(__file__).resolve().parents[2]

RULES: list[Rule] = [
    documents.links_lead_somewhere,
    documents.make_targets_exist,
    documents.scripts_exist,
    documents.tests_exist,
    documents.faults_have_tests,
    documents.laws_name_rules,
    documents.tables_render,
    documents.tests_exist,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule) -> None:
    assert rule(ROOT) == []
