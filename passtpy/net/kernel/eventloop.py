# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports the event loop without OpenSSL.

uvloop and asyncio import `ssl` for connections that we never make, and with it 6 MB of
libraries, a quarter of what the daemon needs. While they are imported they find a
module in its place that has nothing but empty classes: who ever asked the loop for TLS
would get an exception. If that does not do for some version of them, they get the real
one. It is gone again afterwards, for whoever else wants `ssl`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from uvloop import new_event_loop as new_event_loop

_NAME: Final = "ssl"
_CONSTANT: Final = "SSL_ERROR_"  # names of numbers begin so


class _NoTls(ModuleType):
    """In the place of `ssl`: each name is an exception of its own, or a number."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # asked for by the importing itself
            raise AttributeError(name)
        made = 0 if name.startswith(_CONSTANT) else type(name, (Exception,), {})
        setattr(self, name, made)
        return made


def _import() -> ModuleType:
    """Import both, without `ssl` unless somebody has imported it already."""
    if _NAME in sys.modules:
        return import_module("uvloop")
    sys.modules[_NAME] = _NoTls(_NAME)
    try:
        return import_module("uvloop")
    except (ImportError, AttributeError, TypeError):
        del sys.modules[_NAME]
        return import_module("uvloop")
    finally:
        if isinstance(sys.modules.get(_NAME), _NoTls):
            del sys.modules[_NAME]


if not TYPE_CHECKING:
    new_event_loop = _import().new_event_loop
