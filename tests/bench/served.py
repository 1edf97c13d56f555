# SPDX-License-Identifier: GPL-2.0-or-later
"""Translators for virtual machines, on a socket, and the guest played behind them.

The guest is the load generator itself (``load/vm.h``), on the other end of the
translator's socket: an emulated machine would measure its emulator.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import GATEWAY4, HOST4, TRANSLATORS, Attached, Lab, Namespace, wait_until
from tests.lab.process import Process
from tests.lab.translators import (
    EARLIER,
    ROOT,
    Attachment,
    Translator,
    program_of_earlier,
)

OURS = "passtpy"
VHOST = "vhost-user"
GVPROXY = "gvproxy"
# Its guests have this address, and it this one, whatever the host's are
_PRIVATE4, _ROUTER4 = "192.168.127.2", "192.168.127.1"
READY_TIMEOUT = 60.0
_OURS = os.environ.get("PASSTPY_PASST", str(ROOT / ".venv" / "bin" / "passtpy-passt"))


@dataclass(frozen=True, slots=True)
class OnSocket:
    """A translator that waits on a socket for the guest of a virtual machine."""

    name: str
    program: str
    extra: tuple[str, ...] = ()
    vhost: bool = False
    once: bool = False  # ends with its guest, and each run is one
    needs_guest: bool = False
    env: Mapping[str, str] = field(default_factory=dict)

    def why_missing(self) -> str | None:
        found = shutil.which(self.program)
        return None if found else f"{self.program} is not installed"

    def version(self) -> str:
        # Both programs of each project come from one package.
        kin = TRANSLATORS["pasta" if self.program == "passt" else OURS]
        return kin.version()

    def prepare(self, guest: Namespace) -> None:
        pass

    def attach_command(self, guest: Namespace, options: Attachment) -> list[str]:
        raise AssertionError("serves no namespace")

    def spawn_command(
        self, argv: Sequence[str], extra: Sequence[str] = ()
    ) -> list[str] | None:
        return None

    def words(self, path: Path, mtu: int) -> list[str]:
        """The command that waits at this socket, in the foreground."""
        argv = [self.program, "--foreground", "--quiet", "--socket", str(path)]
        return [*argv, "--mtu", str(mtu), "-t", "none", "-u", "none", *self.extra]

    def addresses(self) -> tuple[str, str]:
        """The guest's, and that of who answers its ARP."""
        return HOST4, GATEWAY4

    def serve(self, lab: Lab, options: Attachment) -> "Served":
        """Start it in the host namespace and wait until its socket is there."""
        path = lab.dir / f"{self.name}.socket"
        argv, env = self.words(path, options.mtu), {**self.env, **options.env}
        served = Served(
            lab, path, lambda: lab.start(lab.host, *argv, env=env), self.once
        )
        guest, gateway = self.addresses()
        served.client_words = {
            "vm": path,
            "vhost": int(self.vhost),
            "guest": guest,
            "gateway": gateway,
            "mtu": options.mtu,
        }
        return served


@dataclass(frozen=True, slots=True)
class Gvproxy(OnSocket):
    """gvproxy, behind qemu's kind of socket."""

    def version(self) -> str:
        argv = [self.program, "-version"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def words(self, path: Path, mtu: int) -> list[str]:
        return [self.program, "-mtu", str(mtu), "-listen-qemu", f"unix://{path}"]

    def addresses(self) -> tuple[str, str]:
        return _PRIVATE4, _ROUTER4


class Served(Attached):
    """A translator on a socket; ``client_words`` make a client the guest's."""

    client_words: Mapping[str, object]

    def __init__(
        self, lab: Lab, path: Path, start: Callable[[], Process], once: bool
    ) -> None:
        super().__init__(lab, lab.host, None)
        self._path, self._start, self._once = path, start, once
        self._begin()

    def renew(self) -> None:
        """Start it anew for the next run, if it ends with its guest."""
        if self._once:
            self.close()
            self._begin()

    def _begin(self) -> None:
        self._path.unlink(missing_ok=True)
        self.process = self._start()
        try:
            wait_until(self._listening, READY_TIMEOUT, f"socket {self._path.name}")
        except BaseException:
            self.close()
            raise

    def _listening(self) -> bool:
        self.check_alive()
        return self._path.is_socket()


_EARLIER = program_of_earlier("passtpy-passt")
VM_TRANSLATORS: Mapping[str, Translator] = {
    "direct": TRANSLATORS["direct"],
    "passt": OnSocket("passt", "passt", ("--runas", "0:0")),
    **({EARLIER: OnSocket(EARLIER, _EARLIER)} if _EARLIER else {}),
    OURS: OnSocket(OURS, _OURS),
    VHOST: OnSocket(VHOST, _OURS, ("--vhost-user",), vhost=True),
    # Not in Debian 12: a column where somebody has put it on the PATH
    **(
        {GVPROXY: Gvproxy(GVPROXY, GVPROXY, once=True)} if shutil.which(GVPROXY) else {}
    ),
}
# Everybody; we have one name for both of our programs.
CONTENDERS: Mapping[str, Translator] = {**VM_TRANSLATORS, **TRANSLATORS}
