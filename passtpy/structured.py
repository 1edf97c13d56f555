# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports what the log takes of structlog: the logger, without renderers of its own.

Consoles, tracebacks, bridges to other loggers and what they import would be 1.2 MB.
"""

from typing import TYPE_CHECKING, Final

from passtpy.lean import import_without

_UNUSED: Final = (
    "structlog.dev",
    "structlog.processors",
    "structlog.stdlib",
    "structlog.testing",
    "structlog.threadlocal",
    "structlog.tracebacks",
    "structlog.twisted",
    "pickle",
)

if TYPE_CHECKING:
    from structlog import BoundLogger as BoundLogger
else:
    BoundLogger = import_without("structlog", _UNUSED).BoundLogger
