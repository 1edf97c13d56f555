# SPDX-License-Identifier: GPL-2.0-or-later
"""--impair: links that are worse than they are."""

import pytest

from passtpy.config.impair import Impairment, Link, read_impair
from passtpy.errors import ConfigError


def test_both_directions_unless_one_is_named() -> None:
    both = read_impair("delay=50ms,jitter=5ms,loss=1%", None)
    link = Link(delay_ns=50_000_000, jitter_ns=5_000_000, loss_ppm=10_000)
    assert both == Impairment(inward=link, outward=link)
    more = read_impair("out,loss=0.25%,reorder,seed=7", both)
    assert more.inward == link
    assert more.outward == Link(
        delay_ns=50_000_000, jitter_ns=5_000_000, loss_ppm=2_500, reorder=True
    )
    assert more.seed == 7
    assert read_impair("in,delay=1.5s", more).inward.delay_ns == 1_500_000_000
    assert more.outward.as_tuple() == (50_000_000, 5_000_000, 2_500, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "delay",
        "delay=5",
        "delay=61s",
        "delay=-1ms",
        "jitter=1ms",
        "loss=101%",
        "loss=1",
        "in,out",
        "reorder=1",
        "seed=x",
        "speed=1M",
        "delay=٣ms",
    ],
)
def test_what_is_wrong_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="Invalid --impair"):
        read_impair(text, None)
