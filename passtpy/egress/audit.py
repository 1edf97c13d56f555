# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes records of refusals: each is told once, repetitions are counted.

A guest that tries again in a loop must not fill a disk. In each window of time a
refusal is told when it first comes; how often it came again is told at the end of the
window, and so is how many others there were when too many differ.
"""

from collections.abc import Callable
from typing import Any, Final

from passtpy.addr import from_inany
from passtpy.egress.egress import Refused
from passtpy.flow import PROTO_NAMES

WINDOW_NS: Final = 10 * 1_000_000_000
MOST: Final = 100  # different ones in a window

Fields = dict[str, Any]
_Key = tuple[int, bytes, int, tuple[str, ...], int, bool, str]


class Audit:
    """Tells refusals to `tell`, as fields."""

    def __init__(self, tell: Callable[[Fields], None]) -> None:
        self._tell = tell
        self._since: int | None = None
        self._seen: dict[_Key, tuple[Refused, int]] = {}
        self._others = 0

    def take(self, refused: Refused, now_ns: int) -> bool:
        """Tell a refusal, or count it; True: a window has begun with it."""
        begins = False
        if self._since is None or now_ns - self._since >= WINDOW_NS:
            self.flush()
            self._since, begins = now_ns, True
        key = _key(refused)
        known = self._seen.get(key)
        if known is not None:
            self._seen[key] = known[0], known[1] + 1
        elif len(self._seen) < MOST:
            self._seen[key] = refused, 0
            self._tell(fields_of(refused))
        else:
            self._others += 1
        return begins

    def flush(self) -> None:
        """Tell what was counted in the window, which ends."""
        for refused, again in self._seen.values():
            if again:
                self._tell(fields_of(refused) | {"again": again})
        if self._others:
            self._tell({"others": self._others})
        self._seen.clear()
        self._others, self._since = 0, None


def _key(refused: Refused) -> _Key:
    where = b"" if refused.names else refused.target
    return (
        refused.proto,
        where,
        refused.port,
        refused.names,
        refused.rule,
        refused.is_question,
        refused.reason,
    )


def fields_of(refused: Refused) -> Fields:
    """Return what a record says of a refusal."""
    asked = refused.is_question
    fields: Fields = {"proto": "dns" if asked else PROTO_NAMES[refused.proto]}
    if refused.names:
        fields["name"] = refused.names[0]
    if not asked:
        fields["address"] = str(from_inany(refused.target))
        fields["port"] = refused.port
        fields["source"] = str(from_inany(refused.source))
        fields["source_port"] = refused.source_port
    fields["action"] = str(refused.effect)
    fields["rule"] = refused.rule
    fields["reason"] = refused.reason
    if refused.observed:
        fields["observed"] = True  # it was let in
    return fields
