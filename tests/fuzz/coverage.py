# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines the inputs of fuzzing reach, by source file."""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.lines import all_lines, watch
from tests.fuzz.target import BUILD, ROOT, Target, environment

Counts = dict[str, tuple[int, int]]  # lines reached and all, by source file


def of_c(targets: Iterable[Target]) -> Counts:
    """Run the inputs of all targets in C; add up what they reach."""
    profiles, objects = [], list[str]()
    for target in targets:
        profile = BUILD / f"{target.name}.profraw"
        folders = (corpus.unpack(target), corpus.found(target))
        subprocess.run(
            [*target.command, "-runs=0", *map(str, folders)],
            env=environment(LLVM_PROFILE_FILE=str(profile)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        profiles.append(str(profile))
        objects += ["-object", str(target.needs)]
    if not profiles:
        return {}
    merged = str(BUILD / "all.profdata")
    subprocess.run(
        ["llvm-profdata", "merge", "-sparse", *profiles, "-o", merged], check=True
    )
    report = subprocess.run(
        ["llvm-cov", "report", *objects[1:], f"-instr-profile={merged}"],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return dict(_c_lines(report.stdout))


def _c_lines(report: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the files of a report of llvm-cov that are ours."""
    common = ""
    for line in report.splitlines():
        words = line.split()
        if len(words) < 10 or not words[0].endswith((".c", ".h")):
            continue
        name = common + words[0]
        lines, missed = int(words[7]), int(words[8])
        if "native/" in name and "tests/" not in name and lines:
            yield name[name.index("native/") :], (lines - missed, lines)


def of_python(targets: Iterable[Target]) -> Counts:
    """Run the inputs of each target in Python in a process of its own."""
    reached: dict[str, set[int]] = defaultdict(set)
    for target in targets:
        folders = (corpus.unpack(target), corpus.found(target))
        told = subprocess.run(
            [sys.executable, "-m", __name__, target.name, *map(str, folders)],
            env=environment(),
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in told.stdout.splitlines():
            name, _, numbers = line.partition(" ")
            reached[name].update(map(int, numbers.split()))
    return {
        name: (len(lines & (every := all_lines(ROOT / name))), len(every))
        for name, lines in sorted(reached.items())
    }


def _main(name: str, *folders: str) -> None:
    play = import_module(f"tests.fuzz.targets.{name}").play
    files = [file for folder in folders for file in sorted(Path(folder).iterdir())]
    watched = watch(play, (file.read_bytes() for file in files))
    for source, lines in sorted(watched.items()):
        print(source, *sorted(lines))


if __name__ == "__main__":
    _main(*sys.argv[1:])
