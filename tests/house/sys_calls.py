# SPDX-License-Identifier: GPL-2.0-or-later
"""What C asks the kernel and the C library for: by the names of base/sys.h.

A call that may fail has a row there, so that a test can have it fail wherever it is
made. What a linker finds in our object files besides must be in HARMLESS: it cannot
fail, or nothing depends on it.
"""

import re
import subprocess
from pathlib import Path

from tests.house.calls import OBJECTS, objects
from tests.house.rules import c_lines, sources

TABLE = "native/base/sys.h"
# The table itself, and system calls for Python, which hands their errors on (setns, …)
DOORS = ("native/base/sys.h", "native/py/privilege.c", "native/py/confine.c")

HARMLESS = {
    "memory that is there": "memcmp memcpy memmove memset strchr strcmp strcpy strcspn"
    " strlen strncmp strstr strtoull snprintf inet_ntop in6addr_any __cpu_model"
    " __popcountdi2",
    "gives back what we have": "close free munmap pthread_cancel pthread_cond_destroy"
    " pthread_join pthread_timedjoin_np pthread_mutex_destroy pthread_attr_destroy",
    "fails for nobody who holds its arguments": "clock_gettime getenv getrlimit sysconf"
    " pthread_attr_init pthread_attr_setstacksize pthread_cond_init"
    " pthread_cond_signal pthread_cond_wait pthread_mutex_init pthread_mutex_lock"
    " pthread_mutex_unlock pthread_once pthread_setcancelstate pthread_sigmask"
    " pthread_testcancel sigaction sigaddset sigemptyset sigfillset",
    "ends us, or is part of ending": "__assert_fail abort raise",
    "how the compiler and the linker do their part": "_GLOBAL_OFFSET_TABLE_"
    " __errno_location __start_fault_sites __stop_fault_sites __stack_chk_fail",
    "reads and tells what a test asked for": "__isoc99_sscanf __isoc23_sscanf"
    " __isoc23_strtoull fprintf __fprintf_chk stderr",
}


def table(root: Path) -> set[str]:
    """Names of the calls that have a row."""
    return set(
        re.findall(r"^#define sys_(\w+)\(", (root / TABLE).read_text(), re.MULTILINE)
    )


def calls_go_through_the_table(root: Path) -> list[str]:
    """No file calls recv() where sys_recv() is meant."""
    names = "|".join(sorted(table(root)))
    # Not a member (ops->read), a pointer's name, or the end of a longer word.
    raw = re.compile(rf"(?<![\w.>*])({names})\(")
    return [
        f"{file}: {found[1]}() in {function}(), not sys_{found[1]}()"
        for path in sources(root, "native", suffixes={".c", ".h"})
        if (file := path.relative_to(root).as_posix()) not in DOORS
        for function, line in c_lines(path)
        if (found := raw.search(re.sub(r'"(?:[^"\\]|\\.)*"', '""', line)))
    ]


def _undefined(root: Path) -> dict[str, set[str]]:
    """What each of our object files wants of somebody else, without Python's."""
    found: dict[str, set[str]] = {}
    ours: set[str] = set()
    for path, file in objects(root):
        text = subprocess.run(
            ["nm", "--extern-only", path], check=True, capture_output=True, text=True
        ).stdout
        for line in text.splitlines():
            *_, kind, name = line.split()
            if kind != "U":
                ours.add(name)
            elif not name.startswith(("Py", "_Py")):
                found.setdefault(file, set()).add(name)
    return {file: names - ours for file, names in found.items()}


def every_call_is_known(root: Path) -> list[str]:
    """What we link to is in the table, or harmless."""
    undefined = _undefined(root)
    if not undefined:
        return [f"{OBJECTS}: no object files; `make native-debug` makes them"]
    known = table(root) | set(" ".join(HARMLESS.values()).split())
    return [
        f"native/{file}: {name}() has no row in {TABLE}"
        for file, names in sorted(undefined.items())
        for name in sorted(names - known)
        if f"native/{file}" not in DOORS
    ]
