# SPDX-License-Identifier: GPL-2.0-or-later
"""What an AppArmor profile says of files: whether a path may be read or written."""

import re
from pathlib import Path

_RULE = re.compile(r"^\s*(?:owner )?([/@]\S*)\s+([rwmklUPpuix]+),$", re.MULTILINE)
_INCLUDE = re.compile(r"^\s*include <(abstractions/\S+)>$", re.MULTILINE)
_VARIABLES = {
    "@{PROC}": "/proc",
    "@{pids}": "[0-9]*",
    "@{pid}": "[0-9]*",
    "@{HOME}": "/{root,home/*}",
    "@{sys}": "/sys",
}
# Parts of a glob, and the regular expressions that they are; else it is itself.
_PARTS = {"**": ".*", "*": "[^/]*", "{": "(?:", "}": ")", ",": "|", "?": "[^/]"}
_PART = re.compile(r"\*\*|\[[^]]*\]|.")


def rules(path: Path) -> list[tuple[re.Pattern[str], str]]:
    """The paths of a profile, each with what is allowed there."""
    text = path.read_text()
    for name in _INCLUDE.findall(text):
        text += Path("/etc/apparmor.d", name).read_text()
    return [(_pattern(glob), modes) for glob, modes in _RULE.findall(text)]


def _pattern(glob: str) -> re.Pattern[str]:
    for name, value in _VARIABLES.items():
        glob = glob.replace(name, value)
    parts = (
        part if part[0] == "[" else _PARTS.get(part, re.escape(part))
        for part in _PART.findall(glob)
    )
    return re.compile("".join(parts))


def allows(found: list[tuple[re.Pattern[str], str]], path: str, mode: str) -> bool:
    return any(mode in modes and rule.fullmatch(path) for rule, modes in found)
