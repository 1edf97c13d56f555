# SPDX-License-Identifier: GPL-2.0-or-later
"""What the verbs ask of the parts of a running daemon.

Each part is owned by somebody who knows nothing of verbs; these are the questions that
are asked of them. A test answers them itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from passtpy.control.capture import Captures
from passtpy.control.events import Events
from passtpy.control.forwards import Forwards
from passtpy.control.verb import Json, Later, Value
from passtpy.flow import FlowRecord
from passtpy.record import record


class Flows(Protocol):
    """The flow table."""

    def pages(self) -> Iterator[Sequence[FlowRecord]]:
        """Yield all flows, a bounded page at a time; between two, packets move."""

    def close(self, flow_id: int) -> bool:
        """Reset a flow; False if there is none."""

    def now(self) -> int:
        """Return the time on the clock of the records, ns."""


@record
class RuleListed:
    """One rule for people: what it is about, what it does, how often it decided."""

    id: int
    number: int  # its place in the list
    name: str | None
    match: str
    outcome: str
    why: str
    hits: int


@record
class Question:
    """A flow that might be: `origin` is guest, host or namespace."""

    origin: str
    proto: str
    src: str | None
    dst: str
    name: str | None = None  # that the guest asked for to get `dst`


class Rules(Protocol):
    """The policy."""

    @property
    def generation(self) -> int: ...

    def listed(self) -> Sequence[RuleListed]: ...

    def explain(self, question: Question) -> Json:
        """Answer from the list that decides; ControlError for a bad question."""


class Logging(Protocol):
    """The level of the log, for good or for a while."""

    def level(self) -> str: ...

    def set_level(self, level: str, seconds: int | None) -> None: ...


class Instance(Protocol):
    """The daemon as a whole."""

    def describe(self) -> Json: ...

    def statistics(self) -> Mapping[str, int]: ...

    def meanings(self) -> Mapping[str, str]:
        """Return what the datapath's counters count."""

    def reload(self) -> Later: ...

    def stop(self) -> Value: ...


class PolicyOwner(Protocol):
    """What the guest may reach; ControlError where there is no policy."""

    def limits(self) -> Iterator[Json]:
        """Yield the limits of rules, and of the guest; there may be no policy."""

    def describe(self) -> Json: ...

    def replace(self, text: str, files: Mapping[str, str]) -> Json: ...

    def pins(self) -> Iterator[Json]: ...

    def questions(self) -> Iterator[Json]: ...

    def answer(self, number: int, allow: bool, remember: bool) -> Json: ...


@record
class Owners:
    """Everybody who is asked."""

    instance: Instance
    flows: Flows
    rules: Rules
    forwards: Forwards
    logging: Logging
    events: Events
    captures: Captures
    policy: PolicyOwner
