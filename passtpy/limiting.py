# SPDX-License-Identifier: GPL-2.0-or-later
"""Has the datapath obey limits: those of the command line, and those of a policy.

What the datapath counts for a rule stays as long as the rule does, whatever its limits
become.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from passtpy.config.limit import NO_LIMIT, Limit, show_limit
from passtpy.config.model import Config
from passtpy.record import replace

if TYPE_CHECKING:
    from passtpy.datapath import Datapath
    from passtpy.log import Log

EVERYTHING: Final = 0  # the rule of the limits of a guest as a whole
_NAMES: Final = (
    *("rate_in", "rate_out", "total_in", "total_out", "flows", "new_flows"),
)


def limit_of_line(config: Config, besides: Limit = NO_LIMIT) -> Limit:
    """Return what the command line says, and `besides` where it says nothing."""
    return replace(
        besides,
        rate_in=config.rate_in or besides.rate_in,
        rate_out=config.rate_out or besides.rate_out,
    )


class Limiting:
    """The limits that hold."""

    def __init__(self, datapath: Datapath, config: Config, log: Log) -> None:
        self._datapath = datapath
        self._config = config
        self._log = log
        self._held: dict[int, Limit] = {}
        self.names: dict[int, str] = {}  # of rules, for people
        self.hold({})

    def hold(self, limits: Mapping[int, Limit]) -> None:
        """Let these hold from now on, by rule, and none of before."""
        guest = limit_of_line(self._config, limits.get(EVERYTHING, NO_LIMIT))
        wanted = {EVERYTHING: guest} if guest != NO_LIMIT else {}
        wanted |= {rule: each for rule, each in limits.items() if rule != EVERYTHING}
        for rule in self._held.keys() - wanted.keys():
            self._datapath.unlimit(rule)
        for rule, limit in wanted.items():
            if self._held.get(rule) != limit:
                self._set(rule, limit)
        self._held = wanted

    def _set(self, rule: int, limit: Limit) -> None:
        try:
            self._datapath.limit(
                rule, **{name: getattr(limit, name) for name in _NAMES}
            )
        except OSError as error:
            self._log.warning("limit.failed", rule=rule, error=str(error))

    def is_spent(self, rule: int) -> bool:
        """Tell whether the bytes of a rule, or of the guest, are used up."""
        counted = self._datapath.limits()
        return any(counted[each][-1] for each in (rule, EVERYTHING) if each in counted)

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield the limits with what was counted for them, for programs."""
        counted = self._datapath.limits()
        for rule, limit in self._held.items():
            if rule not in counted:
                continue
            used_in, used_out, lost_in, lost_out, flows, refused, closed, spent = (
                counted[rule]
            )
            yield {
                "rule": rule,
                "name": self.names.get(rule) if rule else "all flows",
                "limit": show_limit(limit),
                "bytes": [used_in, used_out],
                "dropped": [lost_in, lost_out],
                "flows": flows,
                "refused": refused,
                "closed": closed,
                "used_up": spent,
            }
