# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing by coverage, for a short while: as many targets at once as there is room."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuzz import corpus
from tests.fuzz.target import Outcome, Target, run, targets

SEED = 1  # a change fails for what it brings; `make fuzz` looks for what is there
SECONDS = int(os.environ.get("PASSTPY_FUZZ_SECONDS", "12"))
ROOM = 300_000  # bytes of all inputs in the tree
# Other tests run beside them in as many processes (pytest-xdist).
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
AT_A_TIME = max(1, (os.cpu_count() or 1) // WORKERS)
ALL = {target.name: target for target in targets()}
ABLE = [target for target in ALL.values() if target.why_not() is None]
# All of them run before the first test, which is charged with it
PATIENCE = (len(ALL) + 2) * (SECONDS + 60)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        running = {
            target.name: pool.submit(
                run,
                target,
                SECONDS,
                corpus.found(target),
                corpus.unpack(target),
                seed=SEED,
            )
            for target in ABLE
        }
    return {name: future.result() for name, future in running.items()}


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("name", ALL)
def test_nothing_is_found(name: str, outcomes: dict[str, Outcome]) -> None:
    if why := ALL[name].why_not():
        assert not (os.environ.get("CI") and ALL[name].is_c), why
        pytest.skip(why)
    outcome = outcomes[name]
    assert outcome.finding is None, outcome.text


def test_each_target_has_inputs_to_begin_with() -> None:
    files = {path.stem: path.stat().st_size for path in corpus.KEPT.iterdir()}
    assert files.keys() == ALL.keys()
    assert sum(files.values()) < ROOM


def test_a_finding_is_told_with_the_command_that_repeats_it(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text(
        "#!/bin/sh\n"
        "for word; do case $word in -artifact_prefix=*)\n"
        "\tprintf oops >${word#*=}crash-1; esac; done\n"
        "echo 'something is wrong'; exit 77\n"
    )
    program.chmod(0o755)
    outcome = run(Target("broken", (str(program),), program), 1, tmp_path)
    assert outcome.finding == b"oops"
    assert "something is wrong" in outcome.text
    assert outcome.text.endswith("python -m tests.fuzz again broken b29wcw==")


def test_a_target_that_is_not_there_says_what_it_needs(tmp_path: Path) -> None:
    target = Target("gone", (sys.executable,), tmp_path / "gone")
    assert target.why_not() == "needs make native-fuzz"


def test_inputs_that_reach_more_are_kept_first() -> None:
    a, b, c, d = (Path(name) for name in "abcd")
    reached = {a: {1, 2}, b: {1, 2, 3}, c: {4}, d: {1}}
    sizes = {a: 10, b: 10, c: 10, d: 10}
    assert corpus.choose(reached, sizes, 100) == [b, c]
    assert corpus.choose(reached, sizes, 10) == [b]
    assert corpus.choose(reached, sizes | {b: 1000}, 100) == [a, c]


def test_notes_of_a_merge_say_what_each_input_reaches() -> None:
    text = (
        "2\n0\n/x/a\n/x/b\nSTARTED 0 3\nFT 0 7 8\nCOV 0 1\nSTARTED 1 2\nFT 1 7\nCOV 1"
    )
    reached = corpus.read_control(text)
    assert reached[Path("/x/a")].places == {1}
    assert reached[Path("/x/a")].features == {7, 8}
    assert reached[Path("/x/b")].places == set()
