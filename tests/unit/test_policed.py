# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of questions about which nobody says anything."""

from collections.abc import Callable
from socket import IPPROTO_TCP
from types import SimpleNamespace
from typing import Any

from passtpy.addr import UNSPECIFIED
from passtpy.egress.answers import Answers, Asked
from passtpy.egress.model import Effect
from passtpy.policed import Policed

ASKED = Asked(1, IPPROTO_TCP, 443, UNSPECIFIED, ("a.b",))


def test_a_timer_that_runs_out_before_the_clock_says_so_ends_its_question() -> None:
    timers: list[Callable[[], None]] = []
    decided: list[str] = []

    def call_later(_seconds: float, callback: Any, *args: Any) -> None:
        timers.append(lambda: callback(*args))

    policed: Any = Policed.__new__(Policed)
    policed.egress = SimpleNamespace(
        answers=Answers(), policy=SimpleNamespace(ask_s=30, default=Effect.REJECT)
    )
    policed._waiting = {}
    policed._log = SimpleNamespace(warning=lambda *_, **__: None)
    policed._engine = SimpleNamespace(go_on=lambda: decided.append("go on"))
    policed._loop = SimpleNamespace(call_later=call_later)
    policed._clock = lambda: 0  # no time has passed
    assert policed._ask(ASKED, lambda: decided.append("again"))
    timers.pop()()
    assert decided == ["again", "go on"]
    assert policed.egress.answers.known(ASKED) is Effect.REJECT
    assert policed.egress.answers.open() == []
    timers.pop()()  # and is forgotten
    assert policed.egress.answers.known(ASKED) is None
