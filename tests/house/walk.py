# SPDX-License-Identifier: GPL-2.0-or-later
"""The page that follows a packet names functions that are there, and call each other.

`a()` → `b()` is a call of b in the body of a, or of a function behind a pointer whose
name b ends in. A row of a table begins with files, and names functions of theirs.
"""

import re
from itertools import pairwise
from pathlib import Path

from tests.house.rules import c_code, sources

PAGE = Path("docs/packet-walk.md")
_NAME = re.compile(r"`(?:[\w.]+\.)?(\w+)\(\)`")
_CHAIN = re.compile(r"`\w+\(\)`(?: → `\w+\(\)`)+")
_ROW = re.compile(r"^\| (`[\w/.]+\.c`(?:, `[\w.]+`)*) \| (.*?) \|", re.MULTILINE)
_FUNCTION = re.compile(r"^[a-z][\w \t*]*?\b(\w+)\([^;{}]*\)\n\{\n(.*?)^\}", re.M | re.S)
_POINTER = re.compile(r"(?:->|\.)(\w+)\(")

Functions = dict[str, list[tuple[str, str]]]  # by name: file and body


def walk_is_true(root: Path) -> list[str]:
    text = (root / PAGE).read_text()
    functions = _functions(root)
    others = [*(root / "passtpy").rglob("*.py"), root / "passtpy" / "_native.pyi"]
    python = "".join(path.read_text() for path in others)
    system = (root / "native" / "base" / "sys.h").read_text()
    faults = [
        f"no function {name}()"
        for name in sorted(set(_NAME.findall(text)))
        if name not in functions
        and f"def {name}(" not in python
        and f"sys_{name}(" not in system
    ]
    for chain in _CHAIN.findall(text):
        names = _NAME.findall(chain)
        faults += [
            f"{a}() does not call {b}()"
            for a, b in pairwise(names)
            if not any(_calls(body, b) for _, body in functions.get(a, []))
        ]
    for files, cell in _ROW.findall(text):
        named = {Path(file).name for file in re.findall(r"`([\w/.]+)`", files)}
        faults += [
            f"{name}() is not in {files}"
            for name in _NAME.findall(cell)
            if not named & {file for file, _ in functions.get(name, [])}
        ]
    return [f"{PAGE}: {fault}" for fault in faults]


def _functions(root: Path) -> Functions:
    found: Functions = {}
    for path in sources(root, "native", suffixes={".c", ".h"}):
        for name, body in _FUNCTION.findall(c_code(path)):
            found.setdefault(name, []).append((path.name, body))
    return found


def _calls(body: str, name: str) -> bool:
    behind = _POINTER.findall(body)
    return f"{name}(" in body or any(name.endswith(f"_{each}") for each in behind)
