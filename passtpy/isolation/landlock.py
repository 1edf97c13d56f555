# SPDX-License-Identifier: GPL-2.0-or-later
"""Forbids a process what the kernel's Landlock (landlock(7)) knows how to forbid.

All files but those of a rule, TCP ports where a process needs none, abstract local
sockets and signals to anybody else. It holds where there is no empty root, and where
`--seccomp=off` has left all system calls. What is open already stays open, with the
rights that it was opened with.
"""

import os
from collections.abc import Sequence
from typing import Final

from passtpy import _native
from passtpy.isolation.calls import Process

# Kinds of access to files, and the version of Landlock that has the last of them
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_FILE: Final = 1 << 5
_MAKE_REG: Final = 1 << 8
_MAKE_SOCK: Final = 1 << 9
_TRUNCATE: Final = 1 << 14
_FILES: Final = ((1, 13), (2, 14), (3, 15), (5, 16))  # version, how many kinds it knows
_BIND_TCP: Final = 1 << 0
_CONNECT_TCP: Final = 1 << 1
_NETWORK_SINCE: Final = 4
_ABSTRACT: Final = 1 << 0
_SIGNAL: Final = 1 << 1
_SCOPES_SINCE: Final = 6

READ: Final = _READ_FILE | _READ_DIR
# _TRUNCATE: the daemon gets the descriptor, and makes room in a log file that is full.
APPEND: Final = READ | _WRITE_FILE | _MAKE_REG | _TRUNCATE
REMOVE: Final = _REMOVE_FILE
SOCKETS: Final = _MAKE_SOCK | _REMOVE_FILE
TURN: Final = APPEND | _REMOVE_FILE  # the old name is one that is removed


P = Process
_FORBIDDEN_PORTS: Final = {
    P.PASTA: 0,  # flows and forwards have any port
    P.PASST: 0,
    P.FACTORY: _CONNECT_TCP,  # listeners have any; the daemon is who connects
    P.INIT: _CONNECT_TCP,
    P.LOOKOUT: _BIND_TCP | _CONNECT_TCP,
}

Beneath = Sequence[tuple[int, int]]  # an open folder, what is allowed below it


def files(version: int) -> int:
    """Return every kind of access to files that this version knows."""
    return (1 << max(many for since, many in _FILES if since <= version)) - 1


def restrict(
    process: Process, beneath: Beneath = (), may_signal: bool = False
) -> OSError | None:
    """Forbid it all, but for what `beneath` allows; return what failed, if it did.

    `may_signal`: a command, which was started without any rules. Privileges cannot be
    gained any more by then, and there is one thread.
    """
    try:
        version = _native.landlock_version()
        every = files(version)
        network = _FORBIDDEN_PORTS[process] if version >= _NETWORK_SINCE else 0
        scopes = _ABSTRACT if may_signal else _ABSTRACT | _SIGNAL
        if version < _SCOPES_SINCE:
            scopes = 0
        rules = _native.landlock_rules(every, network, scopes)
        try:
            for folder, allowed in beneath:
                _native.landlock_allow(rules, folder, allowed & every)
            _native.landlock_restrict(rules)
        finally:
            os.close(rules)
    except OSError as error:
        return error
    return None
