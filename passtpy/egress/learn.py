# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the smallest policy that would have allowed what a guest did.

It is told what no rule allowed, while all of it passes. A flow to an address that has a
name is one to the name; in a closed zone the address has to be named as well.
"""

import json
from collections.abc import Iterator
from typing import Final

from passtpy.addr import from_inany
from passtpy.egress.egress import Refused
from passtpy.egress.target import PROTOS

MOST: Final = 10_000  # places to go, each with its ports
_WIDTH: Final = 88

Uses = dict[str, set[int]]  # protocol, and its ports; none: of ICMP
_NAMES: Final = {number: name for name, each in PROTOS.items() for number in each}


class Learner:
    """What was seen so far."""

    def __init__(self) -> None:
        self._uses: dict[str, Uses] = {}
        self._asked: set[str] = set()
        self._missed = 0

    def take(self, refused: Refused) -> None:
        """Note what was not allowed."""
        if refused.is_question:
            if len(self._asked) < MOST:
                self._asked.update(refused.names)
            return
        if refused.quic:
            return  # its client takes TCP, once it is refused
        if refused.names:
            self._note(refused.names[0], refused)
        if refused.zone is not None or not refused.names:
            self._note(str(from_inany(refused.target)), refused)

    def _note(self, where: str, refused: Refused) -> None:
        if where not in self._uses and len(self._uses) >= MOST:
            self._missed += 1
            return
        name = _NAMES[refused.proto]
        ports = self._uses.setdefault(where, {}).setdefault(name, set())
        if name != "icmp":
            ports.add(refused.port)

    def text(self) -> str:
        """Return the policy as a file."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "version = 1"
        alike: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        for where, uses in self._uses.items():
            for name, ports in uses.items():
                alike.setdefault((name, tuple(sorted(ports))), []).append(where)
        for (name, used), where_all in sorted(alike.items()):
            yield ""
            yield "[[rule]]"
            yield from _listed("to", sorted(where_all))
            if used:
                yield f"ports = {list(used)}"
            yield f'proto = "{name}"'
            yield 'action = "allow"'
        unused = sorted(self._asked - self._uses.keys())
        if unused:
            yield ""
            yield "# Asked for, but nothing went there:"
            yield from (f"#   {name}" for name in unused)
        if self._missed:
            yield ""
            yield f"# Not all: {self._missed} flows more went to other places."


def _listed(key: str, words: list[str]) -> Iterator[str]:
    """Yield a list, on one line if it fits."""
    shown = [json.dumps(word) for word in words]
    line = f"{key} = [{', '.join(shown)}]"
    if len(line) <= _WIDTH:
        yield line
        return
    yield f"{key} = ["
    yield from (f"    {each}," for each in shown)
    yield "]"
