# SPDX-License-Identifier: GPL-2.0-or-later
"""The C tests and a short run of each fuzzer, under ASan and UBSan.

The list is taken from the sources, so that a test that was not built fails.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "asan"
FUZZ_COUNT = os.environ.get("PASSTPY_FUZZ_COUNT", "20000")


def _programs(folder: str, prefix: str) -> list[str]:
    return sorted(p.stem for p in (ROOT / "tests" / folder).glob(f"{prefix}_*.c"))


def _run(program: str, *args: str) -> None:
    if not BUILD.is_dir():
        pytest.skip("needs make native-asan")
    done = subprocess.run(
        [BUILD / program, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}"


@pytest.mark.parametrize("program", _programs("native", "test"))
def test_c_test_passes(program: str) -> None:
    _run(program)


@pytest.mark.parametrize("program", _programs("fuzz", "fuzz"))
def test_fuzzer_finds_nothing(program: str) -> None:
    _run(program, FUZZ_COUNT)
