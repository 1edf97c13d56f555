# SPDX-License-Identifier: GPL-2.0-or-later
"""What the policy of now says about flows that an earlier one let in."""

from collections.abc import Iterable, Iterator

from passtpy.flow import Action, FlowRecord, Verdict
from passtpy.policy.decide import Decider

REFUSALS = (Action.DROP, Action.REJECT)


def recheck(
    decider: Decider, flows: Iterable[FlowRecord]
) -> Iterator[tuple[int, Verdict]]:
    """Yield the id and today's verdict of each flow that was decided about earlier.

    Where that is a refusal, the flow is to be closed; else it goes on as it is, under
    the rule that would let it in today. Nothing is counted as a hit.
    """
    for flow in flows:
        if flow.generation != decider.generation:
            yield flow.flow_id, decider.judge(flow.miss, flow.created_ns)
