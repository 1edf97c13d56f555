# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine of libvirt, in the session of an ordinary user.

The guest is the one that qemu boots in the other tests, and obeys in the same way
(`Console`); how it is plugged into a network is up to its user.
"""

from subprocess import CompletedProcess

from tests.netns.rootless import RootlessUser
from tests.qemu.console import Console
from tests.qemu.image import KERNEL_WORDS, Image
from tests.qemu.obedient import Guest

NAME = "passtpytest"
VIRSH = "virsh --quiet --connect qemu:///session"
_DOMAIN = """\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <memory unit='MiB'>256</memory>
  {memory}
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{words_of_kernel}</cmdline>
  </os>
  <devices>
    <channel type='unix'>
      <source mode='connect' path='{console}'/>
      <target type='virtio' name='console'/>
    </channel>
    {interface}
  </devices>
  <qemu:commandline>{words}</qemu:commandline>
</domain>
"""
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"


class Domain(Guest):
    """A machine that its user has described, not yet on."""

    def __init__(
        self,
        user: RootlessUser,
        image: Image,
        interface: str = "",
        words: tuple[str, ...] = (),
        memory: str = "",
    ) -> None:
        self._user = user
        path = user.home / "console"
        path.unlink(missing_ok=True)
        super().__init__(Console(path))
        path.chmod(0o777)
        text = _DOMAIN.format(
            name=NAME,
            memory=memory,
            kernel=image.kernel,
            initramfs=image.initramfs,
            console=path,
            interface=interface,
            words_of_kernel=KERNEL_WORDS,
            words="".join(f"<qemu:arg value='{word}'/>" for word in words),
        )
        (user.home / "domain.xml").write_text(text)

    def create(self) -> CompletedProcess[str]:
        """Let libvirt start it, or say why not."""
        return self._user.do(f"{VIRSH} create domain.xml")

    def boot(self) -> None:
        """Start it, and wait until it obeys."""
        done = self.create()
        assert done.returncode == 0, done.stdout
        self._console.accept()
        self._console.wait_ready()

    def destroy(self) -> CompletedProcess[str]:
        """Pull the plug."""
        return self._user.do(f"{VIRSH} destroy {NAME}")

    def close(self) -> None:
        self._console.close()
