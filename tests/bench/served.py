# SPDX-License-Identifier: GPL-2.0-or-later
"""Translators for virtual machines, on a socket, and the guest played behind them.

The guest is the load generator itself (``load/vm.h``), on the other end of the
translator's socket: an emulated machine would measure its emulator.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.lab import GATEWAY4, HOST4, TRANSLATORS, Attached, Lab, Namespace, wait_until
from tests.lab.translators import (
    EARLIER,
    ROOT,
    Attachment,
    Translator,
    program_of_earlier,
)

OURS = "passtpy"
VHOST = "vhost-user"
READY_TIMEOUT = 60.0
_OURS = os.environ.get("PASSTPY_PASST", str(ROOT / ".venv" / "bin" / "passtpy-passt"))


@dataclass(frozen=True, slots=True)
class OnSocket:
    """A translator that waits on a socket for the guest of a virtual machine."""

    name: str
    program: str
    extra: tuple[str, ...] = ()
    vhost: bool = False
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

    def serve(self, lab: Lab, options: Attachment) -> "Served":
        """Start it in the host namespace and wait until its socket is there."""
        path = lab.dir / f"{self.name}.socket"
        argv = [self.program, "--foreground", "--quiet", "--socket", str(path)]
        argv += ["--mtu", str(options.mtu), "-t", "none", "-u", "none", *self.extra]
        process = lab.start(lab.host, *argv, env={**self.env, **options.env})
        served = Served(lab, lab.host, process)
        served.client_words = {
            "vm": path,
            "vhost": int(self.vhost),
            "guest": HOST4,
            "gateway": GATEWAY4,
            "mtu": options.mtu,
        }

        def listening() -> bool:
            served.check_alive()
            return path.is_socket()

        try:
            wait_until(listening, READY_TIMEOUT, f"socket of {self.name}")
        except BaseException:
            served.close()
            raise
        return served


class Served(Attached):
    """A translator on a socket; ``client_words`` make a client the guest's."""

    client_words: Mapping[str, object]


_EARLIER = program_of_earlier("passtpy-passt")
VM_TRANSLATORS: Mapping[str, Translator] = {
    "direct": TRANSLATORS["direct"],
    "passt": OnSocket("passt", "passt", ("--runas", "0:0")),
    **({EARLIER: OnSocket(EARLIER, _EARLIER)} if _EARLIER else {}),
    OURS: OnSocket(OURS, _OURS),
    VHOST: OnSocket(VHOST, _OURS, ("--vhost-user",), vhost=True),
}
# Everybody; we have one name for both of our programs.
CONTENDERS: Mapping[str, Translator] = {**VM_TRANSLATORS, **TRANSLATORS}
