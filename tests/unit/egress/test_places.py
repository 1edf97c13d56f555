# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in a TOML file something stands."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.egress.places import Path, Places

TEXT = """\
# a comment with = and [brackets]
version = 1
"quoted key" = 'x # y'
list = [
    22, # [
    "a\\"]",
    { inner = 7, other = [1, 2] },
]
dotted.under.neath = true
text = \"\"\"
[[rule]]
\"\"\"

[[rule]]
name = "first"

[[rule]]
name = "second"
limit = { rate_in = "1 MB/s", ports = [1] }

[rule.more]
deep = 1

[ sets . "of names" ]
one = []
"""


@pytest.mark.parametrize(
    ("path", "key", "place"),
    [
        (("version",), True, (2, 1)),
        (("version",), False, (2, 11)),
        (("quoted key",), False, (3, 16)),
        (("list", 0), False, (5, 5)),
        (("list", 1), False, (6, 5)),
        (("list", 2, "inner"), False, (7, 15)),
        (("list", 2, "other", 1), False, (7, 30)),
        (("dotted", "under", "neath"), False, (9, 22)),
        (("dotted", "under"), True, (9, 1)),
        (("rule", 0, "name"), False, (15, 8)),
        (("rule", 1, "name"), False, (18, 8)),
        (("rule", 1, "limit", "rate_in"), True, (19, 11)),
        (("rule", 1, "limit", "ports", 0), False, (19, 40)),
        (("rule", 1, "more", "deep"), False, (22, 8)),
        (("rule", 1, "missing"), False, (17, 3)),
        (("sets", "of names", "one"), False, (25, 7)),
        (("missing",), False, (1, 1)),
    ],
)
def test_everything_has_its_place(
    path: Path, key: bool, place: tuple[int, int]
) -> None:
    tomllib.loads(TEXT)
    assert Places(TEXT).find(path, key) == place


_scalars: st.SearchStrategy[Any] = st.one_of(
    st.integers(-(10**6), 10**6), st.booleans(), st.text(max_size=8)
)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = "".join(
            f"\\U{ord(c):08x}" if c in '"\\' or ord(c) < 32 or ord(c) == 127 else c
            for c in value
        )
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ",\n ".join(map(_toml, value)) + "]"
    return str(value)


@given(st.lists(st.lists(_scalars, max_size=4), max_size=4))
def test_the_value_that_stands_there_is_the_one(lists: list[list[Any]]) -> None:
    text = "".join(f"\n[[r]] # x\nv = {_toml(each)}\n" for each in lists)
    tomllib.loads(text)
    lines = text.split("\n")
    for number, each in enumerate(lists):
        for position, value in enumerate(each):
            line, column = Places(text).find(("r", number, "v", position))
            assert lines[line - 1][column - 1 :].startswith(_toml(value))
