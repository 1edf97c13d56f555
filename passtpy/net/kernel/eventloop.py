# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the event loop, imported without OpenSSL.

uvloop and asyncio import `ssl` for connections that we never make, and with it 6 MB of
libraries, a quarter of what the daemon needs. Who ever asked the loop for TLS would get
an exception.
"""

import os
from typing import TYPE_CHECKING

from passtpy.lean import import_without

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

_uvloop = import_without("uvloop", ("ssl",))


def new_event_loop() -> "AbstractEventLoop":
    """Make a loop; raise OSError if no pipe can be had.

    libuv needs one for signals, and without it ends the process without a word.
    """
    for fd in os.pipe():
        os.close(fd)
    loop: AbstractEventLoop = _uvloop.new_event_loop()
    return loop
