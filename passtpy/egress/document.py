# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a policy file: TOML becomes a checked Policy, or one line says what is wrong.

The line is `FILE:LINE:COLUMN: what was expected`. Files that a set includes have one
target on each line, may be long, and are named by the same kind of line.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from passtpy.config.limit import NO_LIMIT
from passtpy.egress.garbage import uncollected
from passtpy.egress.keys import (
    FILE_KEYS,
    RULE_KEYS,
    SET_KEYS,
    Fault,
    as_list,
    read_credentials,
    read_table,
    read_text,
    read_to,
    unknown,
)
from passtpy.egress.model import (
    REFUSING,
    Effect,
    EgressRule,
    Mode,
    Policy,
    Span,
    Targets,
)
from passtpy.egress.places import Path, Places
from passtpy.egress.target import PROTOS, TargetFault, read_target, read_word
from passtpy.errors import PolicyError
from passtpy.record import replace

MOST_ENTRIES: Final = 200_000  # of all sets together
MOST_LIMITS: Final = 500  # rules that have one; the datapath has room for two policies
_SYNTAX: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)")
_RULE: Final = re.compile(r"[ \t]*\[\[[ \t]*rule[ \t]*\]\]").match
_SET_NAME: Final = re.compile("[A-Za-z0-9_-]+")

ReadFile = Callable[[str], str]  # by a name as the policy's file writes it


class _Document:
    """A file while it is being read."""

    def __init__(self, text: str, label: str, read_file: ReadFile) -> None:
        self._text = text
        self._label = label
        self._read_file = read_file
        self._entries = 0
        self._places: Places | None = None

    def read(self) -> Policy:
        """Return what the file says."""
        try:
            return self._read(self._parse())
        except Fault as fault:
            raise PolicyError(f"{self._at(fault.path, fault.key)}: {fault}") from None

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(f"{self._label}:{self._syntax(str(error))}") from None
        except RecursionError:
            raise PolicyError(f"{self._label}:1:1: nested too deeply") from None

    def _syntax(self, message: str) -> str:
        found = _SYNTAX.fullmatch(message)
        if found is None:
            return f"1:1: {message}"
        what, line, column = found.groups()
        if line is None:
            line = str(self._text.count("\n") + 1)
            column = str(len(self._text) - self._text.rfind("\n"))
        return f"{line}:{column}: {what[:1].lower()}{what[1:]}"

    def _at(self, path: Path, key: bool = False) -> str:
        if self._places is None:
            self._places = Places(self._text)
        place = self._places.find(path, key)
        return f"{self._label}:{place.line}:{place.column}"

    def _read(self, document: dict[str, Any]) -> Policy:
        rest = {k: v for k, v in document.items() if k not in ("rule", "sets")}
        known = [key.name for key in FILE_KEYS]
        for name in rest:
            if name not in known:
                every = dict.fromkeys([*known, "sets", "rule"])
                raise Fault((name,), unknown(name, every), key=True)
        fields = read_table(FILE_KEYS, rest, (), {})
        del fields["version"]
        sets = self._sets(document.get("sets", {}))
        rules = document.get("rule", [])
        if not isinstance(rules, list):
            raise Fault(("rule",), "expected [[rule]], with two brackets")
        read = tuple(self._rule(each, n, sets) for n, each in enumerate(rules))
        limited = [n for n, each in enumerate(read) if each.limit != NO_LIMIT]
        if len(limited) > MOST_LIMITS:
            place = "rule", limited[MOST_LIMITS], "limit"
            raise Fault(place, f"at most {MOST_LIMITS} rules may have limits")
        return Policy(
            rules=read,
            places=tuple(self._places_of_rules(len(rules))),
            sets=sets,
            **fields,
        )

    def _places_of_rules(self, count: int) -> Iterator[str]:
        """Yield where each rule stands, found without a walk over all of the text."""
        lines = (n for n, line in enumerate(self._text.split("\n"), 1) if _RULE(line))
        found = list(lines)
        if len(found) == count:  # else some are written as [["rule"]]
            yield from (f"{self._label}:{line}" for line in found)
        else:
            yield from (f"{self._label}, rule {n + 1}" for n in range(count))

    def _rule(self, table: Any, number: int, sets: dict[str, Targets]) -> EgressRule:
        path: Path = ("rule", number)
        fields = read_table(RULE_KEYS, table, path, sets)
        if "to" in fields:
            fields["to"], fields["targets"] = fields["to"]
        self._add_credentials(fields, path)
        rule = EgressRule(**fields)
        if rule.via is not None and rule.effect in REFUSING:
            raise Fault((*path, "via"), "a rule that refuses leads through no proxy")
        if rule.limit != NO_LIMIT and rule.effect in REFUSING:
            raise Fault((*path, "limit"), "a rule that refuses has nothing to limit")
        if rule.ports and rule.protos and rule.protos <= PROTOS["icmp"]:
            raise Fault((*path, "ports"), "ICMP has no ports")
        return rule

    def _add_credentials(self, fields: dict[str, Any], path: Path) -> None:
        """Put what a file says in the place of its name."""
        file = fields.pop("credentials", None)
        if file is None:
            return
        place = (*path, "via_credentials")
        if "via" not in fields:
            raise Fault(place, "expected the key 'via' as well", key=True)
        try:
            text = self._read_file(file)
        except OSError as error:
            raise Fault(place, f"cannot read {file}: {error.strerror}") from None
        user, password = read_credentials(text, place)
        fields["via"] = replace(fields["via"], user=user, password=password)

    def _sets(self, table: Any) -> dict[str, Targets]:
        if not isinstance(table, dict):
            raise Fault(("sets",), "expected a table of sets")
        return {name: self._set(name, value) for name, value in table.items()}

    def _set(self, name: str, value: Any) -> Targets:
        path: Path = ("sets", name)
        if _SET_NAME.fullmatch(name) is None:
            raise Fault(path, "a set is named by letters, digits, - and _", key=True)
        if not isinstance(value, dict):
            return self._counted(read_to(value, path, {})[1], path)
        found = Targets()
        for key, each in value.items():
            place = (*path, key)
            if key not in SET_KEYS:
                raise Fault(place, unknown(key, SET_KEYS), key=True)
            if key == "to":
                found += self._counted(read_to(each, place, {})[1], place)
                continue
            for file, where in as_list(each, place):
                found += self._included(read_text(file, where, {}), where)
        return found

    def _included(self, name: str, path: Path) -> Targets:
        try:
            text = self._read_file(name)
        except OSError as error:
            raise Fault(path, f"cannot read {name}: {error.strerror}") from None
        return self._counted(read_entries(text, name), path)

    def _counted(self, targets: Targets, path: Path) -> Targets:
        self._entries += len(targets.names) + len(targets.spans)
        if self._entries > MOST_ENTRIES:
            raise Fault(path, f"at most {MOST_ENTRIES} targets in all sets")
        return targets


def read_entries(text: str, label: str) -> Targets:
    """Read a set's file: a target on each line; `#` begins a comment."""
    names: list[str] = []
    spans: list[Span] = []
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        try:
            targets = read_target(word)
        except TargetFault as fault:
            column = line.index(word) + 1
            raise PolicyError(f"{label}:{number}:{column}: {fault}") from None
        if targets.sets:
            column = line.index(word) + 1
            raise PolicyError(f"{label}:{number}:{column}: a set has no sets in it")
        names += targets.names
        spans += targets.spans
    return Targets(tuple(names), tuple(spans))


def parse_policy(text: str, label: str, read_file: ReadFile) -> Policy:
    """Read the text of a policy file; PolicyError says what is wrong, and where."""
    with uncollected():
        return _Document(text, label, read_file).read()


def with_words(
    policy: Policy | None, words: Sequence[tuple[str, str]], mode: str | None
) -> Policy:
    """Return a policy with what the command line says, which is tried first.

    `words` are pairs of `allow` or `deny` and a rule. Who says `--deny` only, without a
    file, means that the rest of the internet is allowed.
    """
    if policy is None:
        only_denies = words and all(action == "deny" for action, _ in words)
        default = Effect.ALLOW if only_denies else Effect.REJECT
        policy = Policy(default=default)
    rules, places = [], []
    for action, text in words:
        effect = Effect.ALLOW if action == "allow" else Effect.REJECT
        try:
            rules.append(read_word(text, effect, policy.sets))
        except TargetFault as fault:
            raise PolicyError(f"--{action}: {fault}") from None
        places.append(f"--{action} {text}")
    return replace(
        policy,
        rules=(*rules, *policy.rules),
        places=(*places, *policy.places),
        mode=policy.mode if mode is None else Mode(mode),
    )
