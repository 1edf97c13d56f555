# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the files of a policy, at start and each time it is loaded again.

Their folders are opened once, at start: who serves may later have no right to walk
there, or another root. What is in them is found by its name in its folder, so that a
file that was replaced by another is read as that other.
"""

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Final

from passtpy.egress.document import ReadFile, parse_policy, with_words
from passtpy.egress.model import Policy
from passtpy.errors import PolicyError

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
        if self.path is None:
            return with_words(None, self._words, self._mode)
        try:
            text = self._read(self.path)
        except OSError as error:
            raise PolicyError(f"{self._label}: {error.strerror}") from None
        policy = self._with_words(text, self._beside)
        self._first = False
        return policy

    def load_sent(self, text: str, files: Mapping[str, str]) -> Policy:
        """Read a text that somebody sent instead, with the files that it includes."""

        def read(name: str) -> str:
            if name not in files:
                raise FileNotFoundError(errno.ENOENT, "it was not sent along")
            return files[name]

        return self._with_words(text, read)

    def close(self) -> None:
        """Close the folders."""
        while self._folders:
            os.close(self._folders.popitem()[1])

    def _with_words(self, text: str, read: ReadFile) -> Policy:
        policy = parse_policy(text, self._label or "policy", read)
        return with_words(policy, self._words, self._mode)

    def _beside(self, name: str) -> str:
        """Read a file by a name that counts from the folder of the policy's."""
        assert self.path is not None
        return self._read(os.path.join(os.path.dirname(self.path), name))

    def _read(self, path: str) -> str:
        folder, name = os.path.split(os.path.normpath(path))
        if folder not in self._folders:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            self._folders[folder] = os.open(folder, flags)
        # Of a pipe that nobody writes to any more, the daemon would wait for ever
        flags = os.O_RDONLY | os.O_CLOEXEC | (0 if self._first else os.O_NONBLOCK)
        fd = os.open(name, flags, dir_fd=self._folders[folder])
        with open(fd, "rb") as file:
            if not self._first and not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.ENODATA, "it was no file, and is used up")
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
