# SPDX-License-Identifier: GPL-2.0-or-later
"""The language that chooses flows, in Python and as the datapath's program of it."""

from passtpy.control.filter import FilterError, compile_filter
from tests.unit.control.test_filter import CONTEXT, a, flow, takes

_FLOWS = (
    flow(),
    flow(eaddr0=a("2001:db8::5"), oaddr0=a("2001:db8:1::1"), proto=17, bytes1=10**12),
    flow(eaddr1=a(""), pif0=0, rule=0, last_use_ns=0, eport1=0),
)


def play(data: bytes) -> None:
    """Compile an expression; both evaluations must agree."""
    text = data.decode(errors="replace")
    try:
        compile_filter(text, CONTEXT)
    except FilterError as error:
        wrong = error
    else:
        for each in _FLOWS:
            takes(text, each, CONTEXT)
        return
    assert 0 <= wrong.column <= len(text) + 1
    str(wrong)
