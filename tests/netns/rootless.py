# SPDX-License-Identifier: GPL-2.0-or-later
"""An ordinary user with Debian's podman and rootlesskit, who finds our slirp4netns.

Everything the user has is in a folder of its own and in a mount namespace: accounts,
ranges of user ids, cgroups of the new form, a link named slirp4netns on the PATH.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from tests.lab import Lab
from tests.lab.process import identify, kill_all
from tests.netns.program import ROOT, USER, command_line, run

NEEDED = ("podman", "crun", "newuidmap", "rootlesskit", "busybox")
_LOADER = b"/ld-linux"  # named in a program that needs libraries
PODMAN = (
    *("podman", "--storage-driver=vfs", "--cgroup-manager=cgroupfs"),
    *("--log-level=error", "--events-backend=file"),
)
TIMEOUT_S = 150.0
NAME = "passtpytest"
_APPLETS = ("sh", "ip", "wget", "httpd", "cat", "sleep", "nslookup", "true")


def missing() -> str | None:
    """The first program that the machine lacks."""
    for name in NEEDED:
        if shutil.which(name) is None:
            return name
    if _LOADER in Path(shutil.which("busybox") or "").read_bytes():
        return "a static busybox"  # it is all that there is in a container
    return None


def make_image(folder: Path) -> None:
    """Make image.tar there, for podman to import: busybox and a page."""
    root = folder / "image"
    (root / "bin").mkdir(parents=True)
    for name in ("etc", "tmp", "www"):
        (root / name).mkdir()
    (root / "www" / "index.html").write_text("hello\n")
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in _APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    run(["tar", "-C", str(root), "-cf", str(folder / "image.tar"), "."])


class RootlessUser:
    """Runs shell scripts as the user, in the network of a lab's host."""

    def __init__(self, lab: Lab, home: Path) -> None:
        self._lab = lab
        self.home = home
        self.calls = home / "calls"
        self._accounts()
        make_image(self.home)
        self._program()

    def _accounts(self) -> None:
        for name in ("passwd", "group", "subuid", "subgid"):
            known = Path("/etc", name)
            text = known.read_text() if known.exists() else ""
            text += {
                "passwd": f"{NAME}:x:{USER}:{USER}::{self.home}:/bin/sh\n",
                "group": f"{NAME}:x:{USER}:\n",
            }.get(name, f"{NAME}:500000:65536\n")
            (self.home / name).write_text(text)

    def _program(self) -> None:
        """Put ours where callers look, and keep what they say."""
        (self.home / "bin").mkdir()
        program = ROOT / ".venv" / "bin" / "passtpy-slirp4netns"
        path = self.home / "bin" / "slirp4netns"
        path.write_text(
            f'#!/bin/sh\necho "$@" >>{self.calls}\nexec {program} "$@"\n',
        )
        path.chmod(0o755)
        self.calls.touch()
        self.calls.chmod(0o666)

    def do(self, script: str) -> CompletedProcess[str]:
        """Run a script; `$P` is podman, `$R` runs a container in the background."""
        prepare = [
            *(f"mount --bind {self.home / n} /etc/{n}" for n in ("passwd", "group")),
            *(
                f"touch /etc/{n} && mount --bind {self.home / n} /etc/{n}"
                for n in ("subuid", "subgid")
            ),
            "mount --make-rshared /",
            "umount -R /sys/fs/cgroup || :",
            "mount -t cgroup2 none /sys/fs/cgroup",
        ]
        lines = [
            f"export HOME={self.home} XDG_RUNTIME_DIR={self.home}/run",
            f"export PATH={self.home}/bin:$PATH TMPDIR={self.home}/run",
            f"cd {self.home}",
            f"P='{' '.join(PODMAN)}'",
            'R="$P run --detach --cgroups=disabled"',
            script,
        ]
        words = command_line(
            "user", "sh", "-c", "\n".join(lines), prepare=_all(prepare)
        )
        return run(["nsenter", f"--net={self._lab.host.path}", "--", *words], TIMEOUT_S)


def _all(lines: list[str]) -> str:
    return "{ " + "; ".join(lines) + "; } >&2"


@contextmanager
def rootless_user(lab: Lab) -> Iterator[RootlessUser]:
    """The user, until everything that it runs has been ended."""
    home = Path(tempfile.mkdtemp(prefix="ptpy"))  # sockets are below it, in 107 bytes
    try:
        for name in ("run", ".local"):
            (home / name).mkdir(mode=0o700)
            os.chown(home / name, USER, USER)
        home.chmod(0o755)
        os.chown(home, USER, USER)
        user = RootlessUser(lab, home)
        yield user
        user.do("$P rm --all --force --time 0; $P pod rm --all --force")
    finally:
        found = [
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if _belongs(path / "environ", home)
        ]
        kill_all(identify(found))
        shutil.rmtree(home, ignore_errors=True)


def _belongs(environ: Path, home: Path) -> bool:
    try:
        return f"HOME={home}".encode() in environ.read_bytes()
    except OSError:
        return False
