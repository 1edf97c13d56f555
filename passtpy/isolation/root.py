# SPDX-License-Identifier: GPL-2.0-or-later
"""Exchanges the files that a process sees for an empty folder.

The process gets mount, IPC and UTS namespaces of its own. Who may not have them gets a
user namespace as well, in which nobody is mapped: every user is 65534 to it from then
on. There is no PID namespace: it would take another process, and the numbers of
clients' processes would mean nothing there.

An open folder would lead back: whoever calls this holds none.
"""

import os
from contextlib import suppress
from errno import EINVAL
from typing import Final

from passtpy import _native

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000

_PLACE: Final = "/proc"  # a folder that there is wherever we run
_NOTHING: Final = "nr_inodes=2,nr_blocks=1,mode=555"
_MS_RDONLY: Final = 0x1
_MS_NOSUID: Final = 0x2
_MS_NODEV: Final = 0x4
_MS_NOEXEC: Final = 0x8
_MS_MOVE: Final = 0x2000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
_EMPTY: Final = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC


def enter(may_chroot: bool, as_user: bool = False) -> OSError | None:
    """Move into own namespaces with an empty root; return what failed, if it did.

    `as_user`: in a user namespace as well, which gives the right to all that.
    `may_chroot`: where the root is the kernel's first one, which cannot be exchanged,
    cover it and be content with that.
    """
    try:
        _native.unshare(CLONE_NEWNS | CLONE_NEWUSER if as_user else CLONE_NEWNS)
        with suppress(OSError):  # a service manager has done it, and allows no other
            _native.unshare(CLONE_NEWIPC | CLONE_NEWUTS)
        try:
            _exchange(may_chroot=False)
        except OSError as error:
            if error.errno != EINVAL:
                raise
            _exchange_above(may_chroot)
    except OSError as error:
        return error
    return None


def _exchange_above(may_chroot: bool) -> None:
    """Exchange the namespace's own root, if chroot() has made another folder ours.

    Such a folder is no mount that could be exchanged. Where the other cannot be
    exchanged either, we stay in it.
    """
    ours = os.open("/", os.O_PATH)
    try:
        _go_above()
        _exchange(may_chroot)
    except OSError:
        os.fchdir(ours)
        os.chroot(".")
        raise
    finally:
        os.close(ours)


def _go_above() -> None:
    """Make the first folder of the namespace our root.

    Who is outside of the own root is stopped by nothing on the way up.
    """
    os.chdir("/")
    os.chroot(_PLACE)
    while not os.path.samefile(".", ".."):
        os.chdir("..")
    os.chroot(".")


def _exchange(may_chroot: bool) -> None:
    _native.mount(None, "/", None, _MS_PRIVATE | _MS_REC)  # nobody else sees the rest
    _native.mount("empty", _PLACE, "tmpfs", _EMPTY, _NOTHING)
    os.chdir(_PLACE)
    try:
        _native.pivot_root(".", ".")  # the old one is on top of the new one now
    except OSError as error:
        if error.errno != EINVAL or not may_chroot:
            raise
        _native.mount(".", "/", None, _MS_MOVE)
        os.chroot(".")
    else:
        _native.umount(".")
    os.chdir("/")
