# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds every event that the program may log, for the page that lists them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from passtpy import _native
from passtpy.log import level_of_datapath_event

LEVELS = ("error", "warning", "info", "debug", "trace")
_HEADER = """\
# Events

Every record of the log has an event, and fields of its own. This table is made from
the calls in the code: `python -m tests.house.events >docs/events.md`. A record of level
error or warning may be followed by `(suppressed N similar messages)`; `failure` is an
exception that nobody expected, with the places it came through. Two more are about the
log itself: `log.lost` and `log.suppressed`. Fields shown as `...` depend on what has
happened.

"""


@dataclass(frozen=True, slots=True, order=True)
class Said:
    """An event, how serious it is, which fields it has, and where it is said."""

    event: str
    level: str
    fields: tuple[str, ...]
    where: str


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node


def _of_log(value: ast.expr) -> bool:
    """Tell whether this is a log: `log`, `self._log`, `parts.log`, ..."""
    name = value.attr if isinstance(value, ast.Attribute) else ""
    name = value.id if isinstance(value, ast.Name) else name
    return name.removeprefix("_") == "log"


def said_in(path: Path, package: Path) -> Iterator[Said]:
    """Yield what a file says with an event that is written there."""
    where = path.relative_to(package).as_posix()
    for call in _calls(ast.parse(path.read_text())):
        func = call.func
        assert isinstance(func, ast.Attribute)
        if func.attr not in (*LEVELS, "failure") or not _of_log(func.value):
            continue
        fields = tuple(each.arg or "..." for each in call.keywords)
        for event in _constants(call.args[0]) if call.args else ():
            yield Said(event, func.attr, fields, where)


def _constants(node: ast.expr) -> Iterator[str]:
    """Yield what a constant, or a choice between two, may be."""
    if isinstance(node, ast.IfExp):
        yield from _constants(node.body)
        yield from _constants(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _of_datapath() -> Iterator[Said]:
    """Yield what C tells about flows, through the ring of events."""
    for event, level, fields in _native.EVENTS:
        name = level_of_datapath_event(level)
        yield Said(event, name, ("flow", "...", *fields), "the datapath")


def page(root: Path) -> str:
    """Return docs/events.md."""
    package = root / "passtpy"
    found = {each for path in package.rglob("*.py") for each in said_in(path, package)}
    found.update(_of_datapath())
    lines = ["| Event | Level | Fields | Said in |", "|---|---|---|---|"]
    for each in sorted(found):
        fields = ", ".join(f"`{name}`" for name in each.fields)
        lines.append(f"| `{each.event}` | {each.level} | {fields} | `{each.where}` |")
    return _HEADER + "\n".join(lines) + "\n"


def events_are_printed(root: Path) -> list[str]:
    """docs/events.md is what the code says."""
    if (root / "docs" / "events.md").read_text() == page(root):
        return []
    return ["docs/events.md: run python -m tests.house.events >docs/events.md"]


if __name__ == "__main__":
    print(page(Path(__file__).resolve().parents[2]), end="")
