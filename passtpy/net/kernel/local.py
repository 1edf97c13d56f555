# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes listening UNIX sockets, in the place of those that were left behind."""

import os
import socket
import stat
from contextlib import suppress
from errno import EADDRINUSE, EEXIST, ENOENT, ENOTSOCK
from typing import Final

from passtpy.record import record

BACKLOG: Final = 128
OWNER_ONLY: Final = 0o600
_KIND: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK  # nobody waits for others
_REASONS: Final = {
    EADDRINUSE: "it is in use",
    EEXIST: "it is there, and no socket",
}


@record
class Name:
    """A name in the file system that is ours: device and inode tell whether it is.

    `folder`: an open one, in which the path begins.
    """

    path: str
    identity: tuple[int, int]
    folder: int | None = None


def name_of(path: str, folder: int | None = None) -> Name | None:
    """Return the name as it is now; None: there is none."""
    if folder is None and not os.path.isabs(path):
        path = os.path.join(os.getcwd(), path)
    with suppress(OSError):
        found = os.stat(path, dir_fd=folder, follow_symlinks=False)
        return Name(path, (found.st_dev, found.st_ino), folder)
    return None


def hold(name: Name) -> int | None:
    """Return a descriptor of what has that name; None: it is not ours any more.

    While that is open no other file has the inode: file systems give it again at once.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        fd = os.open(name.path, flags, dir_fd=name.folder)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) == name.identity:
            return fd
        os.close(fd)
    return None


def remove(name: Name) -> int:
    """Remove a name that is still ours; return the errno if we may not."""
    if name_of(name.path, name.folder) != name:
        return ENOENT
    try:
        os.unlink(name.path, dir_fd=name.folder)
    except OSError as error:
        return error.errno or ENOENT
    return 0


def reason(number: int) -> str:
    """Return why a name could not be had, in words, of the errno of listen()."""
    return _REASONS.get(number) or os.strerror(number)


def listen(path: str, mode: int = OWNER_ONLY, backlog: int = BACKLOG) -> socket.socket:
    """Return a listening socket at `path`, whose file has that mode; or OSError.

    It does not block. A socket at which nobody answers gives way; FileExistsError:
    somebody does (EADDRINUSE), or it is something else (EEXIST).
    """
    sock = socket.socket(socket.AF_UNIX, _KIND)
    try:
        make_way(path)
        mask = os.umask(~mode & 0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def make_way(path: str) -> None:
    """Remove the socket of a daemon that is no more; nothing else is removed."""
    why = EADDRINUSE
    try:
        dial(path).close()
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    except PermissionError:
        raise  # somebody else's: who knows whether it is in use
    except OSError as error:
        # Else somebody listens, and has more clients than are accepted at once
        if error.errno == ENOTSOCK:
            why = EEXIST
    raise FileExistsError(why, f"{path}: {reason(why)}")


def dial(path: str, folder: int | None = None) -> socket.socket:
    """Return a socket that is connected to the one of this name; or OSError.

    A link is not followed (ENOTSOCK): whoever may write in the folder would lead us
    anywhere by it, and between two looks at a name there is time to make one.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    found = os.open(path, flags, dir_fd=folder)
    sock = socket.socket(socket.AF_UNIX, _KIND)
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise OSError(ENOTSOCK, os.strerror(ENOTSOCK))
        sock.connect(f"/proc/self/fd/{found}")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(found)
    return sock
