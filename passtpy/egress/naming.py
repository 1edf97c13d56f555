# SPDX-License-Identifier: GPL-2.0-or-later
"""What a resolver asks of the policy: may this name be asked, and what of the answer?

For each question of the guest, in this order:

1. `names.from_labels()` brings the name into its one form; NameFault: refuse it.
2. `may_ask(name, now)`: whether it may be looked up, by which rule, and how to refuse
   it if not. That a name was refused is counted and told by the policy, not by the
   resolver.
3. The resolver looks it up. Names in a CNAME chain are not asked about: they belong to
   the name that the guest asked for. So does an answer from the resolver's cache: what
   was true when it was cached may be refused by now.
4. `may_answer(name, addresses, ttl, now)` with every address of the answer, once for
   each answer that goes to the guest, cached or not: it returns those that the guest
   may be told, and from then on flows to them match the rules of `name`. The others
   (private addresses of a public name, and more than anybody needs) are left out.
   `ttl` is what the guest is told: pins last as long, and a grace.

Names that the resolver answers out of its own zones are its own affair: for those it
asks nothing. Addresses are inany, names are `normalise()`d, times are ns of the clock
that only goes forwards.

`captures_dns` tells whether flows to port 53, whatever server they are meant for, are
the resolver's: the policy has rules about names. Otherwise DNS is a flow like others.
`generation` changes with each policy: what was said before may not hold any more.
`standing` changes when a pin is forgotten: while it is the same, an answer that was
given may be given again for a moment without being asked about. None: it may not.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class NameRuling(NamedTuple):
    """Whether a name may be asked for."""

    allowed: bool
    rule: int  # id of the rule that said so, as flows carry it; 0: the default
    refusal: str = "nxdomain"  # or "refused": the code of the answer if it may not


class NamePolicy(Protocol):
    """The policy, as a resolver sees it."""

    @property
    def captures_dns(self) -> bool: ...

    @property
    def generation(self) -> int: ...

    @property
    def standing(self) -> int | None: ...

    def may_ask(self, name: str, now_ns: int) -> NameRuling: ...

    def may_answer(
        self, name: str, addresses: Sequence[bytes], ttl_s: int, now_ns: int
    ) -> tuple[bytes, ...]: ...
