# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be fuzzed, and one run of it: by libFuzzer, in C or around Python.

A target of C is a program of build/fuzz/, one of Python a module of
tests/fuzz/targets/. Both take libFuzzer's options, and folders of inputs to begin with
or one input to repeat.
"""

import base64
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "tests" / "fuzz"
BUILD = ROOT / "build" / "fuzz"
MAX_LEN = 4096  # bytes of an input
_TIMEOUT = 60  # seconds that one input may take; a loop without end takes longer
_TAIL = 60  # lines of a failed run that are worth reading


@dataclass(frozen=True)
class Target:
    """Something to fuzz: what begins its command line, what it needs to be there."""

    name: str
    command: tuple[str, ...]
    needs: Path

    @property
    def is_c(self) -> bool:
        """Tell whether a program in C is fuzzed."""
        return self.needs.suffix != ".py"

    def why_not(self) -> str | None:
        """Return why it cannot be run here; None: it can."""
        if self.is_c and not self.needs.exists():
            return "needs make native-fuzz"
        if not self.is_c and importlib.util.find_spec("atheris") is None:
            return "needs atheris, which this Python or machine has no package of"
        return None


def targets() -> tuple[Target, ...]:
    """Return all of them, as the sources say: one that was not built is missed."""
    found = []
    for source in sorted(HERE.glob("fuzz_*.c")):
        program = BUILD / source.stem
        name = source.stem.removeprefix("fuzz_")
        found.append(Target(name, (str(program),), program))
    for source in sorted((HERE / "targets").glob("[a-z]*.py")):
        command = (sys.executable, "-m", "tests.fuzz.guided", source.stem)
        found.append(Target(source.stem, command, source))
    return tuple(found)


@dataclass(frozen=True)
class Outcome:
    """What a run came to: `finding` is the input that failed, None if none did."""

    text: str
    finding: bytes | None = None


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a run: the checked build, and no profile."""
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'build' / 'debug'}:{ROOT}",
        "LLVM_PROFILE_FILE": os.devnull,
        "UBSAN_OPTIONS": "print_stacktrace=1",
    } | more


def again(target: Target, finding: bytes) -> str:
    """Return the command that repeats a finding."""
    text = base64.b64encode(finding).decode()
    return f".venv/bin/python -m tests.fuzz again {target.name} {text}"


def run(target: Target, seconds: int, *folders: Path, seed: int = 0) -> Outcome:
    """Fuzz for a while; new inputs go to the first folder, all are begun with.

    From the same `seed` come the same inputs; 0: other ones each time.
    """
    prefix = BUILD / "findings" / f"{target.name}-"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for old in prefix.parent.glob(f"{target.name}-*"):
        old.unlink()
    done = subprocess.run(
        [
            *target.command,
            f"-max_total_time={seconds}",
            f"-max_len={MAX_LEN}",
            f"-seed={seed}",
            f"-timeout={_TIMEOUT}",
            f"-artifact_prefix={prefix}",
            "-len_control=0",
            *map(str, folders),
        ],
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if " Uses: " not in line]
    if not done.returncode:
        return Outcome(lines[-1] if lines else "")
    found = sorted(prefix.parent.glob(f"{target.name}-*"))
    finding = found[0].read_bytes() if found else b""
    text = "\n".join((f"status {done.returncode}", *lines[-_TAIL:]))
    return Outcome(f"{text}\nAgain: {again(target, finding)}", finding)
