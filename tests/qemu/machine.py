# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine behind a translator, and the two ways to plug it in.

with machine(lab, image, STREAM, passt()) as guest:
    guest.start()
    guest.take_lease()
    assert guest.told("bound")["ip"] == HOST4
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import Lab, LabError, Process, wait_until
from tests.qemu.console import Console
from tests.qemu.image import KERNEL_WORDS, QEMU, ROOT, Image
from tests.qemu.obedient import POLL_TIMEOUT, Guest

MAC = "52:54:00:12:34:56"
MEMORY = "256M"
READY_TIMEOUT = 60.0


def passt() -> list[str]:
    """The words that start the translator under test, without its options."""
    ours = str(ROOT / ".venv" / "bin" / "passtpy-passt")
    return shlex.split(os.environ.get("PASSTPY_PASST", ours))


@dataclass(frozen=True, slots=True)
class Link:
    """How qemu and the translator talk: what each must be told."""

    name: str
    passt: tuple[str, ...]
    machine: str
    netdev: tuple[str, ...]
    device: str

    def qemu(self, path: Path) -> list[str]:
        """Options of qemu for its machine and its network device."""
        words = [word.format(path=path, memory=MEMORY) for word in self.netdev]
        device = f"{self.device},mac={MAC},romfile="
        return ["-machine", self.machine, *words, "-device", device]


STREAM = Link(
    name="stream",
    passt=(),
    machine="q35,accel=tcg",
    netdev=("-netdev", "stream,id=n,server=off,addr.type=unix,addr.path={path}"),
    device="virtio-net-pci,netdev=n",
)
VHOST_USER = Link(
    name="vhost-user",
    passt=("--vhost-user",),
    machine="q35,accel=tcg,memory-backend=mem",
    netdev=(
        *("-object", "memory-backend-memfd,id=mem,size={memory},share=on"),
        *("-chardev", "socket,id=c,path={path},reconnect=1"),
        *("-netdev", "vhost-user,id=n,chardev=c"),
    ),
    # qemu 7.2 without KVM dies of MSI-X behind vhost-user: do without.
    device="virtio-net-pci,netdev=n,vectors=0",
)
LINKS = (STREAM, VHOST_USER)


class Machine(Guest):
    """A translator, its socket, and the machine that is plugged into it or not."""

    def __init__(
        self, lab: Lab, image: Image, link: Link, folder: Path, words: Sequence[str]
    ) -> None:
        self.link = link
        self._lab = lab
        self._image = image
        self._folder = folder
        self._socket = folder / "socket"
        self._words = [*words, *link.passt, "-f", "-s", str(self._socket)]
        self.serve()
        super().__init__(Console(folder / "console"))
        self._qemu: Process | None = None

    def serve(self) -> None:
        """Start the translator, again if it was killed."""
        self._translator = self._lab.start(self._lab.host, *self._words)
        wait_until(self._listens, READY_TIMEOUT, "the translator's socket")

    def kill_translator(self) -> None:
        """End it without a chance to clean up."""
        self._translator.popen.kill()
        self._translator.wait(POLL_TIMEOUT)

    def _listens(self) -> bool:
        self.check_served()
        return self._socket.exists()

    def check_served(self) -> None:
        """``LabError`` with its last words if the translator has ended."""
        if not self._translator.running():
            raise LabError(f"translator ended: {self._translator.complaint()}")

    # The power switch

    @property
    def running(self) -> bool:
        return self._qemu is not None and self._qemu.running()

    def command_line(self) -> list[str]:
        """What starts this machine."""
        return [
            *(QEMU, "-nodefaults", "-no-user-config", "-display", "none"),
            *("-cpu", "max", "-m", MEMORY),
            *self.link.qemu(self._socket),
            *("-kernel", str(self._image.kernel)),
            *("-initrd", str(self._image.initramfs)),
            *("-append", KERNEL_WORDS),
            *("-serial", f"file:{self._folder / 'kernel.log'}"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=console,path={self._folder / 'console'}"),
            *("-device", "virtserialport,chardev=console"),
        ]

    def start(self) -> str:
        """Switch on and wait until it obeys; what names this boot."""
        self._qemu = self._lab.start(self._lab.host, *self.command_line())
        return self._booted(accept=True)

    def kill(self) -> None:
        """Pull the plug: qemu gets no chance to say goodbye to the translator."""
        assert self._qemu is not None
        self._qemu.popen.kill()
        self._qemu.wait(POLL_TIMEOUT)
        self._console.hang_up()

    def reboot(self) -> str:
        """Let the guest reboot while qemu stays; what names the new boot."""
        self._console.send("reboot -f")
        return self._booted(accept=False)

    def _booted(self, accept: bool) -> str:
        assert self._qemu is not None
        self.forget_faults()
        try:
            if accept:
                self._console.accept()
            return self._console.wait_ready()
        except OSError as error:
            self.kill()
            said = self._qemu.complaint() or self.kernel_log()[-1000:]
            raise LabError(f"no guest: {error}: {said}") from error

    def kernel_log(self) -> str:
        """What the kernel wrote to the serial line."""
        path = self._folder / "kernel.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Switch off, and end the translator."""
        if self.running:
            self.kill()
        self._console.close()
        self._translator.stop()

    # The guest

    def ask(self, command: str, timeout: float) -> tuple[int, str]:
        """Ask the guest; one that does not answer is of no use any more, and off."""
        try:
            return super().ask(command, timeout)
        except OSError as error:
            self.kill()
            raise LabError(f"guest: {command}: {error}") from error


@contextmanager
def machine(
    lab: Lab, image: Image, link: Link, words: Sequence[str], name: str = "machine"
) -> Iterator[Machine]:
    """A machine, not yet on, and the translator that these words start for it."""
    folder = lab.dir / f"{name}-{link.name}"
    folder.mkdir()
    made = Machine(lab, image, link, folder, words)
    try:
        yield made
    finally:
        made.close()
