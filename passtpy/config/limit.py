# SPDX-License-Identifier: GPL-2.0-or-later
"""How much flows may move together, and how many there may be."""

from typing import Any

from passtpy.config.amounts import show_rate, show_size
from passtpy.record import record


@record(kw_only=True)
class Limit:
    """How much flows may move together, and how many there may be; 0: any number.

    Rates are bytes a second, totals bytes; `new_flows` is a second, too. The names are
    those of `Datapath.limit`.
    """

    rate_in: int = 0
    rate_out: int = 0
    total_in: int = 0
    total_out: int = 0
    flows: int = 0
    new_flows: int = 0


NO_LIMIT = Limit()


def show_limit(limit: Limit) -> dict[str, Any]:
    """Return what a limit says, in the words of the policy file."""
    said = {
        "rate_in": limit.rate_in and show_rate(limit.rate_in),
        "rate_out": limit.rate_out and show_rate(limit.rate_out),
        "total_in": limit.total_in and show_size(limit.total_in),
        "total_out": limit.total_out and show_size(limit.total_out),
        "flows": limit.flows,
        "new_flows": limit.new_flows,
    }
    return {name: value for name, value in said.items() if value}
