# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports the event loop without OpenSSL.

uvloop and asyncio import `ssl` for connections that we never make, and with it 6 MB of
libraries, a quarter of what the daemon needs. Who ever asked the loop for TLS would get
an exception.
"""

from typing import TYPE_CHECKING

from passtpy.lean import import_without

if TYPE_CHECKING:
    from uvloop import new_event_loop as new_event_loop
else:
    new_event_loop = import_without("uvloop", ("ssl",)).new_event_loop
