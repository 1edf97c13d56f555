# SPDX-License-Identifier: GPL-2.0-or-later
"""The translators that the lab can put between host and guest, behind one interface.

Each knows its own command line for attaching to an existing namespace, and for
running a command in a new one. All run as root inside the host namespace.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.lab.namespace import Namespace

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_MTU = 65520


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a test wants from a translator; ports are forwarded unchanged.

    Those in the namespace (``ns``) lead from its loopback to the host's.
    """

    mtu: int = DEFAULT_MTU
    tcp_ports: tuple[int, ...] = ()
    udp_ports: tuple[int, ...] = ()
    tcp_ns_ports: tuple[int, ...] = ()
    udp_ns_ports: tuple[int, ...] = ()
    ipv4: bool = True
    ipv6: bool = True
    extra: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


class Translator(Protocol):
    """One way to get a guest onto the host's network."""

    @property
    def name(self) -> str: ...

    @property
    def needs_guest(self) -> bool:
        """False when work runs in the host namespace itself."""

    @property
    def env(self) -> Mapping[str, str]:
        """Environment that it always needs."""

    def why_missing(self) -> str | None:
        """Why it cannot run on this machine, or None."""

    def version(self) -> str: ...

    def prepare(self, guest: Namespace) -> None:
        """Set what it needs in a fresh guest namespace."""

    def attach_command(self, guest: Namespace, options: Attachment) -> list[str]:
        """Serve an existing namespace, in the foreground."""

    def spawn_command(
        self, argv: Sequence[str], extra: Sequence[str] = ()
    ) -> list[str] | None:
        """Run a command in a new namespace; None if it has no such mode."""


def _first_line(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return (done.stdout or done.stderr).partition("\n")[0]


def _debian_version(package: str) -> str:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def _forwarded(options: Attachment) -> Mapping[str, tuple[int, ...]]:
    return {
        "-t": options.tcp_ports,
        "-u": options.udp_ports,
        "-T": options.tcp_ns_ports,
        "-U": options.udp_ns_ports,
    }


def _ports(option: str, ports: tuple[int, ...]) -> list[str]:
    return [option, ",".join(map(str, ports)) if ports else "none"]


@dataclass(frozen=True, slots=True)
class Direct:
    """No translator: the guest's work runs in the host namespace, on the veth."""

    name: str = "direct"
    needs_guest: bool = False
    env: Mapping[str, str] = field(default_factory=dict)

    def why_missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "veth"

    def prepare(self, guest: Namespace) -> None:
        pass

    def attach_command(self, guest: Namespace, options: Attachment) -> list[str]:
        raise AssertionError("direct attaches nothing")

    def spawn_command(
        self, argv: Sequence[str], extra: Sequence[str] = ()
    ) -> list[str] | None:
        return ["unshare", "--net", *extra, "--", *argv]


@dataclass(frozen=True, slots=True)
class Pasta:
    """The pasta found in PATH, run by root.

    It must be told to stay root: as nobody it may not join a namespace that root
    made, and waits for ever for one that it made itself.
    """

    name: str = "pasta"
    needs_guest: bool = True
    env: Mapping[str, str] = field(default_factory=dict)

    def why_missing(self) -> str | None:
        return None if shutil.which("pasta") else "pasta is not installed"

    def version(self) -> str:
        return _debian_version("passt") or _first_line("pasta", "--version")

    def prepare(self, guest: Namespace) -> None:
        pass

    def attach_command(self, guest: Namespace, options: Attachment) -> list[str]:
        argv = ["pasta", "--foreground", "--quiet", "--runas", "0:0", "--config-net"]
        argv += ["--netns", str(guest.path), "--mtu", str(options.mtu)]
        for option, ports in _forwarded(options).items():
            argv += _ports(option, ports)
        return [*argv, *options.extra]

    def spawn_command(
        self, argv: Sequence[str], extra: Sequence[str] = ()
    ) -> list[str] | None:
        return ["pasta", "--runas", "0:0", "--config-net", *extra, "--", *argv]


@dataclass(frozen=True, slots=True)
class Slirp4netns:
    """slirp4netns: fixed private addresses, no port list on the command line."""

    name: str = "slirp4netns"
    needs_guest: bool = True
    env: Mapping[str, str] = field(default_factory=dict)

    def why_missing(self) -> str | None:
        found = shutil.which("slirp4netns")
        return None if found else "slirp4netns is not installed"

    def version(self) -> str:
        return _first_line("slirp4netns", "--version")

    def prepare(self, guest: Namespace) -> None:
        # Its IPv6 address comes by router advertisement: do not wait for DAD.
        guest.sysctl("net.ipv6.conf.default.accept_dad", "0")

    def attach_command(self, guest: Namespace, options: Attachment) -> list[str]:
        argv = ["slirp4netns", "--configure", "--netns-type=path"]
        argv += [f"--mtu={options.mtu}"]
        argv += ["--enable-ipv6"] if options.ipv6 else []
        return [*argv, *options.extra, str(guest.path), "tap0"]

    def spawn_command(
        self, argv: Sequence[str], extra: Sequence[str] = ()
    ) -> list[str] | None:
        return None


@dataclass(frozen=True, slots=True)
class Passtpy:
    """This project: the console script beside the running interpreter."""

    name: str = "passtpy"
    needs_guest: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    program: str = os.environ.get(
        "PASSTPY_PASTA", str(ROOT / ".venv" / "bin" / "passtpy-pasta")
    )

    def why_missing(self) -> str | None:
        found = shutil.which(self.program)
        return None if found else f"{self.program} does not exist"

    def version(self) -> str:
        return _first_line(self.program, "--version")

    def prepare(self, guest: Namespace) -> None:
        pass

    def attach_command(self, guest: Namespace, options: Attachment) -> list[str]:
        argv = [self.program, "--foreground", "--quiet", "--config-net"]
        argv += ["--netns", str(guest.path), "--mtu", str(options.mtu)]
        for option, ports in _forwarded(options).items():
            if option not in options.extra:  # where the default would be auto
                argv += _ports(option, ports)
        return [*argv, *options.extra]

    def spawn_command(
        self, argv: Sequence[str], extra: Sequence[str] = ()
    ) -> list[str] | None:
        return [self.program, "--config-net", *extra, "--", *argv]


EARLIER = "earlier"


def program_of_earlier(name: str) -> str | None:
    """The program ``name`` of another checkout of ours, to be compared with this one.

    ``PASSTPY_EARLIER`` names the checkout, with its own ``.venv`` and built.
    """
    checkout = earlier_checkout()
    return str(checkout / ".venv" / "bin" / name) if checkout else None


def earlier_checkout() -> Path | None:
    """Where it is, if there is one."""
    checkout = os.environ.get("PASSTPY_EARLIER")
    return Path(checkout) if checkout else None


def _translators() -> Mapping[str, Translator]:
    known: list[Translator] = [Direct(), Pasta(), Slirp4netns()]
    if program := program_of_earlier("passtpy-pasta"):
        known.append(Passtpy(EARLIER, program=program))
    return {one.name: one for one in (*known, Passtpy())}


TRANSLATORS = _translators()
