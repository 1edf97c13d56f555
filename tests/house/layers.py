# SPDX-License-Identifier: GPL-2.0-or-later
"""The layer rule: a file uses its own floor or lower ones, and no cycles.

The floors are those of the architecture. A new file must be given one: a name
that stands on none is an error.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.house.rules import c_code, sources

C_FLOORS = ("base", "table", "link", "proto", "core", "py")

PYTHON_FLOORS = (
    {
        "",
        "addr",
        "record",
        "errors",
        "log",
        "sinks",
        "logfile",
        "traces",
        "failures",
        "limits",
        "supervisor",
        "lean",
        "loading",
        "structured",
        "_native",
    },
    {"flow", "wire"},
    {"config"},
    {"egress"},
    {"policy", "services"},
    {"net", "control", "isolation", "files"},
    {"datapath", "resolving"},
    {"engine"},
    {"inspecting", "limiting"},
    {"proxying"},
    {"policed"},
    {"governing"},
    {"reloading"},
    {"controlled"},
    {
        "session",
        "lifecycle",
        "daemon",
        "__main__",
        "client",
        "pesto",
        "slirp4netns",
        "cni",
    },
)
# Rooms of one floor that agree by what is below them, and do not know each other.
STRANGERS = {"policy", "services"}
# The rooms of passtpy/net, from the lowest on: a room uses those before it.
NET_ROOMS = ("kernel", "host", "namespace", "following", "forwarding", "machine")
# Who may talk to the datapath. The rest sees plain Python values.
NATIVE_USERS = {"datapath", "engine", "controlled", "log", "isolation", "net"}
# Their bytes say which code to run.
OBEDIENT = {"pickle", "_pickle", "marshal", "shelve", "multiprocessing", "dill"}

Edges = dict[str, set[str]]


def _floor_of(module: str) -> int | None:
    """Floor of a dotted module below passtpy ("" is the package itself)."""
    top = module.partition(".")[0]
    for floor, names in enumerate(PYTHON_FLOORS):
        if top in names:
            return floor
    return None


def _module_name(package: Path, path: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(node: ast.AST, here: str, is_package: bool) -> list[str]:
    """Dotted names that an import statement may mean, from the top on."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = f"passtpy.{here}".rstrip(".").split(".")
        up = node.level - is_package
        base = ".".join([*parts[: len(parts) - up], *filter(None, [base])])
    return [f"{base}.{alias.name}" for alias in node.names]


def _resolve(name: str, modules: Iterable[str]) -> str | None:
    """The deepest module of the package that a dotted name leads to."""
    top, _, rest = name.partition(".")
    if top != "passtpy":
        return None
    while rest and rest not in modules:
        rest = rest.rpartition(".")[0]
    return rest


def python_imports(root: Path) -> Edges:
    """Who imports whom within passtpy, module by module."""
    package = root / "passtpy"
    files = {
        _module_name(package, path): path
        for path in sources(root, "passtpy", suffixes={".py"})
    }
    modules = {*files, "_native"}
    edges: Edges = {module: set() for module in modules}
    for module, path in files.items():
        is_package = path.name == "__init__.py"
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _imported(node, module, is_package):
                target = _resolve(name, modules)
                if target is not None and target != module:
                    edges[module].add(target)
    return edges


def c_includes(root: Path) -> Edges:
    """Who includes whom below native/, file by file."""
    native = root / "native"
    return {
        path.relative_to(native).as_posix(): set(
            re.findall(r'#\s*include\s*"([^"]+)"', c_code(path))
        )
        for path in sources(root, "native", suffixes={".c", ".h", ".def"})
    }


def _cycles(edges: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return ["cycle: " + " -> ".join(error.args[1])]
    return []


def python_layers(root: Path) -> list[str]:
    """No module imports from a floor above its own."""
    edges = python_imports(root)
    bad = []
    for module, targets in sorted(edges.items()):
        floor = _floor_of(module)
        if floor is None:
            bad.append(f"passtpy.{module}: stands on no floor")
            continue
        for target in sorted(targets):
            above = _floor_of(target)
            if above is not None and above > floor:
                bad.append(f"passtpy.{module}: imports {target} from above")
    return bad + _cycles(edges)


def strangers(root: Path) -> list[str]:
    """Neither of two rooms that are to stay strangers imports from the other."""
    return [
        f"passtpy.{module}: imports {target}, of a room it is not to know"
        for module, targets in sorted(python_imports(root).items())
        for target in sorted(targets)
        if {module.partition(".")[0], target.partition(".")[0]} == STRANGERS
    ]


def _room_of(module: str) -> int | None:
    """Place of a module of passtpy/net in the order of rooms; None if it has none."""
    room = module.split(".")[1]
    return NET_ROOMS.index(room) if room in NET_ROOMS else None


def net_rooms(root: Path) -> list[str]:
    """Every module of passtpy/net is in a room, and uses its own or lower ones."""
    edges = python_imports(root)
    bad = []
    for module, targets in sorted(edges.items()):
        if not module.startswith("net."):
            continue
        room = _room_of(module)
        if room is None:
            bad.append(f"passtpy.{module}: is in no room")
            continue
        for target in sorted(targets):
            above = _room_of(target) if target.startswith("net.") else None
            if above is not None and above > room:
                bad.append(f"passtpy.{module}: imports {target} from a later room")
    return bad


def native_door(root: Path) -> list[str]:
    """Only a few modules import passtpy._native."""
    return [
        f"passtpy.{module}: imports _native"
        for module, targets in sorted(python_imports(root).items())
        if "_native" in targets and module.partition(".")[0] not in NATIVE_USERS
    ]


def nothing_runs_what_it_reads(root: Path) -> list[str]:
    """What other processes write is read by type: no module that obeys it is used."""
    return [
        f"passtpy.{_module_name(root / 'passtpy', path)}: imports {name}"
        for path in sources(root, "passtpy", suffixes={".py"})
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node, "", is_package=False)
        if name.partition(".")[0] in OBEDIENT
    ]


def c_layers(root: Path) -> list[str]:
    """No file includes from a floor above its own."""
    edges = c_includes(root)
    bad = []
    for file, targets in sorted(edges.items()):
        folder = file.partition("/")[0]
        if folder not in C_FLOORS:
            bad.append(f"native/{file}: stands on no floor")
            continue
        for target in sorted(targets):
            above = target.partition("/")[0]
            if above not in C_FLOORS:
                bad.append(f'native/{file}: "{target}" names no floor')
            elif C_FLOORS.index(above) > C_FLOORS.index(folder):
                bad.append(f"native/{file}: includes {target} from above")
    return bad + _cycles(edges)
