# SPDX-License-Identifier: GPL-2.0-or-later
"""Who calls whom in C, as the linker sees it: no circles, and never upwards.

Includes alone do not tell: two files may share a header and call each other. So
this looks at object files: a file uses another if it refers to a name that the
other defines. A call through a table of functions is none; that is what such
tables are for.
"""

import subprocess
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

from tests.house.layers import C_FLOORS

OBJECTS = Path("build/debug-native/CMakeFiles")

Uses = dict[str, dict[str, set[str]]]


def objects(root: Path) -> list[tuple[Path, str]]:
    """Object files of sources that are still there, and these, relative to native/."""
    return sorted(
        (path, _source(path))
        for target in ("passtpy_core.dir", "_native.dir")
        for path in (root / OBJECTS / target).rglob("*.c.o")
        if (root / "native" / _source(path)).is_file()
    )


def _source(path: Path) -> str:
    """The C file of an object file, relative to native/."""
    return "/".join(path.parts[-2:]).removesuffix(".o")


def _symbols(files: Iterable[Path]) -> list[tuple[str, str, str]]:
    """File, kind (as nm tells it) and name of every symbol that a linker sees."""
    text = subprocess.run(
        ["nm", "--extern-only", "--print-file-name", *map(str, files)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    symbols = []
    for line in text.splitlines():
        path, _, rest = line.partition(".o:")
        *_, kind, name = rest.split()
        symbols.append((_source(Path(path)), kind, name))
    return symbols


def uses(root: Path) -> Uses:
    """For each C file the files that it uses, and by which names."""
    files = [path for path, _ in objects(root)]
    symbols = _symbols(files) if files else []
    owner = {name: file for file, kind, name in symbols if kind not in "Uw"}
    edges: Uses = {file: {} for file, _, _ in symbols}
    for file, kind, name in symbols:
        target = owner.get(name)
        if kind == "U" and target is not None and target != file:
            edges[file].setdefault(target, set()).add(name)
    return edges


def circles(edges: Uses) -> list[str]:
    """Each circle once, as files and the names on the way."""
    left = {file: dict(targets) for file, targets in edges.items()}
    found = []
    while True:
        try:
            TopologicalSorter(
                {f: set(targets) for f, targets in left.items()}
            ).prepare()
        except CycleError as error:
            # graphlib tells it backwards: from what is used to its user.
            circle = error.args[1][::-1]
            way = [
                f"{user} -> {used} ({', '.join(sorted(left[user][used]))})"
                for user, used in pairwise(circle)
            ]
            found.append("circle: " + ", ".join(way))
            del left[circle[0]][circle[1]]
        else:
            return found


def climbs(edges: Uses) -> list[str]:
    """Calls from a floor to one above it."""

    def floor(file: str) -> int:
        return C_FLOORS.index(file.partition("/")[0])

    return [
        f"native/{file}: calls {', '.join(sorted(names))} of {target} above it"
        for file, targets in sorted(edges.items())
        for target, names in sorted(targets.items())
        if floor(target) > floor(file)
    ]


def c_calls(root: Path) -> list[str]:
    """Files of C call downwards only, and nobody who calls them back."""
    edges = uses(root)
    if not edges:
        return [f"{OBJECTS}: no object files; `make native-debug` makes them"]
    return circles(edges) + climbs(edges)
