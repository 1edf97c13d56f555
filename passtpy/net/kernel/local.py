# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes listening UNIX sockets, in the place of those that were left behind."""

import os
import socket
import stat
from contextlib import suppress
from typing import Final

from passtpy.record import record

BACKLOG: Final = 128
OWNER_ONLY: Final = 0o600


@record
class Name:
    """A name in the file system that is ours: device and inode tell whether it is."""

    path: str
    identity: tuple[int, int]


def name_of(path: str) -> Name | None:
    """Return the name as it is now; None: there is none."""
    path = os.path.abspath(path)
    with suppress(OSError):
        found = os.lstat(path)
        return Name(path, (found.st_dev, found.st_ino))
    return None


def remove(name: Name) -> None:
    """Remove a name that is still ours, if we may."""
    if name_of(name.path) == name:
        with suppress(OSError):
            os.unlink(name.path)


def listen(path: str, mode: int = OWNER_ONLY, backlog: int = BACKLOG) -> socket.socket:
    """Return a listening socket at `path`, whose file has that mode; or OSError.

    Whatever nobody answers at gives way; FileExistsError: somebody does.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
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
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"{path} is there, and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except PermissionError:
            raise  # somebody else's: who knows whether it is in use
        except OSError:
            pass  # somebody listens, and has more clients than are accepted at once
    raise FileExistsError(f"{path} is in use")
