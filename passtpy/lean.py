# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports a library without those of its parts that nobody here uses.

Some libraries import much more than a program needs of them: the event loop OpenSSL,
6 MB of libraries for connections that we never make; structlog coloured output, pickle
and UUIDs. While such a library is imported it finds, in the place of each part to be
left out, a module that has nothing but empty classes. If that does not do for some
version of it, it gets the real ones. The modules are gone again afterwards, for whoever
else wants the real ones.
"""

import sys
from collections.abc import Collection
from importlib import import_module
from types import ModuleType
from typing import Final

_CONSTANT: Final = "SSL_ERROR_"  # names of numbers begin so
_REFUSALS: Final = (ImportError, AttributeError, TypeError)


def _nothing(self: object, *_: object, **__: object) -> None:
    """Be made from anything, and do nothing with it."""


class _Empty(ModuleType):
    """In the place of a part: each name is an exception of its own, or a number."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # asked for by the importing itself
            raise AttributeError(name)
        is_number = name.startswith(_CONSTANT)
        made = 0 if is_number else type(name, (Exception,), {"__init__": _nothing})
        setattr(self, name, made)
        return made


def import_without(name: str, parts: Collection[str]) -> ModuleType:
    """Import a library without these, unless somebody has imported them already."""
    if name in sys.modules:
        return import_module(name)
    missing = [part for part in parts if part not in sys.modules]
    for part in missing:
        sys.modules[part] = _Empty(part)
    try:
        return import_module(name)
    except _REFUSALS:
        _forget(missing)
        for each in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[each]
        return import_module(name)
    finally:
        _forget(missing)


def _forget(names: Collection[str]) -> None:
    """Let whoever asks for these from now on have the real ones."""
    for name in names:
        if isinstance(sys.modules.get(name), _Empty):
            del sys.modules[name]
