# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents tell the truth about names that can be looked up.

Links lead somewhere, `make` targets exist, console scripts exist.
"""

import re
import tomllib
from pathlib import Path

_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")
# In prose only between backquotes, in a block at the start of a line.
_MAKE = re.compile(r"(?:`|^(?:\$ )?|&& )make ([a-z][a-z-]*)", re.MULTILINE)
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
