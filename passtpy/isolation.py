# SPDX-License-Identifier: GPL-2.0-or-later
"""Gives up, in numbered stages, everything that the daemon no longer needs.

1. limits.raise_files: every flow needs a descriptor
2. close_inherited: descriptors that a careless parent left open (daemons only)
3. imports: whatever Python would still import later; before stage 4 if the next user
   cannot read it, else while the first packets move
4. become: another user, when started by root
5. lock: no capabilities, no way to gain any, no debugger

Sockets, files and the tap are open by stage 4. An ordinary user's daemon never had
privileges over anything; what it did in its namespaces was done by a child.
"""

import importlib
import os
import resource
import signal
import stat
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Final

from passtpy import _native
from passtpy.config.model import RunAs
from passtpy.errors import SetupError

CAP_KILL: Final = 1 << 5
CAP_NET_BIND_SERVICE: Final = 1 << 10
CAP_NET_ADMIN: Final = 1 << 12
CAP_NET_RAW: Final = 1 << 13
CAP_SETGID: Final = 1 << 6
CAP_SETUID: Final = 1 << 7
# For ports below 1024, addresses and routes, devices to bind to
MAKES_SOCKETS: Final = CAP_NET_BIND_SERVICE | CAP_NET_ADMIN | CAP_NET_RAW
_FIRST_FREE_FD: Final = 3
_INITIAL_USERNS_MAP: Final = ["0", "0", "4294967295"]
# Whatever is first used while we serve: by then there may be no descriptor left to read
# it with, or an upgrade has put another version in its place.
_USED_LATER: Final = (
    "passtpy.structured",
    "json",
    "random",
    "encodings.idna",
    "passtpy.services.dhcp",
    "passtpy.services.dhcpv6",
    "passtpy.services.duid",
    "passtpy.control.stats",
    "passtpy.net.kernel.ping",
)
_SPARE_FDS: Final = 2  # a folder and a file, or a library that needs another one
_NOBODY: Final = RunAs(65534, 65534)


def inherited(keep: Collection[int] = ()) -> list[int]:
    """Return every descriptor but the standard ones, while nothing of ours is open."""
    found = [int(name) for name in os.listdir("/proc/self/fd")]
    return [
        fd for fd in found if fd >= _FIRST_FREE_FD and fd not in keep and _is_open(fd)
    ]


def _is_open(fd: int) -> bool:
    """Tell whether it is; the one that listed the others is not."""
    with suppress(OSError):
        os.fstat(fd)
        return True
    return False


def close_inherited(fds: list[int]) -> None:
    """Close what a parent left open, once the names that lead there are used."""
    for fd in fds:
        os.close(fd)


def stay_in_namespace(keep_fd: int) -> None:
    """Be nothing but a maker of sockets, that holds on to nothing else.

    Whoever waits for the standard descriptors of the daemon must not wait for us;
    signals to its process group are not for us: we end with `keep_fd`.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    _be_small(MAKES_SOCKETS)  # while somebody hears that it failed
    _hold_only(os.open(os.devnull, os.O_RDWR), {keep_fd})


def stay_as_init(null: int, keep: Collection[int]) -> None:
    """Be the first process of a command's namespaces, that holds on to nothing else.

    `null` was opened before the command ran, which may change what names mean here.
    """
    _be_small(MAKES_SOCKETS | CAP_KILL)  # while somebody hears that it failed
    _hold_only(null, keep)


def _hold_only(null: int, keep: Collection[int]) -> None:
    """Close everything else, and put `null` in the place of the standard ones."""
    for fd in range(_FIRST_FREE_FD):
        os.dup2(null, fd)
    low = _FIRST_FREE_FD
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = max(low, fd + 1)
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _be_small(capabilities: int) -> None:
    """Keep no folder, no debugger, and no more rights than these."""
    os.chdir("/")
    _native.keep_capabilities(capabilities)
    _native.no_new_privs()
    _native.set_dumpable(0)


def keep_debuggers_away() -> None:
    """Be seen by nobody, before we join the namespaces of others."""
    _native.set_dumpable(0)


def imports(more: Sequence[str] = ()) -> Iterator[str]:
    """Import what will be used later, a module with each step, `more` at the end.

    All of it takes a third as long as the rest of the start; so it is done while a
    command starts, or between the first packets, but once and for all. Those may use
    up all descriptors: what an import needs is kept from now on.
    """
    return _import_each((*_USED_LATER, *more), _spare())


def _spare() -> list[int]:
    """Return descriptors of nothing, to be closed for somebody who needs some."""
    return [os.open(os.devnull, os.O_RDONLY) for _ in range(_SPARE_FDS)]


def _import_each(names: Sequence[str], spare: list[int]) -> Iterator[str]:
    for name in names:
        for fd in spare:
            os.close(fd)
        importlib.import_module(name)
        spare = _spare()
        yield name
    for fd in spare:
        os.close(fd)


def can_be_read_later() -> bool:
    """Tell whether another user may read what is yet to be imported."""
    return all(map(_is_open_to_all, (__file__, os.__file__, sys.prefix)))


def _is_open_to_all(path: str) -> bool:
    """Tell whether another user may go to `path`; a home may be closed to it."""
    folder = os.path.realpath(path)
    while folder != "/":
        folder = os.path.dirname(folder)
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return False
    return True


def end_with_parent(number: int) -> None:
    """Get this signal when the parent ends; 0: stay when it does."""
    _native.set_pdeathsig(number)


def in_initial_userns() -> bool:
    """Tell whether uid 0 here is the machine's root."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split() == _INITIAL_USERNS_MAP
    except OSError:
        return True


def user_to_become(runas: RunAs | None) -> RunAs | None:
    """Return whom to become: --runas, nobody for the machine's root, else None."""
    if runas is not None:
        return runas
    if os.geteuid() == 0 and in_initial_userns():
        return _nobody()
    return None


def _nobody() -> RunAs:
    """Look `nobody` up where it is not the usual number."""
    import pwd

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return _NOBODY
    return RunAs(entry.pw_uid, entry.pw_gid)


def become(user: RunAs) -> None:
    """Change user and group for good, without any supplementary group."""
    if (os.geteuid(), os.getegid()) == (user.uid, user.gid):
        return
    try:
        # Taken from the bounding set first: that needs a privilege of its own.
        with suppress(OSError):
            _native.keep_capabilities(CAP_SETUID | CAP_SETGID)
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise SetupError(
            f"Can't become user {user.uid}:{user.gid}: {error.strerror}"
        ) from error


def lock() -> None:
    """Leave the folder, drop every capability for good, keep debuggers away."""
    try:
        _be_small(0)
    except OSError as error:
        raise SetupError(f"Couldn't drop privileges: {error.strerror}") from error
