# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's report: medians, targets and failures are told as they are."""

from dataclasses import fields

import pytest

from tests.bench.measure import Metrics
from tests.bench.report import Check, Value, check, failures, table
from tests.bench.row import OURS, Metric, Row, Target
from tests.bench.rows import GROUPS, plan
from tests.bench.runner import Outcome, RowResult, columns_of
from tests.bench.served import CONTENDERS
from tests.lab import TRANSLATORS, Attachment

GBIT = Metric("gbit", "Gbit/s", 1)
HALF_OF_DIRECT = Target("gbit", 0.5, at_least=True, relative_to="direct")


def _nothing(_: object) -> Metrics:
    return {}


def _result(ours: Outcome, direct: Outcome, *targets: Target) -> RowResult:
    row = Row("key", "tcp", "the work", _nothing, (GBIT,), targets)
    return RowResult(row, {"direct": direct, OURS: ours})


def _reached(*values: float) -> Outcome:
    return Outcome([{"gbit": value} for value in values])


def test_value_is_the_median_with_its_extremes() -> None:
    assert Value.of(_reached(3, 1, 2), "gbit") == Value(2, 1, 3)


def test_value_of_a_missing_metric_is_none() -> None:
    assert Value.of(_reached(3), "other") is None


@pytest.mark.parametrize(("ours", "reached"), [(5.0, True), (4.9, False)])
def test_relative_target_compares_with_the_other_column(
    ours: float, reached: bool
) -> None:
    result = _result(_reached(ours), _reached(10), HALF_OF_DIRECT)
    assert check(result, HALF_OF_DIRECT).reached is reached


def test_one_failed_run_misses_the_target() -> None:
    ours = _reached(10)
    ours.failures.append("stopped")
    result = _result(ours, _reached(10), HALF_OF_DIRECT)
    assert check(result, HALF_OF_DIRECT).reached is False


def test_target_without_its_baseline_is_undecided() -> None:
    result = _result(_reached(10), Outcome(failures=["no veth"]), HALF_OF_DIRECT)
    assert check(result, HALF_OF_DIRECT) == Check(HALF_OF_DIRECT, None, None)


def test_silence_counts_by_its_worst_run() -> None:
    target = Target("gap_ms", 999, at_least=False)
    ours = Outcome([{"gap_ms": 0.0}, {"gap_ms": 0.0}, {"gap_ms": 1000.0}])
    assert check(_result(ours, Outcome(), target), target).reached is False


def test_table_shows_numbers_ratio_and_verdict() -> None:
    text = table([_result(_reached(6), _reached(9, 10, 11), HALF_OF_DIRECT)])
    for part in ("the work", "10.0 [9.0-11.0]", "0.60× direct", "ok (0.60)"):
        assert part in text


def test_failure_stands_in_the_cell_and_in_full_below() -> None:
    reason = "translator ended (1): a long story that does not fit into a cell"
    result = _result(Outcome(failures=[reason]), _reached(1))
    assert "failed: translator ended" in table([result])
    assert list(failures([result])) == [f"    key, {OURS}: {reason}"]


def test_keys_of_the_plan_are_unique_and_quick_is_a_part() -> None:
    every = [row.key for row in plan(GROUPS, quick=False)]
    quick = [row.key for row in plan(GROUPS, quick=True)]
    assert len(set(every)) == len(every)
    assert set(quick) < set(every)


def test_rows_leave_out_who_cannot_do_the_work() -> None:
    for row in plan(("splice",), quick=False):
        columns = columns_of(row, tuple(TRANSLATORS))
        assert [c.name for c in columns] == ["direct", "pasta", "passtpy"]


def test_rows_of_machines_have_their_own_contenders() -> None:
    for row in plan(("vm",), quick=False):
        columns = columns_of(row, tuple(CONTENDERS))
        assert [c.name for c in columns] == ["direct", "passt", "passtpy", "vhost-user"]


def test_target_of_another_column_names_it() -> None:
    target = Target("gbit", 2, at_least=True, relative_to=OURS, ours="vhost-user")
    assert str(target) == "vhost-user ≥ 2× passtpy"


def test_spliced_rows_forward_ports_of_every_kind() -> None:
    forwarded = {row.forward for row in plan(("splice",), quick=False)}
    assert forwarded == {f.name for f in fields(Attachment) if "_ports" in f.name}
