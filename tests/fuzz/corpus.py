# SPDX-License-Identifier: GPL-2.0-or-later
"""Inputs that are kept: a zip file for each target, small, made from what runs found.

Only those are kept that reach lines which no other does; then those that reach a line
more often than others do, for as long as there is room.
"""

import hashlib
import subprocess
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from tests.fuzz.lines import watch
from tests.fuzz.target import BUILD, HERE, ROOT, Target, environment

ROOM = 13_000  # bytes of inputs kept of each target
KEPT = HERE / "corpus"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same inputs make the same file


def kept(target: Target) -> Path:
    """Return the file of a target."""
    return KEPT / f"{target.name}.zip"


def found(target: Target) -> Path:
    """Return the folder where runs on this machine put what they find."""
    folder = BUILD / "found" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def unpack(target: Target) -> Path:
    """Return a folder of the inputs that are kept, and of nothing else."""
    folder = BUILD / "kept" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    if kept(target).exists():
        with zipfile.ZipFile(kept(target)) as archive:
            archive.extractall(folder)
    return folder


@dataclass
class _Reached:
    """What an input reaches: places in the code, and how often."""

    places: set[int] = field(default_factory=set)
    features: set[int] = field(default_factory=set)


def read_control(text: str) -> dict[Path, _Reached]:
    """Read libFuzzer's notes on a merge: what each input reaches."""
    lines = text.splitlines()
    count = int(lines[0])
    files = [Path(line) for line in lines[2 : 2 + count]]
    reached = {file: _Reached() for file in files}
    for line in lines[2 + count :]:
        kind, number, *values = line.split()
        if kind == "COV":
            reached[files[int(number)]].places.update(map(int, values))
        elif kind == "FT":
            reached[files[int(number)]].features.update(map(int, values))
    return reached


def choose(
    reached: Mapping[Path, set[int]], sizes: Mapping[Path, int], room: int
) -> list[Path]:
    """Return inputs that reach all there is, or as much as room allows."""
    chosen: list[Path] = []
    seen: set[int] = set()
    left = dict(reached)
    while left:
        best = max(left, key=lambda file: (len(left[file] - seen) / sizes[file], file))
        new = left.pop(best) - seen
        if not new:
            break
        if sizes[best] <= room:
            room -= sizes[best]
            chosen.append(best)
            seen |= new
    return chosen


def pack(target: Target, folders: Sequence[Path]) -> tuple[int, int]:
    """Keep the best inputs of some folders; return how many, and their bytes."""
    reached = _merge(target, folders) if target.is_c else _trace(target, folders)
    sizes = {file: max(1, file.stat().st_size) for file in reached}
    places = {file: each.places for file, each in reached.items()}
    features = {file: each.features for file, each in reached.items()}
    first = choose(places, sizes, ROOM)
    room = ROOM - sum(sizes[file] for file in first)
    rest = {file: each for file, each in features.items() if file not in first}
    chosen = first + choose(rest, sizes, room)
    _write(kept(target), [file.read_bytes() for file in chosen])
    return len(chosen), kept(target).stat().st_size


def _trace(target: Target, folders: Iterable[Path]) -> dict[Path, _Reached]:
    """Run each input of a target in Python; atheris has no merge."""
    play = import_module(f"tests.fuzz.targets.{target.name}").play
    reached = {}
    for file in (file for folder in folders for file in sorted(folder.iterdir())):
        lines = watch(play, [file.read_bytes()])
        places = {hash((name, line)) for name, each in lines.items() for line in each}
        reached[file] = _Reached(places)
    return reached


def _merge(target: Target, folders: Iterable[Path]) -> dict[Path, _Reached]:
    """Let libFuzzer look what each input reaches."""
    control = BUILD / f"merge-{target.name}"
    control.unlink(missing_ok=True)
    into = BUILD / "merged"
    into.mkdir(exist_ok=True)
    subprocess.run(
        [
            *target.command,
            "-merge=1",
            f"-merge_control_file={control}",
            str(into),
            *map(str, folders),
        ],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return read_control(control.read_text())


def _write(path: Path, inputs: list[bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for data in sorted(inputs):
            name = hashlib.sha256(data).hexdigest()[:8]
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), data)
