# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the house, as functions from a source tree to what breaks them.

Each takes the root of a tree, so that the rules themselves can be tried on small
trees made to break them (test_rules.py). An answer is a list of lines
"file: what is wrong"; an empty one is a pass.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

MAX_LINES = 600

SOURCES = ("passtpy", "native", "tests", ".ci", "systemd")
SOURCE_SUFFIXES = {".py", ".pyi", ".c", ".h", ".def", ".txt", ".sh", ".toml"}

Rule = Callable[[Path], list[str]]


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def sources(root: Path, *folders: str, suffixes: set[str] | None = None) -> list[Path]:
    """Source files under the folders of a tree, among them scripts by their #! line."""
    return sorted(
        path
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and (
            path.suffix in (suffixes or SOURCE_SUFFIXES)
            or (suffixes is None and not path.suffix and _is_script(path))
        )
    )


def c_code(path: Path) -> str:
    """A C file without its comments, every line in its place."""
    return re.sub(
        r"/\*.*?\*/|//[^\n]*",
        lambda comment: "\n" * comment[0].count("\n"),
        path.read_text(),
        flags=re.DOTALL,
    )


def c_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line of a C file's code with the name of the function it is in."""
    function = ""
    for line in c_code(path).splitlines():
        head = re.match(r"[A-Za-z_][\w\s*]*?\b(\w+)\(", line)
        if head and not line.rstrip().endswith(";"):
            function = head[1]
        yield function, line


def _calls(root: Path, name: str) -> Iterator[tuple[str, str]]:
    """Files (relative to native/) and functions where a C name is used."""
    native = root / "native"
    for path in sources(root, "native", suffixes={".c", ".h"}):
        for function, line in c_lines(path):
            if re.search(rf"\b{name}\b", line):
                yield path.relative_to(native).as_posix(), function


def python_h_only_in_py(root: Path) -> list[str]:
    """Only native/py/ knows that there is a Python."""
    return [
        f"{path.relative_to(root)}: includes Python.h"
        for path in sources(root, "native", suffixes={".c", ".h", ".def"})
        if path.parent != root / "native" / "py"
        and re.search(r'#\s*include\s*[<"]Python\.h[>"]', c_code(path))
    ]


def one_door_into_epoll(root: Path) -> list[str]:
    """Sockets enter epoll in table/epoll.c; core/ may also set up its own fds."""
    return [
        f"native/{file}: epoll_ctl() in {function}(), not in table/epoll.c"
        for file, function in _calls(root, "sys_epoll_ctl")
        if file not in ("base/sys.h", "table/epoll.c") and not file.startswith("core/")
    ]


def flows_written_in_table(root: Path) -> list[str]:
    """The common part of a flow has one owner; `f` is const for everybody else."""
    native = root / "native"
    return [
        f"{path.relative_to(root)}: {function}() writes the common part of a flow"
        for path in sources(root, "native", suffixes={".c", ".h"})
        if path.parent != native / "table"
        for function, line in c_lines(path)
        if re.search(r"(->|\.)rw\b", line)
        or re.search(r"\(\s*struct flow_common\s*\*\s*\)", line)
    ]


def bytes_are_lent_by_scope(root: Path) -> list[str]:
    """A batch for the tap ends with a scope: no handler begins, ends or flushes one."""
    bad = []
    for name in ("tap_batch_begin", "tap_batch_end", "tap_flush"):
        for file, function in _calls(root, name):
            own = file in ("link/tap.c", "link/tap.h")
            if not own and not (name == "tap_flush" and file.startswith("core/")):
                bad.append(f"native/{file}: {name}() in {function}()")
    return bad


def backends_known_in_link(root: Path) -> list[str]:
    """Whatever differs between backends of the tap is a member of struct tap_ops.

    So no other floor names one, asks which it has, or sets what is a backend's. One
    whose guest is told of by messages has its own file in py/, which is named twice.
    """
    native = root / "native"
    table = native / "link" / "backends.def"
    rows = re.findall(r"^TAP_BACKEND\((\w+)\)", table.read_text(), re.MULTILINE)
    names = "|".join(rows)
    named = re.compile(
        rf"\b(?!(?:datapath_)?(?:{names})_(?:methods|constants_add)\b)"
        rf"(?:tap_|py_|datapath_)?(?:{names})(?:_\w+)?\b(?!\.h)",
        re.IGNORECASE,
    )
    asked = re.compile(r"\bops\s*[!=]=|\bops->name\b")
    owned = re.compile(r"\b(?:tap\.|tap->|t->)(?:fd|more|blocked|own)\s*\|?=[^=]")
    doors = {
        native / "py" / f"datapath_{row}{end}" for row in rows for end in (".c", ".h")
    }
    return [
        f"{path.relative_to(root)}: {found[0].strip()} in {function}(), not in link/"
        for path in sources(root, "native", suffixes={".c", ".h"})
        if path.parent.name in ("proto", "core", "py") and path not in doors
        for function, line in c_lines(path)
        for rule in (named, asked, owned)
        if (found := rule.search(line))
    ]


def gil_released_once(root: Path) -> list[str]:
    """The GIL is let go in exactly one place, in native/py/."""
    places = list(_calls(root, "Py_BEGIN_ALLOW_THREADS"))
    if len(places) == 1:
        return []
    where = ", ".join(f"{file}:{function}()" for file, function in places) or "nowhere"
    return [f"native: Py_BEGIN_ALLOW_THREADS stands in {len(places)} places: {where}"]


def files_are_short(root: Path) -> list[str]:
    """A longer file wants splitting."""
    counted = (
        (path, len(path.read_text().splitlines())) for path in sources(root, *SOURCES)
    )
    return [
        f"{path.relative_to(root)}: {lines} lines, more than {MAX_LINES}"
        for path, lines in counted
        if lines > MAX_LINES
    ]


def licence_is_named(root: Path) -> list[str]:
    """An SPDX line opens each file that says something (below a #! line)."""
    wanted = "SPDX-License-Identifier: GPL-2.0-or-later"
    top = [root / name for name in ("Makefile", "pyproject.toml", ".clang-format")]
    return [
        f"{path.relative_to(root)}: no SPDX line"
        for path in [*sources(root, *SOURCES), *filter(Path.exists, top)]
        if (text := path.read_text()) and wanted not in "".join(text.splitlines()[:2])
    ]
