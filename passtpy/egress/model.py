# SPDX-License-Identifier: GPL-2.0-or-later
"""A policy as values: what it says, checked, before anything is known of a host."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from passtpy.addr import Address
from passtpy.config.limit import NO_LIMIT, Limit
from passtpy.flow import IPPROTO_UDP
from passtpy.record import field, record

DEFAULT_ASK_S = 30  # how long an answer is waited for
MOST_ASK_S = 3600


class Effect(StrEnum):
    """What becomes of a flow that a rule matches."""

    ALLOW = "allow"
    REJECT = "reject"  # answered as by a closed port, or a router that forbids it
    DROP = "drop"  # nobody answers
    ASK = "ask"  # it waits until somebody has said allow or deny


REFUSING = frozenset((Effect.REJECT, Effect.DROP))


class Mode(StrEnum):
    """What becomes of a flow that is to be refused."""

    ENFORCE = "enforce"
    OBSERVE = "observe"  # it is told, and passes


class DnsRefusal(StrEnum):
    """How a question for a name is answered that may not be asked."""

    NXDOMAIN = "nxdomain"
    REFUSED = "refused"


class Quic(StrEnum):
    """What becomes of UDP to port 443 that a name allows."""

    REJECT = "reject"  # so that clients take TCP, where the name can be seen
    PIN = "pin"  # an address that the name was told for suffices


class Sets(StrEnum):
    """The sets of addresses that there are without being defined."""

    HOST = "@host"
    PRIVATE = "@private"
    LINK_LOCAL = "@link-local"
    METADATA = "@metadata"
    RESOLVER = "@resolver"
    INTERNET = "@internet"


class Span(NamedTuple):
    """Addresses from the first to the last, as inany, of one family."""

    first: bytes
    last: bytes


class Ports(NamedTuple):
    """Ports from the first to the last."""

    first: int
    last: int

    def __str__(self) -> str:
        return (
            str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        )


class Scheme(StrEnum):
    """How a proxy is talked to."""

    SOCKS5 = "socks5"
    HTTP = "http"


@record
class Via:
    """A proxy through which flows leave, and who we are for it."""

    scheme: Scheme
    address: Address
    port: int
    user: str | None = None
    password: str = ""

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.scheme.value}://{host}:{self.port}"

    def __repr__(self) -> str:
        return f"Via({self})"  # not the password


@record
class Targets:
    """Where a rule's flows go: any of these.

    A name that begins with `*.` stands for all names below the rest of it.
    """

    names: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    sets: frozenset[Sets] = frozenset()

    def __add__(self, other: "Targets") -> "Targets":
        return Targets(
            self.names + other.names, self.spans + other.spans, self.sets | other.sets
        )


@record(kw_only=True)
class EgressRule:
    """One rule; what is empty matches everything.

    Two that are equal but for their limit are the same rule, wherever they stand: the
    place in the file is not part of it. `to` is what was written, for people.
    """

    name: str | None = None
    to: tuple[str, ...] = ()
    targets: Targets = Targets()
    ports: tuple[Ports, ...] = ()
    protos: frozenset[int] = frozenset()
    effect: Effect = Effect.ALLOW
    quic: Quic = Quic.REJECT
    via: Via | None = None
    limit: Limit = NO_LIMIT


@record(kw_only=True)
class Policy:
    """What a guest may reach."""

    rules: tuple[EgressRule, ...] = ()
    places: tuple[str, ...] = ()  # where each rule stands
    default: Effect = Effect.REJECT
    mode: Mode = Mode.ENFORCE
    dns_refusal: DnsRefusal = DnsRefusal.NXDOMAIN
    ask_s: int = DEFAULT_ASK_S
    limit: Limit = NO_LIMIT  # of the guest as a whole
    sets: Mapping[str, Targets] = field(default_factory=dict)  # by name, without @

    @property
    def has_names(self) -> bool:
        """Tell whether any rule is about a name."""
        return any(rule.targets.names for rule in self.rules)

    @property
    def tells_ports(self) -> bool:
        """Tell whether some ports of an address may be other than the others for UDP.

        Names have one that is not for QUIC, resolvers those that are for questions.
        """
        return self.mode is Mode.ENFORCE and any(
            rule.ports or rule.targets.names or Sets.RESOLVER in rule.targets.sets
            for rule in self.rules
            if not rule.protos or IPPROTO_UDP in rule.protos
        )
