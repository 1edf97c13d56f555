# SPDX-License-Identifier: GPL-2.0-or-later
"""Gives up, in numbered stages, everything that the daemon no longer needs.

1. limits.raise_files: every flow needs a descriptor
2. close_inherited: descriptors that a careless parent left open (daemons only)
3. imports: whatever Python would still import later
4. leave_files: an empty root in namespaces of its own; another user, when root
5. lock: no folder, no capabilities, no way to gain any, no debugger, no core
6. restrict: what Landlock knows how to forbid, files above all
7. shut: no other system call than those of calls.py

Sockets, files and the tap are open by stage 4. An ordinary user's daemon never had
privileges over anything; what it did in its namespaces was done by a child, which goes
through the last stages as well.
"""

import importlib
import os
import resource
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from errno import EPERM
from typing import Final

from passtpy import _native
from passtpy.config.model import RunAs, Seccomp
from passtpy.errors import SetupError
from passtpy.isolation import landlock, root
from passtpy.isolation.calls import Process
from passtpy.isolation.filter import install, refuse_io_uring

CAP_KILL: Final = 1 << 5
CAP_NET_BIND_SERVICE: Final = 1 << 10
CAP_NET_ADMIN: Final = 1 << 12
CAP_NET_RAW: Final = 1 << 13
CAP_SETGID: Final = 1 << 6
CAP_SETUID: Final = 1 << 7
# For ports below 1024, addresses and routes, devices to bind to
MAKES_SOCKETS: Final = CAP_NET_BIND_SERVICE | CAP_NET_ADMIN | CAP_NET_RAW
_FIRST_FREE_FD: Final = 3
_CLONE_FILES: Final = 0x400
_INITIAL_USERNS_MAP: Final = ["0", "0", "4294967295"]
# Whatever is first used while we serve: by then there may be no descriptor left to read
# it with, or an upgrade has put another version in its place.
_USED_LATER: Final = (
    "passtpy.net.following.follow",
    "passtpy.net.host.lookout_process",
    "passtpy.reloading",
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


def stay_in_namespace(keep: Collection[int], seccomp: Seccomp) -> None:
    """Be nothing but a maker of sockets, that holds on to nothing else.

    Whoever waits for the standard descriptors of the daemon must not wait for us;
    signals to its process group are not for us: we end with the socket in `keep`.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    _leave_files()  # while somebody hears that it failed
    _be_small(MAKES_SOCKETS)
    landlock.restrict(Process.FACTORY)
    _shut_in(Process.FACTORY, null, keep, seccomp)


def stay_as_init(null: int, keep: Collection[int], seccomp: Seccomp) -> None:
    """Be the first process of a command's namespaces, that holds on to nothing else.

    `null` was opened before the command ran, which may change what names mean here.
    """
    _leave_files()  # while somebody hears that it failed
    _be_small(MAKES_SOCKETS | CAP_KILL)
    landlock.restrict(Process.INIT, may_signal=True)
    _shut_in(Process.INIT, null, keep, seccomp)


def _leave_files() -> None:
    """See no file any more, if the rights that we have here allow it."""
    failed = root.enter(may_chroot=False)
    if failed is not None:
        text = f"pasta: No empty root in the namespace: {failed.strerror}\n"
        os.write(2, text.encode())


def _shut_in(
    process: Process, null: int, keep: Collection[int], seccomp: Seccomp
) -> None:
    """Hold only these, then shut the door; if it does not shut, say so and end."""
    stderr = os.dup(2)
    hold_only(null, {*keep, stderr})
    try:
        shut(process, seccomp)
    except SetupError as error:
        os.write(stderr, f"pasta: {error}\n".encode())
        raise
    finally:
        os.close(stderr)


def hold_only(null: int, keep: Collection[int]) -> None:
    """Close everything else, and put `null` in the place of the standard ones."""
    for fd in range(_FIRST_FREE_FD):
        os.dup2(null, fd)
    _close_others((*range(_FIRST_FREE_FD), *keep))


def _close_others(keep: Collection[int]) -> None:
    low = 0
    for fd in sorted(keep):
        if low < fd:  # CPython 3.11 takes an empty range at 0 for everything
            os.closerange(low, fd)
        low = max(low, fd + 1)
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def hold_in_thread(keep: Collection[int]) -> bool:
    """Hold only these in this thread, in a table of its own; False: it has none.

    A table that is shared has the kernel count, at every call of every thread, who uses
    the descriptor: a fifth of what a short call takes.
    """
    try:
        _native.unshare(_CLONE_FILES)
    except OSError:
        return False
    _close_others(keep)
    return True


def _be_small(capabilities: int) -> None:
    """Keep no folder, no core, no debugger, and no more rights than these."""
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _native.keep_capabilities(capabilities)
    _native.no_new_privs()
    _native.set_dumpable(0)


def keep_debuggers_away() -> None:
    """Be seen by nobody, before we join the namespaces of others."""
    _native.set_dumpable(0)


def imports(more: Sequence[str] = ()) -> Iterator[str]:
    """Import what will be used later, a module with each step, `more` at the end.

    All of it takes a third as long as the rest of the start, while a command starts
    already; but once and for all.
    """
    for name in (*_USED_LATER, *more):
        importlib.import_module(name)
        yield name


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


def leave_files(user: RunAs | None, may_chroot: bool) -> str | None:
    """Become `user`, and see no file any more; return why we still do, if we do."""
    failed = root.enter(may_chroot)
    if user is not None:
        become(user)
    if failed is not None and failed.errno == EPERM:
        failed = root.enter(may_chroot, as_user=True)
    return None if failed is None else failed.strerror or str(failed)


def lock() -> None:
    """Leave the folder, drop every capability for good, keep debuggers away."""
    try:
        _be_small(0)
    except OSError as error:
        raise SetupError(f"Couldn't drop privileges: {error.strerror}") from error


def restrict(
    process: Process, beneath: landlock.Beneath = (), may_signal: bool = False
) -> str | None:
    """Obey the kernel's Landlock from now on; return why not, if there is none."""
    failed = landlock.restrict(process, beneath, may_signal)
    return None if failed is None else failed.strerror or str(failed)


def refuse_rings() -> None:
    """Have the loop do without io_uring, before it is made."""
    try:
        refuse_io_uring()
    except OSError as error:
        raise SetupError(f"Couldn't filter calls: {error.strerror}") from error


def shut(process: Process, seccomp: Seccomp) -> bool:
    """Make no other system call than those of the table; False: there is no filter."""
    try:
        return install(process, seccomp)
    except OSError as error:
        raise SetupError(f"Couldn't filter calls: {error.strerror}") from error
