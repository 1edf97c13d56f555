# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest boots: Debian's kernel, and an initramfs that is put together here.

Kernel, modules and busybox were unpacked into build/qemu/root by .ci/setup-guest.
The initramfs has in addition the files of guest/, and dhclient from this machine with
its libraries, because busybox has no DHCPv6.
"""

import lzma
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "qemu"
FETCHED = CACHE / "root"
GUEST = Path(__file__).with_name("guest")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
QEMU = "qemu-system-x86_64"
DHCLIENT = "dhclient"

# Those that the guest's devices need; what these depend on comes by itself.
MODULES = ("virtio_pci", "virtio_net", "virtio_console")
# A busy host may give it no tick while its kernel tries the timer
KERNEL_WORDS = "console=ttyS0 quiet panic=-1 no_timer_check"
FOLDERS = ("bin", "dev", "etc", "lib", "modules", "proc", "run", "sys", "tmp")


@dataclass(frozen=True, slots=True)
class Image:
    """What qemu's -kernel and -initrd want."""

    kernel: Path
    initramfs: Path


def why_missing() -> str | None:
    """Why no machine can be booted here, or None."""
    for program, package in (
        (QEMU, "qemu-system-x86"),
        (DHCLIENT, "isc-dhcp-client"),
    ):
        if shutil.which(program, path=PATH) is None:
            return f"no virtual machine: {program} is missing (Debian: {package})"
    if not (CACHE / "ready").exists():
        return "no virtual machine: .ci/setup-guest could not fetch a kernel"
    return None


def build() -> Image:
    """Put the initramfs together, in a fraction of a second.

    Another worker may do so too, or have a machine that boots from it: it is whole
    whenever somebody opens it.
    """
    initramfs = CACHE / "initramfs.cpio"
    with TemporaryDirectory(dir=CACHE) as folder:
        made = Path(folder) / "initramfs.cpio"
        made.write_bytes(_cpio(_contents(Path(folder))))
        made.replace(initramfs)
    (kernel,) = FETCHED.glob("boot/vmlinuz-*")
    return Image(kernel, initramfs)


# A file's place in the guest, its bytes and whether it may be executed
Content = tuple[str, bytes, bool]


def _contents(folder: Path) -> Iterator[Content]:
    (busybox,) = FETCHED.glob("**/bin/busybox")
    yield "bin/busybox", busybox.read_bytes(), True
    yield "bin/datagram", _compiled("datagram", folder).read_bytes(), True
    yield "init", (GUEST / "init").read_bytes(), True
    yield "etc/configure", (GUEST / "configure").read_bytes(), True
    yield from _program(DHCLIENT)
    yield from _modules()


def _compiled(name: str, folder: Path) -> Path:
    """A static program made from the C file of this name, in a folder."""
    made = folder / name
    source = GUEST / f"{name}.c"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run(["gcc", *flags, "-o", made, source], check=True)
    return made


def _program(name: str) -> Iterator[Content]:
    """A program of this machine with the libraries that it is linked to."""
    path = shutil.which(name, path=PATH)
    assert path is not None
    yield f"bin/{name}", Path(path).read_bytes(), True
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True)
    for library in re.findall(r"(/\S+) \(0x", listed.stdout):
        yield library.lstrip("/"), Path(library).read_bytes(), True


def _modules() -> Iterator[Content]:
    found = {
        path.name.partition(".")[0].replace("-", "_"): path
        for path in FETCHED.glob("**/*.ko*")
    }
    loaded: dict[str, bytes] = {}
    for name in MODULES:
        _load(name, found, loaded)
    for name, module in loaded.items():
        yield f"modules/{name}", module, False
    yield "modules/order", "".join(f"{name}\n" for name in loaded).encode(), False


def _load(name: str, found: Mapping[str, Path], loaded: dict[str, bytes]) -> None:
    """Add a module behind those it depends on; what has no file is built in."""
    if name in loaded or name not in found:
        return
    module = found[name].read_bytes()
    if found[name].suffix == ".xz":
        module = lzma.decompress(module)
    depends = re.search(rb"\0depends=([^\0]*)\0", module)
    for other in depends[1].decode().split(",") if depends else []:
        _load(other, found, loaded)
    loaded[name] = module


def _cpio(contents: Iterator[Content]) -> bytes:
    """An archive of the kind that a kernel unpacks (cpio, "newc")."""
    archive = [_entry(folder, stat.S_IFDIR | 0o755) for folder in FOLDERS]
    known = set(FOLDERS)
    for name, data, executable in contents:
        for parent in reversed(Path(name).parents[:-1]):
            if str(parent) not in known:
                archive.append(_entry(str(parent), stat.S_IFDIR | 0o755))
                known.add(str(parent))
        archive.append(
            _entry(name, stat.S_IFREG | (0o755 if executable else 0o644), data)
        )
    return b"".join(archive) + _entry("TRAILER!!!", 0)


def _entry(name: str, mode: int, data: bytes = b"") -> bytes:
    # ino mode uid gid nlink mtime size, four device numbers, name's size, check
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(head + name.encode() + b"\0") + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
