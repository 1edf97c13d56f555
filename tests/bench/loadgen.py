# SPDX-License-Identifier: GPL-2.0-or-later
"""The load generator: compiling it on demand, and running its two ends."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab import Lab, LabError, Namespace, Process
from tests.lab.translators import ROOT

SOURCES = Path(__file__).parent / "load"
PROGRAM = ROOT / "build" / "loadgen" / "load"
FLAGS = ("-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")
END_PATIENCE = 30.0

Answer = Mapping[str, Any]


def build() -> Path:
    """Compile the load generator if its sources are newer; where it is."""
    sources = sorted(SOURCES.glob("*.c"))
    newest = max(path.stat().st_mtime for path in SOURCES.iterdir())
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < newest:
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["cc", *FLAGS, "-o", str(PROGRAM), *map(str, sources)],
            check=True,
            timeout=120,
        )
    return PROGRAM


def words(
    mode: str, address: str, port: int, options: Mapping[str, object]
) -> list[str]:
    """The command line of one end; options that are None are left out."""
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    return [str(PROGRAM), mode, address, str(port), *given]


def parse(text: str, who: str) -> Answer:
    """The object that a load generator printed; ``LabError`` if it reports one."""
    try:
        answer: Answer = json.loads(text)
    except json.JSONDecodeError:
        raise LabError(f"{who} said nothing") from None
    if "error" in answer:
        raise LabError(f"{who}: {answer['error']}")
    return answer


@contextmanager
def serving(
    lab: Lab, where: Namespace, argv: Sequence[str], kind: str, port: int
) -> Iterator[Process]:
    """The listening end, which can be reached when the ``with`` block begins."""
    process = lab.start(where, *argv)
    try:
        where.wait_bound(kind, port)
        yield process
    finally:
        process.stop()


def run_client(where: Namespace, argv: Sequence[str], timeout: float) -> Answer:
    """Run the opening end to its end."""
    done = where.run(*argv, timeout=timeout, check=False)
    return parse(done.stdout, "client")


def finish(process: Process, patience: float = END_PATIENCE) -> Answer:
    """Wait for the listening end and read what it printed."""
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        raise LabError("server: not finished in time") from None
    return parse(process.stdout(), "server")
