# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists what a daemon imports once it has begun to start, in the order of its needs.

Whatever is used only while it serves is listed in isolation/stages.py.
"""

from typing import Final

OPENING: Final = (
    "passtpy.net.namespace.factory_client",
    "passtpy.datapath",
    "passtpy.net.forwarding.listeners",
    "passtpy.net.host.resolv",
)
# One by one, so that a command which has ended need not wait for the rest. Each takes
# some milliseconds; the event loop, in which there is no stopping, comes late: by then
# a short command has ended.
SERVING: Final = (
    "passtpy.policy.rules",
    "passtpy.policy.decide",
    "passtpy.wire.ndp",
    "passtpy.services.ra",
    "passtpy.services.registry",
    "traceback",
    "logging",
    "subprocess",
    "inspect",
    "passtpy.net.kernel.eventloop",
    "passtpy.engine",
)
# Imported one by one: each takes some milliseconds, between which packets move.
CONTROL: Final = (
    "h11",
    "passtpy.control.http",
    "passtpy.control.verbs",
    "passtpy.policy.question",
    "passtpy.controlled",
)
