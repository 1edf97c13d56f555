# SPDX-License-Identifier: GPL-2.0-or-later
"""Libraries come without what nobody uses of them, and with it where they insist."""

from tests.unit.fresh import said

LOGGER = """\
from passtpy.structured import BoundLogger
import sys
unused = "structlog.dev", "pickle", "uuid", "dataclasses"
print([name for name in unused if name in sys.modules])
import structlog.dev, pickle
print(structlog.dev.ConsoleRenderer.__mro__[1] is object, pickle.dumps(1)[:1])
"""
INSISTS = """\
import sys
class Insists:
    def find_spec(self, name, path=None, target=None):
        there = sys.modules.get("pickle")
        if name == "structlog._base" and type(there).__name__ == "_Empty":
            raise ImportError("not with that")
sys.meta_path.insert(0, Insists())
from passtpy.structured import BoundLogger
import structlog
print(structlog.dev.__file__ is not None, structlog.BoundLogger is BoundLogger)
"""


def test_the_logger_comes_alone_and_the_rest_can_be_had_afterwards() -> None:
    assert said(LOGGER) == "[]\nTrue b'\\x80'\n"


def test_a_library_that_insists_gets_the_real_ones() -> None:
    assert said(INSISTS) == "True True\n"
