# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents tell the truth about names that can be looked up, and render.

Links lead somewhere, `make` targets exist, console scripts exist, tests exist; a table
is a header, one separator, and rows of as many cells.
"""

import re
import tomllib
from pathlib import Path

_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")
# In prose only between backquotes, in a block at the start of a line.
_MAKE = re.compile(r"(?:`|^(?:\$ )?|&& )make ([a-z][a-z-]*)", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"(?:^ *\|.*\n?)+", re.MULTILINE)
_SEPARATOR = re.compile(r"\|(?: *:?-+:? *\|)+")
_CELL_END = re.compile(r"(?<!\\)\|")
_TEST = re.compile(r"`([\w/.-]+\.(?:py|c))::(\w+)`")  # the file is below tests/
_RULES = re.compile(r"house: ((?:`\w+`(?: \([^)]*\))?(?:, )?)+)")
_SCRIPT = re.compile(r"`?\b(passtpy-[a-z]+)\b")


def documents(root: Path) -> list[Path]:
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def links_lead_somewhere(root: Path) -> list[str]:
    return [
        f"{page.relative_to(root)}: no file at {target}"
        for page in documents(root)
        for target in _LINK.findall(page.read_text())
        if not (page.parent / target).exists()
    ]


def make_targets_exist(root: Path) -> list[str]:
    targets = set(re.findall(r"^([\w-]+):", (root / "Makefile").read_text(), re.M))
    return [
        f"{page.relative_to(root)}: no target for make {name}"
        for page in documents(root)
        for name in _MAKE.findall(page.read_text())
        if name not in targets
    ]


def scripts_exist(root: Path) -> list[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return [
        f"{page.relative_to(root)}: no console script {name}"
        for page in documents(root)
        for name in _SCRIPT.findall(page.read_text())
        if name not in project["scripts"]
    ]


def tests_exist(root: Path) -> list[str]:
    return [
        f"{page.relative_to(root)}: no test {file}::{name}"
        for page in documents(root)
        for file, name in _TEST.findall(page.read_text())
        if not _is_run(root / "tests" / file, name)
    ]


def _is_run(file: Path, name: str) -> bool:
    """Whether it is a test: one that pytest finds, or that a C program runs."""
    if not file.exists():
        return False
    if file.suffix == ".c":
        pattern = rf"^\tRUN\({name}\);"
    else:
        pattern = rf"^(?:async )?def {name}\(" if name.startswith("test_") else "(?!)"
    return re.search(pattern, file.read_text(), re.MULTILINE) is not None


def faults_have_tests(root: Path) -> list[str]:
    """Each row of the page of faults names a test, below a line of dashes."""
    page = root / "docs" / "faults.md"
    return [
        f"docs/faults.md: no test for: {row}"
        for table in _TABLE.findall(page.read_text())
        for row in table.strip().split("\n")[2:]
        if not _TEST.search(row)
    ]


def laws_name_rules(root: Path) -> list[str]:
    """What the page of laws calls a rule of the house is one."""
    rules = "".join(path.read_text() for path in (root / "tests/house").glob("*.py"))
    return [
        f"docs/laws.md: no rule {name}"
        for cell in _RULES.findall((root / "docs" / "laws.md").read_text())
        for name in re.findall(r"`(\w+)`", cell)
        if f"\ndef {name}(root: Path)" not in rules
    ]


def comparisons_are_measured(root: Path) -> list[str]:
    """Numbers beside those of others are rows of the page of results."""
    results = (root / "docs" / "performance.md").read_text()
    _, _, text = (root / "docs" / "comparison.md").read_text().partition("# Measured")
    numbers = re.findall(r"(?<=\| )\d[\d.]*(?= \|)", text)
    faults = [
        f"docs/comparison.md: {n} is no result" for n in numbers if n not in results
    ]
    return faults if numbers else ["docs/comparison.md: no number"]


def tables_render(root: Path) -> list[str]:
    return [
        f"{page.relative_to(root)}: {fault}"
        for page in documents(root)
        for table in _TABLE.findall(_CODE.sub("", page.read_text()))
        for fault in _faults_of_table(table.split("\n"))
    ]


def _faults_of_table(lines: list[str]) -> list[str]:
    rows = [line.strip() for line in lines if line.strip()]
    separators = [n for n, row in enumerate(rows) if _SEPARATOR.fullmatch(row)]
    faults = [] if separators == [1] else [f"separators at {separators}: {rows[0]}"]
    width = len(_CELL_END.findall(rows[0]))
    return faults + [
        f"not {width - 1} cells: {row}"
        for row in rows
        if len(_CELL_END.findall(row)) != width
    ]
