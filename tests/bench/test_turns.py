# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read from a trace of turns."""

from tests.bench.turns import Turn, turns

TRACE = """\
  7 10.000000000: irq:softirq_exit: vec=3 [action=NET_RX]
  7 10.000100000: passtpy_turns:begin: (7f00)
  7 10.000110000:        irq:softirq_entry: vec=3 [action=NET_RX]
  7 10.000140000:         irq:softirq_exit: vec=3 [action=NET_RX]
  7 10.000200000: PERF_RECORD_SWITCH OUT preempt
  7 10.000900000: PERF_RECORD_SWITCH IN
  7 10.001100000: passtpy_turns:end__return: (7f00 <- 7f01)
  7 10.002000000: PERF_RECORD_SWITCH OUT
  7 10.003000000: PERF_RECORD_SWITCH IN
  7 10.003100000: passtpy_turns:begin: (7f00)
  7 10.003200000: passtpy_turns:end__return: (7f00 <- 7f01)
"""


def _rounded(turn: Turn) -> tuple[int, int, int]:
    return round(turn.took), round(turn.on_cpu), round(turn.own)


def test_what_others_took_is_told_apart() -> None:
    first, second = turns(TRACE.splitlines())
    assert _rounded(first) == (1000, 300, 270)
    assert _rounded(second) == (100, 100, 100)
