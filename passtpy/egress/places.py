# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds where in a TOML file something stands.

`tomllib` tells the place of what is no TOML, but not of a value that is no port. This
walks over a text that tomllib has read, so it need not complain, and notes where each
key and each value begins. (A library that keeps places would load ten times as much
for something that is used when a file is wrong.)
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

Path = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_NEWLINE: Final = re.compile("\n")
_PLAIN: Final = re.compile(r"[^,\]}#\n]+")


class Place(NamedTuple):
    """A line and a column, counted from 1."""

    line: int
    column: int


class _Walk:
    """One walk over a text; `found` maps paths to where keys and values begin."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.found: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}  # of arrays of tables, so far

    def document(self) -> None:
        """Walk over everything."""
        table: Path = ()
        while self._skip():
            if self._take("[["):
                table = self._header(array=True)
            elif self._take("["):
                table = self._header(array=False)
            else:
                self._pair(table)

    def _skip(self) -> bool:
        match = _BLANK.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._at < len(self._text)

    def _take(self, word: str) -> bool:
        if self._text.startswith(word, self._at):
            self._at += len(word)
            return True
        return False

    def _header(self, array: bool) -> Path:
        self._skip()
        begin = self._at
        table: Path = ()
        *above, last = self._key()
        for part in above:
            table = self._element((*table, part))
        table = (*table, last)
        self.found.setdefault(table, begin)
        if array:
            self._lengths[table] = self._lengths.get(table, 0) + 1
            table = self._element(table)
            self.found[table] = begin
        else:
            table = self._element(table)
        self._skip()
        self._take("]]" if array else "]")
        return table

    def _element(self, table: Path) -> Path:
        """Return the last element of an array of tables; any other path as it is."""
        length = self._lengths.get(table)
        return table if length is None else (*table, length - 1)

    def _key(self) -> Iterator[str]:
        while True:
            self._skip()
            match = _STRING.match(self._text, self._at)
            if match is not None:
                self._at = match.end()
                yield _unquoted(match.group())
            else:
                match = _BARE.match(self._text, self._at)
                assert match is not None
                self._at = match.end()
                yield match.group()
            self._skip()
            if not self._take("."):
                return

    def _pair(self, table: Path) -> None:
        begin = self._at
        path = (*table, *self._key())
        for length in range(len(table) + 1, len(path) + 1):
            self.found.setdefault(path[:length], begin)
        self._take("=")
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip()
        self.found[(*path, "=")] = self._at
        if self._take("["):
            number = 0
            while self._skip() and not self._take("]"):
                self._value((*path, number))
                number += 1
                self._skip()
                self._take(",")
        elif self._take("{"):
            while self._skip() and not self._take("}"):
                self._pair(path)
                self._skip()
                self._take(",")
        else:
            match = _STRING.match(self._text, self._at) or _PLAIN.match(
                self._text, self._at
            )
            assert match is not None
            self._at = match.end()


def _unquoted(text: str) -> str:
    import tomllib

    return str(tomllib.loads(f"x = {text}")["x"])


class Places:
    """Where everything in a text stands."""

    def __init__(self, text: str) -> None:
        walk = _Walk(text)
        walk.document()
        self._found = walk.found
        self._lines = [0, *(match.end() for match in _NEWLINE.finditer(text))]

    def find(self, path: Path, key: bool = False) -> Place:
        """Return where the value at `path` begins, or its key.

        What does not stand there by itself (a key that is missing) is where its table
        is.
        """
        at = None if key else self._found.get((*path, "="))
        while at is None and path:
            at = self._found.get(path)
            path = path[:-1]
        line = bisect_right(self._lines, at or 0)
        return Place(line, (at or 0) - self._lines[line - 1] + 1)
