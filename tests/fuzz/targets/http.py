# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP requests to the control socket: whole, and in pieces, which must not matter."""

import re

from passtpy.control.http import Conversation, Router
from tests.unit.control.test_http import VERBS, Owners

_PIECES = (1, 7, 50, 200)


_MOST_MORE = 1000  # pieces of an answer


def _converse(data: bytes, size: int) -> tuple[list[bytes], bool, list[str]]:
    """Return statuses and answers, whether the conversation is over, what failed."""
    owners = Owners()
    router = Router(VERBS, owners, lambda at, e: owners.failures.append((at, e)))
    client = Conversation(router)
    said = client.begin()
    for at in range(0, len(data), size):
        if client.over:
            break
        said += client.receive(data[at : at + size])
        for _ in range(_MOST_MORE):
            if not client.answering:
                break
            more = client.more()
            if not more and client.streaming:
                break
            said += more
    client.leave()
    # what h11 finds wrong with a request, it says with the bytes at hand
    said = re.sub(rb'\{"error":.*\n', b"", said)
    told = re.findall(rb"HTTP/1\.1 \d{3} [A-Z]|^\{.*", said, re.MULTILINE)
    return told, client.over, [at for at, _ in owners.failures]


def play(data: bytes) -> None:
    """Send requests."""
    size = _PIECES[data[0] % len(_PIECES)] if data else 1
    data = data[1:]
    told = _converse(data, size)
    assert all("broken" in at for at in told[2])
    assert told == _converse(data, max(1, len(data)))
