# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents of this tree name only what exists."""

from pathlib import Path

import pytest

from tests.house import documents, walk
from tests.house.rules import Rule

ROOT = Path(__file__).resolve().parents[2]

RULES: list[Rule] = [
    documents.links_lead_somewhere,
    documents.make_targets_exist,
    documents.scripts_exist,
    documents.tests_exist,
    documents.faults_have_tests,
    documents.laws_name_rules,
    documents.comparisons_are_measured,
    documents.tables_render,
    walk.walk_is_true,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule) -> None:
    assert rule(ROOT) == []


def _page(tmp_path: Path, text: str) -> list[str]:
    """What is wrong with such a page, where a() calls b(), and c() a pointer."""
    files = {
        "native/base/sys.h": "#define sys_read(...) SYS(read, -1, (EIO), ...)\n",
        "native/link/x.c": "int a(void)\n{\nb();\n}\n\nint c(t *t)\n{\nt->read();\n}\n",
        "native/link/y.c": "void b(void)\n{\n}\n\nint y_read(void)\n{\n}\n",
        "passtpy/_native.pyi": "def turn(): ...\n",
        "docs/packet-walk.md": text,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return [fault.partition(": ")[2] for fault in walk.walk_is_true(tmp_path)]


def test_a_page_may_follow_calls(tmp_path: Path) -> None:
    row = "| `link/x.c`, `y.c` | `a()` → `b()` | turns |\n"
    assert _page(tmp_path, f"{row}`c()` → `y_read()`, `D.turn()`, one `read()`") == []


def test_a_page_that_goes_astray_is_named(tmp_path: Path) -> None:
    row = "| `link/x.c` | `b()` | |\n"
    assert _page(tmp_path, f"{row}`b()` → `a()`, `gone()`") == [
        "no function gone()",
        "b() does not call a()",
        "b() is not in `link/x.c`",
    ]
