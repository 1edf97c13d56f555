# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of the command line and of policies, as the datapath is told."""

import errno
import os
from typing import Any

from passtpy.config.limit import Limit
from passtpy.config.model import Config
from passtpy.limiting import Limiting, limit_of_line

NONE = (0,) * 7 + (False,)


class Datapath:
    """Keeps what it is told; a rule 99 has no room."""

    def __init__(self) -> None:
        self.held: dict[int, dict[str, int]] = {}
        self.told: list[int] = []

    def limit(self, rule: int, **limits: int) -> None:
        if rule == 99:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.told.append(rule)
        self.held[rule] = {name: value for name, value in limits.items() if value}

    def unlimit(self, rule: int) -> None:
        del self.held[rule]

    def limits(self) -> dict[int, tuple[Any, ...]]:
        return dict.fromkeys(self.held, NONE)


class Log:
    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, event: str, **_: object) -> None:
        self.said.append(event)


def _limiting(**said: Any) -> tuple[Limiting, Datapath, Log]:
    datapath: Any = Datapath()
    log: Any = Log()
    return Limiting(datapath, Config(**said), log), datapath, log


def test_the_command_line_comes_before_the_file() -> None:
    config = Config(rate_in=5)
    assert limit_of_line(config, Limit(rate_in=7, rate_out=8)) == Limit(
        rate_in=5, rate_out=8
    )
    _, datapath, _ = _limiting(rate_in=5)
    assert datapath.held == {0: {"rate_in": 5}}


def test_a_policy_takes_the_place_of_another() -> None:
    limiting, datapath, _ = _limiting(rate_out=9)
    limiting.hold({0: Limit(flows=3), 7: Limit(rate_in=1), 8: Limit(flows=2)})
    assert datapath.held[0] == {"rate_out": 9, "flows": 3}
    datapath.told.clear()
    limiting.hold({0: Limit(), 7: Limit(rate_in=1), 9: Limit(total_in=4)})
    assert datapath.told == [0, 9]  # what is as it was is not set again
    assert datapath.held == {
        0: {"rate_out": 9},
        7: {"rate_in": 1},
        9: {"total_in": 4},
    }


def test_a_limit_that_cannot_be_is_told() -> None:
    limiting, _, log = _limiting()
    limiting.hold({99: Limit(flows=1)})
    assert (log.said, list(limiting.listed())) == (["limit.failed"], [])


def test_limits_are_listed_with_their_names() -> None:
    limiting, _, _ = _limiting(rate_in=1_000_000)
    limiting.names = {7: "mirror"}
    limiting.hold({7: Limit(total_out=5_000_000, flows=2)})
    guest, mirror = limiting.listed()
    assert (guest["name"], guest["limit"]) == ("all flows", {"rate_in": "8 Mbit/s"})
    assert mirror["name"] == "mirror"
    assert mirror["limit"] == {"total_out": "5 MB", "flows": 2}
    assert not limiting.is_spent(7)
