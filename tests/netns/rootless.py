# SPDX-License-Identifier: GPL-2.0-or-later
"""An ordinary user with other people's programs, which find ours by their names.

Everything the user has is in a folder of its own and in a mount namespace: accounts,
ranges of user ids, cgroups of the new form, and a link for each name on the PATH. The
programs are this machine's, or those of another system below a folder (`root`).
"""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
TIMEOUT_S = 250.0
NAME = "passtpytest"
OURS = Path("/opt/passtpy/bin")  # in another system, see .ci/setup-clients
# A server may not be there yet: nobody wants to read that, nor a test to fail by it.
_FETCH = (
    "fetch() { for i in $(seq 100); do "
    'busybox wget -q -O - "$1" 2>/dev/null && break; sleep 0.3; done; }'
)
_APPLETS = ("sh", "ip", "wget", "httpd", "cat", "sleep", "nslookup", "nc", "true")


def missing(needed: Sequence[str] = NEEDED) -> str | None:
    """The first program that the machine lacks."""
    for name in needed:
        if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
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

    def __init__(self, lab: Lab, home: Path, root: Path | None = None) -> None:
        self._lab = lab
        self._root = root
        self.home = home
        self.calls = home / "calls"
        self.calls.touch()
        self.calls.chmod(0o666)
        (home / "bin").mkdir()
        self._accounts()
        make_image(self.home)

    def _accounts(self) -> None:
        for name in ("passwd", "group", "subuid", "subgid"):
            known = (self._root or Path("/")) / "etc" / name
            text = known.read_text() if known.exists() else ""
            text += {
                "passwd": f"{NAME}:x:{USER}:{USER}::{self.home}:/bin/sh\n",
                "group": f"{NAME}:x:{USER}:\n",
            }.get(name, f"{NAME}:500000:65536\n")
            (self.home / name).write_text(text)

    def offer(self, name: str, *options: str) -> None:
        """Put ours where callers look for this name, and keep what they say."""
        folder = ROOT / ".venv" / "bin" if self._root is None else OURS
        words = f'{folder}/passtpy-{name} {shlex.join(options)} "$@"'
        path = self.home / "bin" / name
        path.write_text(f'#!/bin/sh\necho "$@" >>{self.calls}\nexec {words}\n')
        path.chmod(0o755)

    def running(self, word: str) -> list[str]:
        """The command lines of this user's processes in which a word stands."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            if _belongs(path / "environ", self.home):
                with suppress(OSError):  # it has just ended
                    line = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(line.decode(errors="replace"))
        return [line for line in found if word in line.split()]

    def do(self, script: str) -> CompletedProcess[str]:
        """Run a script, in which `$P` is podman.

        `$R` runs a container in the background, `fetch URL` waits for a page.
        """
        prepare = [
            *([] if self._root is None else _enter(self._root, self.home)),
            *(f"mount --bind {self.home / n} /etc/{n}" for n in ("passwd", "group")),
            *(
                f"touch /etc/{n} && mount --bind {self.home / n} /etc/{n}"
                for n in ("subuid", "subgid")
            ),
            # podman's locks are there, under a name that all of a user's share
            f"mount --bind {self.home / 'shm'} /dev/shm",
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
            _FETCH,
            script,
        ]
        words = command_line(
            "user", "sh", "-c", "\n".join(lines), prepare=_all(prepare)
        )
        return run(["nsenter", f"--net={self._lab.host.path}", "--", *words], TIMEOUT_S)


def _enter(root: Path, home: Path) -> list[str]:
    """Shell lines that make another system's root ours, with what tests need in it.

    A mere chroot would not do: nobody in one may make a namespace of users.
    """
    return [
        f"mount --bind {root} {root}",
        *(f"mount -t tmpfs -o mode=1777 none {root}/{name}" for name in ("tmp", "run")),
        *(f"mount --rbind /{name} {root}/{name}" for name in ("dev", "proc", "sys")),
        f"mkdir -p {root}{ROOT} {root}{home}",
        *(f"mount --rbind {path} {root}{path}" for path in (ROOT, home)),
        f"cd {root}",
        "pivot_root . mnt",
        "umount --lazy /mnt",
    ]


def _all(lines: list[str]) -> str:
    return "{ " + "; ".join(lines) + "; } >&2"


@contextmanager
def rootless_user(lab: Lab, root: Path | None = None) -> Iterator[RootlessUser]:
    """The user, until everything that it runs has been ended."""
    home = Path(tempfile.mkdtemp(prefix="ptpy"))  # sockets are below it, in 107 bytes
    try:
        for name in ("run", ".local", "shm"):
            (home / name).mkdir(mode=0o700)
            os.chown(home / name, USER, USER)
        home.chmod(0o755)
        os.chown(home, USER, USER)
        yield RootlessUser(lab, home, root)
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
