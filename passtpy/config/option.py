# SPDX-License-Identifier: GPL-2.0-or-later
"""What an option is: a row of the tables in options_run.py and options_net.py."""

from typing import NamedTuple

from passtpy.config.draft import Setter

# Modes in which a line is read. With --vhost-user passt knows a little more.
PASTA = frozenset({"pasta"})
PASST = frozenset({"passt", "vhost-user"})
VHOST = frozenset({"vhost-user"})
BOTH = PASTA | PASST

G_RUN = "Running and logging"
G_CTL = "Asking and changing it while it runs"
G_NS = "Namespaces"
G_VM = "Virtual machines"
G_ADDR = "Interfaces and addresses"
G_MAP = "Protocols and address mapping"
G_POLICY = "What the guest may reach"
G_GUEST = "What the guest is told"
G_PORTS = "Port forwarding"


class Told(NamedTuple):
    """What --help says where it is not the same for both programs."""

    help: str
    default: str


class Option(NamedTuple):
    """One row: `metavar` "" is a switch; `action` None ends the reading of the line.

    A `metavar` in brackets is a value that may be missing: `--name` or `--name=VALUE`.
    `refusal` is what other modes say, where callers know other words than ours.
    """

    names: tuple[str, ...]
    group: str
    action: Setter | None
    help: str
    metavar: str = ""
    default: str = ""
    modes: frozenset[str] = BOTH
    in_passt: Told | None = None
    refusal: str = ""

    @property
    def is_optional(self) -> bool:
        """Tell whether the value may be missing."""
        return self.metavar.startswith("[")

    @property
    def key(self) -> str:
        """Return the first long name, by which the option is known inside."""
        return next(name[2:] for name in self.names if name.startswith("--"))

    @property
    def programs(self) -> str:
        """Return which programs take it."""
        if self.modes == VHOST:
            return "passt --vhost-user"
        return "both" if self.modes == BOTH else "".join(self.modes - VHOST)

    def told(self, program: str) -> Told:
        """Return what --help of a program says."""
        if program == "passt" and self.in_passt is not None:
            return self.in_passt
        return Told(self.help, self.default)

    def refused(self) -> str:
        """Return the words with which a mode refuses what it does not know."""
        who = "vhost-user" if self.modes == VHOST else "".join(self.modes - VHOST)
        return self.refusal or f"--{self.key} is for {who} mode only"
