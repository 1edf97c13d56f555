# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes, reaches and removes UNIX sockets by name for a daemon that sees no files.

It is a part of the lookout, whose messages are in docs/lookout.md. A name is one
directly in a folder that was opened at start, never a path: no daemon gets further that
was taken over, nor does anybody who moves folders or makes links in them.
"""

import os
import socket
from collections.abc import Sequence
from errno import EINVAL, EIO, ENOENT
from typing import Final

from passtpy.config.unixend import is_name
from passtpy.errors import SetupError
from passtpy.net.kernel import local
from passtpy.net.kernel.listen import BACKLOG
from passtpy.net.kernel.local import Name

MODE_MAX: Final = 0o777
FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

Made = tuple[int, socket.socket | None]  # errno and, where that is 0, a socket
Folders = tuple[tuple[str, int], ...]  # by their paths, descriptors


def open_folders(paths: Sequence[str]) -> Folders:
    """Open folders for UNIX sockets, while we may walk there; SetupError."""
    found = []
    for path in paths:
        try:
            found.append((path, os.open(path, FOLDER)))
        except OSError as error:
            raise SetupError(f"Couldn't open {path}: {error.strerror}") from error
    return tuple(found)


class Named:
    """The sockets that have a name, each with a number; the first ones are given.

    Each is held, so that one that is made anew at its place is not taken for it.
    """

    def __init__(self, names: Sequence[Name], folders: Sequence[int]) -> None:
        """`folders`: descriptors of those in which sockets may be made and reached."""
        self._folders = tuple(folders)
        # Each with a descriptor of what has it; None: it is removed
        self._named: list[tuple[Name, int | None] | None] = [
            (name, local.hold(name)) for name in names
        ]

    def held(self) -> set[int]:
        """Return the descriptors of what has these names."""
        named = filter(None, self._named)
        return {fd for _, fd in named if fd is not None}

    def listen(self, which: int, mode: int, raw: bytes) -> tuple[int, Made]:
        """Make a socket that listens in a folder; return its number, too."""
        name = os.fsdecode(raw)
        if which >= len(self._folders) or not is_name(name) or mode & ~MODE_MAX:
            return 0, (EINVAL, None)
        folder = self._folders[which]
        try:
            os.fchdir(folder)  # there is no bind() below a descriptor
            sock = local.listen(name, mode, BACKLOG)
        except OSError as error:
            return 0, (error.errno or EIO, None)
        made = local.name_of(name, folder)
        self._named.append(None if made is None else (made, local.hold(made)))
        return len(self._named) - 1, (0, sock)

    def dial(self, which: int, raw: bytes) -> Made:
        """Connect to a socket in a folder; one whose queue is full has no place."""
        name = os.fsdecode(raw)
        if which >= len(self._folders) or not is_name(name):
            return EINVAL, None
        try:
            return 0, local.dial(name, self._folders[which])
        except OSError as error:
            return error.errno or EIO, None

    def remove(self, number: int) -> int:
        """Remove the name of one of our sockets, once; return 0, or the errno."""
        named = self._named[number] if number < len(self._named) else None
        if named is None:
            return ENOENT
        self._named[number] = None
        name, fd = named
        error = local.remove(name)
        if fd is not None:
            os.close(fd)
        return error

    def remove_all(self) -> None:
        """Remove every name that is left."""
        for number in range(len(self._named)):
            self.remove(number)
