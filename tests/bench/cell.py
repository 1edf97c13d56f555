# SPDX-License-Identifier: GPL-2.0-or-later
"""One translator in one row: what a measurement is given, and where its ends are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.bench.served import Served
from tests.lab import REMOTE4, REMOTE6, Attached, Lab, Namespace, Translator

WARMUP = 0.3
CONNECT_ALLOWANCE = 25.0
LOOPBACK, ANY = "127.0.0.1", "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Way:
    """From a client to a server: in which namespaces, and at which addresses."""

    reach: str  # the server's address as the client names it
    bind: str  # and the one it listens on
    client: str = "guest"
    server: str = "remote"


OVER_WIRE: Mapping[str, Way] = {
    "v4": Way(REMOTE4, REMOTE4),
    "v6": Way(REMOTE6, REMOTE6),
}
# Some translators lead to the guest's loopback, others to its outer address.
LOOPBACK_IN = Way(LOOPBACK, ANY, client="host", server="guest")
LOOPBACK_OUT = Way(LOOPBACK, LOOPBACK, client="guest", server="host")


@dataclass(frozen=True, slots=True)
class Cell:
    """One translator in one row, with a fresh port for each run.

    Fresh, because no run should meet what an earlier one left behind; in rows about
    forwarding these are the forwarded ports.
    """

    lab: Lab
    translator: Translator
    attached: Attached
    seconds: float
    ports: Iterator[int]
    warmup: float = WARMUP

    @property
    def times(self) -> Mapping[str, object]:
        return {"seconds": self.seconds, "warmup": self.warmup}

    @property
    def patience(self) -> float:
        return self.seconds + CONNECT_ALLOWANCE

    @property
    def client_words(self) -> Mapping[str, object]:
        """What makes the load generator's client a guest on a socket, if it is one."""
        attached = self.attached
        return attached.client_words if isinstance(attached, Served) else {}

    def place(self, role: str) -> Namespace:
        """The ``remote``, ``host`` or ``guest``; without a translator host is guest."""
        places = {"remote": self.lab.remote, "host": self.lab.host}
        return places.get(role, self.attached.guest)
