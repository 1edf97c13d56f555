# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells which system calls our processes make once their doors are shut: `make calls`.

Tests that start the whole program run with strace(1) around it. A row of the table in
passtpy/isolation/calls.py that nobody uses meanwhile is an opening for nothing: it is
named, and that is a failure.
"""

import os
import re
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from passtpy.config.model import Seccomp
from passtpy.isolation.calls import Process, allowed
from passtpy.isolation.filter import architecture, program

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("passtpy-pasta", "passtpy-passt")
JUMP_IF_EQUAL = 0x15
Compared = tuple[int, ...]
WRAPPER = """\
#!/bin/sh
# -D: the program keeps the number of the process that was started
exec strace -D -f -qq -s 0 -e abbrev='!seccomp' -o {folder}/$$.trace {real} "$@"
"""

_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)")
_COMPARED = re.compile(r"JEQ, (0x[0-9a-f]+|0)\b")  # what a filter compares with
_CHILD = re.compile(r" = (\d+)$")


def wrap(folder: Path) -> Path:
    """Make programs that are traced; return the one for namespaces."""
    folder.mkdir(mode=0o777, parents=True, exist_ok=True)
    folder.chmod(0o1777)  # users write there, too
    for old in folder.iterdir():
        old.unlink()
    for name in PROGRAMS:
        path = folder / name
        real = Path(sys.executable).with_name(name)
        path.write_text(WRAPPER.format(folder=folder, real=real))
        path.chmod(0o755)
    return folder / PROGRAMS[0]


def kinds() -> dict[Compared, Process]:
    """Return which process has the filter that compares with these, in their order."""
    here = architecture()
    assert here is not None
    found = {
        compared(program(kind, Seccomp.KILL, here)): kind
        for kind in (*Process.DAEMON, *Process.MAKER, Process.LOOKOUT)
    }
    assert len(found) == len(Process.ALL), "two filters are alike"
    return found


def compared(filter_: bytes) -> Compared:
    """Return what a filter compares with."""
    steps = struct.iter_unpack("=HBBI", filter_)
    return tuple(value for code, _, _, value in steps if code == JUMP_IF_EQUAL)


def calls_of(
    lines: Iterable[str], kinds: dict[Compared, Process]
) -> Iterator[tuple[Process, str]]:
    """Yield who made which call behind its door, of a trace.

    A filter holds for all threads of a process, those that began before it too.
    """
    who: dict[str, Process] = {}
    threads: dict[str, set[str]] = defaultdict(set)  # of a process, by its first one
    cloning: dict[str, bool] = {}  # whether a thread begins; the answer comes later
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        caller, name, rest = found.groups()
        if caller in who:
            yield who[caller], name
        if name in ("clone", "clone3"):
            if "flags=" in rest:
                cloning[caller] = "CLONE_THREAD" in rest
            child = _CHILD.search(rest)
            if child and cloning.get(caller):
                threads[caller].add(child[1])
        if name == "seccomp":
            values = tuple(int(each, 16) for each in _COMPARED.findall(rest))
            kind = kinds.get(values)
            if kind is not None:
                who.update(dict.fromkeys({caller, *threads[caller]}, kind))


def used(folder: Path) -> dict[Process, set[str]]:
    """Return the calls of each kind of process, in all traces."""
    found: dict[Process, set[str]] = defaultdict(set)
    filters = kinds()
    for trace in folder.glob("*.trace"):
        with trace.open(errors="replace") as lines:
            for who, name in calls_of(lines, filters):
                found[who].add(name)
    return found


def report(found: dict[Process, set[str]]) -> list[str]:
    """Return a line for each row, and process, that nobody used."""
    unused = []
    for kind in kinds().values():
        rows = allowed(kind)
        seen = found.get(kind, set())
        print(f"{kind.name}: {len({r.name for r in rows})} calls")
        print("  made:", *sorted(seen & {r.name for r in rows}))
        print("  tried, and refused:", *sorted(seen - {r.name for r in rows}))
        for row in rows:
            if row.name not in seen and not row.rare:
                unused.append(f"{kind.name} never needs {row.name}: {row.why}")
    return unused


def main(argv: list[str]) -> int:
    """Run these tests (all of tests/netns by default), then judge the table."""
    folder = ROOT / "build" / "calls"
    if argv[:1] != ["--judge"]:
        traced = wrap(folder)
        env = {**os.environ, "PASSTPY_PASTA": str(traced)}
        tests = argv or ["tests/netns"]
        subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], env=env)
    unused = report(used(folder))
    print(*unused, sep="\n")
    return 1 if unused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
