# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the files of a policy, at start and each time it is loaded again.

Their folders are opened once, at start: who reads may later have no right to walk
there. What is in them is found by its name in its folder, so that a file that was
replaced by another is read as that other. A daemon that serves opens nothing any more:
another process opens the files for it, in the order in which they are read.
"""

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from passtpy.egress.document import ReadFile, parse_policy, with_words
from passtpy.egress.model import Policy
from passtpy.errors import PolicyError

Opened = tuple[int, int]  # errno and, where that is 0, a descriptor

_REASONS: Final = {errno.ENODATA: "it was no file, and is used up"}
MOST_BYTES: Final = 16 * 1024 * 1024  # of one file


class PolicySource:
    """Where a policy comes from: a file, and what the command line says."""

    def __init__(
        self, path: str | None, words: Sequence[tuple[str, str]], mode: str | None
    ) -> None:
        self.path = None if path is None else os.path.abspath(path)
        self._label = path or ""
        self._words = words
        self._mode = mode
        self._folders: dict[str, int] = {}
        self._first = True  # so that it may come from a pipe

    def load(self) -> Policy:
        """Read it all now; PolicyError: what is wrong, and where."""

        def read(path: str) -> str:
            fd = self._open(path)
            try:
                return _text_of(fd, path)
            finally:
                os.close(fd)

        policy = self._load(read)
        self._first = False
        return policy

    def load_sent(self, text: str, files: Mapping[str, str]) -> Policy:
        """Read a text that somebody sent instead, with the files that it includes."""

        def read(name: str) -> str:
            if name not in files:
                raise FileNotFoundError(errno.ENOENT, "it was not sent along")
            return files[name]

        return self._with_words(text, read)

    def open_files(self) -> list[Opened]:
        """Open all files that load() would read, in that order, for load_opened()."""
        self._first = False
        opened: list[Opened] = []

        def read(path: str) -> str:
            try:
                fd = self._open(path)
            except OSError as error:
                opened.append((error.errno or errno.EIO, -1))
                raise
            opened.append((0, fd))
            text = _text_of(fd, path)
            os.lseek(fd, 0, os.SEEK_SET)
            return text

        with suppress(PolicyError):  # whoever reads them finds the same fault
            self._load(read)
        return opened

    def load_opened(self, opened: Sequence[Opened]) -> Policy:
        """Read what somebody else has opened, as load() does; all is closed."""
        left = iter(opened)

        def read(path: str) -> str:
            error, fd = next(left, (errno.EIO, -1))
            if error:
                raise OSError(error, _REASONS.get(error) or os.strerror(error))
            return _text_of(fd, path)

        try:
            return self._load(read)
        finally:
            for _, fd in opened:
                if fd >= 0:
                    os.close(fd)

    def held(self) -> list[int]:
        """Return the descriptors of folders."""
        return list(self._folders.values())

    def close(self) -> None:
        """Close the folders."""
        while self._folders:
            os.close(self._folders.popitem()[1])

    def _with_words(self, text: str, read: ReadFile) -> Policy:
        policy = parse_policy(text, self._label or "policy", read)
        return with_words(policy, self._words, self._mode)

    def _load(self, read: ReadFile) -> Policy:
        """Read it by what reads a file by its path."""
        if self.path is None:
            return with_words(None, self._words, self._mode)
        folder = os.path.dirname(self.path)
        try:
            text = read(self.path)
        except OSError as error:
            raise PolicyError(f"{self._label}: {error.strerror}") from None
        return self._with_words(text, lambda name: read(os.path.join(folder, name)))

    def _open(self, path: str) -> int:
        folder, name = os.path.split(os.path.normpath(path))
        if folder not in self._folders:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            self._folders[folder] = os.open(folder, flags)
        # Of a pipe that nobody writes to any more, one would wait for ever
        flags = os.O_RDONLY | os.O_CLOEXEC | (0 if self._first else os.O_NONBLOCK)
        fd = os.open(name, flags, dir_fd=self._folders[folder])
        if not self._first and not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.ENODATA, _REASONS[errno.ENODATA])
        return fd


def _text_of(fd: int, path: str) -> str:
    with open(fd, "rb", closefd=False) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - before.rfind(b"\n")
        text = f"{path}:{line}:{column}: expected UTF-8"
        raise PolicyError(text) from None
