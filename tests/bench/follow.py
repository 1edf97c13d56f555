# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows about following: how soon a change of the host is true for its guest.

No other translator follows anything, so there is nobody to compare with.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from tests.bench.cell import Cell
from tests.bench.measure import Metrics
from tests.bench.row import Metric, Row, Target
from tests.lab import GATEWAY4, REMOTE4, Attached, LabError
from tests.lab.translators import Attachment
from tests.netns.resolvers import ask, content, etc, resolver, with_etc

NEW_ADDRESS = "198.51.100.33"
ASKED = "169.254.1.1"
PATIENCE = 5.0
SETTLE = 1.0  # after the start, when the daemon looks at everything once more


def _until(condition: Callable[[], bool], start: float, what: str) -> Metrics:
    while not condition():
        if time.monotonic() - start > PATIENCE:
            raise LabError(f"not within {PATIENCE:g} s: {what}")
    return {"ms": (time.monotonic() - start) * 1000}


def address_appears(cell: Cell) -> Metrics:
    """Milliseconds from a new address of the host to one of the guest's interface."""
    time.sleep(SETTLE)
    guest, host = cell.attached.guest, cell.lab.host
    new = (f"{NEW_ADDRESS}/24", "dev", "eth0")
    start = time.monotonic()
    host.ip("addr", "add", *new)
    found = _until(lambda: NEW_ADDRESS in guest.ip("addr"), start, "the address")
    host.ip("addr", "del", *new)
    return found


def resolver_changes(cell: Cell) -> Metrics:
    """Milliseconds from a new resolv.conf to an answer of the new resolver."""
    with ExitStack() as stack:
        lab = cell.lab
        for address, name in ((REMOTE4, "first"), (GATEWAY4, "second")):
            stack.enter_context(resolver(lab.remote, address, name))
        path = etc(lab.dir, REMOTE4)
        guest = lab.guest()
        options = Attachment(extra=("--dns-forward", ASKED))
        argv = with_etc(lab.dir, cell.translator.attach_command(guest, options))
        attached = Attached(lab, guest, lab.start(lab.host, *argv))
        stack.callback(attached.close)
        attached.wait_ready(options)
        time.sleep(SETTLE)
        if ask(guest, ASKED) != "first":
            raise LabError("the first resolver does not answer")
        start = time.monotonic()
        path.write_text(content(GATEWAY4))
        return _until(lambda: ask(guest, ASKED) == "second", start, "the resolver")


def follow_rows() -> Iterator[Row]:
    """An address and a resolver of the host."""
    for key, title, measure in (
        ("address", "new address of the host until the guest has it", address_appears),
        ("resolver", "new resolv.conf until its resolver answers", resolver_changes),
    ):
        yield Row(
            f"follow-{key}",
            "follow",
            title,
            measure,
            (Metric("ms", "ms", 0),),
            (Target("ms", 1000, at_least=False),),
            quick=True,
            without=("direct", "pasta", "slirp4netns"),
        )
