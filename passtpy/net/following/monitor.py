# SPDX-License-Identifier: GPL-2.0-or-later
"""Has somebody look at the host's network soon after it may have changed.

The kernel announces every link, address and route that changes; a change of network
makes dozens of such messages. They count as one, and what they say is not
read, for the whole is looked at again: nothing is ever missed because a message was.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from passtpy.net.kernel.nlmsg import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
)

SETTLE_S: Final = 0.1  # for what belongs together to come together
_REST: Final = 10  # times as long as a look took: so much later is the next one
_MAX_REST_S: Final = 5.0
_RECEIVE_LEN: Final = 1 << 16
_RECEIVES: Final = 64  # of messages between turns

GROUPS: Final = (
    RTMGRP_LINK
    | RTMGRP_IPV4_IFADDR
    | RTMGRP_IPV4_ROUTE
    | RTMGRP_IPV6_IFADDR
    | RTMGRP_IPV6_ROUTE
)


def open_announcements() -> socket.socket:
    """Open a socket that is readable when the kernel has announced a change."""
    sock = socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        socket.NETLINK_ROUTE,
    )
    sock.bind((0, GROUPS))
    return sock


class Watch(Protocol):
    """Calls back when a file may say something else."""

    def start(self, changed: Callable[[], None], /) -> None: ...

    def close(self) -> None: ...


class Monitor:
    """Has somebody look soon after anything has changed, never twice at a time."""

    def __init__(self, resolv: Watch) -> None:
        self._sock = open_announcements()
        self._resolv = resolv
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look: Callable[[], Awaitable[None]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = False
        self._rest_until = 0.0

    def start(
        self, loop: asyncio.AbstractEventLoop, look: Callable[[], Awaitable[None]]
    ) -> None:
        """Watch from now on."""
        self._loop, self._look = loop, look
        loop.add_reader(self._sock.fileno(), self._on_message)
        self._resolv.start(self.touch)

    async def stop(self) -> None:
        """Stop watching; a look that has begun ends here."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        loop.remove_reader(self._sock.fileno())
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def close(self) -> None:
        """Release what was opened; it was stopped before."""
        self._resolv.close()
        self._sock.close()

    def touch(self) -> None:
        """Look soon."""
        self._wanted = True
        if self._loop is None or self._timer is not None or self._task is not None:
            return
        rest = self._rest_until - self._loop.time()
        self._timer = self._loop.call_later(max(SETTLE_S, rest), self._begin)

    def touch_later(self, delay: float) -> None:
        """Look after a while, changed or not."""
        if self._loop is not None:
            self._loop.call_later(delay, self.touch)

    def _on_message(self) -> None:
        for _ in range(_RECEIVES):
            try:
                self._sock.recv(_RECEIVE_LEN)
            except OSError:  # no more; or some were lost, which makes no difference
                break
        self.touch()

    def _begin(self) -> None:
        self._timer = None
        if self._loop is not None:
            self._wanted = False
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        assert self._loop is not None
        assert self._look is not None
        began = self._loop.time()
        try:
            await self._look()
        finally:
            self._task = None
        now = self._loop.time()
        self._rest_until = now + min((now - began) * _REST, _MAX_REST_S)
        if self._wanted:
            self.touch()
