# SPDX-License-Identifier: GPL-2.0-or-later
"""The program passtpy-slirp4netns: what slirp4netns' callers expect, served by us.

It stays in the foreground, says on a descriptor that the network is there, and ends
when another descriptor is closed at its other end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from passtpy import __version__
from passtpy.config.model import AttachPath, AttachPid
from passtpy.config.slirp import USAGE, SlirpLine, parse_slirp
from passtpy.errors import ConfigError, InformationRequest

if TYPE_CHECKING:
    from passtpy.log import Log
    from passtpy.session import Session

EXIT_OK = 0
_INTERFACES = "/sys/class/net"


def run(words: Sequence[str]) -> int:
    """Serve a namespace until we are told to end; return the exit status."""
    line = parse_slirp(words)
    if line.asks == "help":
        raise InformationRequest(USAGE)
    if line.asks == "version":
        raise InformationRequest(f"slirp4netns version {__version__} (passtpy)\n")
    _check(line)
    from passtpy import daemon  # only now: --help needs nothing of it

    class SlirpCaller(daemon.Caller):
        """Who has descriptors of ours to learn of us, and to end us."""

        def ready(self, _log: Log) -> None:
            """Tell on the descriptor, and on standard output."""
            with suppress(OSError):  # nobody has to read it
                sys.stdout.write(line.banner())
                sys.stdout.flush()
            if line.ready_fd >= 0:
                with suppress(OSError):
                    os.write(line.ready_fd, b"1")
                    os.close(line.ready_fd)

        def watch(self, session: Session) -> None:
            """End the session when the descriptor has something to say, or is gone."""
            if line.exit_fd >= 0:
                session.loop.add_reader(line.exit_fd, partial(session.stop, EXIT_OK))

    target = line.config.target
    assert isinstance(target, AttachPid | AttachPath)
    return daemon.attach(line.config, target, SlirpCaller())


def _check(line: SlirpLine) -> None:
    """Look whether what the line names is there, in the words that callers know."""
    config, target = line.config, line.config.target
    if isinstance(target, AttachPath) and not os.path.exists(target.path):
        raise ConfigError(
            "existing path expected when --netns-type=path: No such file or directory"
        )
    if config.userns is not None and not os.path.exists(config.userns):
        raise ConfigError(f"userns path doesn't exist: {config.userns}")
    for option, name in (
        ("outbound-addr", config.outbound_if4),
        ("outbound-addr6", config.outbound_if6),
    ):
        if name is not None and not os.path.exists(f"{_INTERFACES}/{name}"):
            family = "ipv6" if option.endswith("6") else "ipv4"
            raise ConfigError(
                f"{option} has to be valid {family} address or interface name."
            )
    for option, fd in (("ready-fd", line.ready_fd), ("exit-fd", line.exit_fd)):
        if fd >= 0:
            try:
                os.fstat(fd)
            except OSError as error:
                raise ConfigError(f"{option} {fd}: {error.strerror}") from None
