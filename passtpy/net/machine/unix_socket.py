# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the UNIX socket of virtual machines: one with a name, or an inherited one.

The name is taken with care: what is there already may be a socket that somebody serves,
one that was left behind, or no socket at all, and only the second may be replaced. To
find out nobody is disturbed: a connection of the wrong type is refused by the kernel
in one way if the socket is alive and in another if it is not.
"""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EADDRINUSE, ECONNREFUSED, EPROTOTYPE
from typing import Final

from passtpy.config.model import Machine, RunAs, ServeFd
from passtpy.errors import SetupError
from passtpy.record import record

DEFAULT_PATHS: Final = tuple(f"/tmp/passt_{n}.socket" for n in range(1, 65))  # noqa: S108
BACKLOG: Final = 128  # who comes second is refused, but not made to wait
_FIRST_FREE_FD: Final = 3


@record
class MachineSocket:
    """A listening socket with its name (`path`), or a machine that is here already."""

    sock: socket.socket
    path: str | None = None
    identity: tuple[int, int] = (0, 0)  # device and inode of the name

    @property
    def listens(self) -> bool:
        """Tell whether more than one machine can come, one after the other."""
        return self.path is not None

    def close(self) -> None:
        """Close the socket, and remove its name if it is still ours and we may."""
        self.sock.close()
        if self.path is not None:
            with suppress(OSError):
                if _identity(self.path) == self.identity:
                    os.unlink(self.path)


class _Taken(Exception):
    """The name cannot be ours; the text tells why."""


def open_socket(machine: Machine, user: RunAs | None) -> MachineSocket:
    """Open what the command line asks for; SetupError when that cannot be.

    `user` is whom we become later: the name shall belong to it.
    """
    if isinstance(machine, ServeFd):
        return MachineSocket(_inherited(machine.fd))
    if machine.path is not None:
        try:
            return _open(machine.path, user)
        except _Taken as error:
            raise SetupError(str(error)) from error
    for path in DEFAULT_PATHS:
        with suppress(_Taken):
            return _open(path, user)
    raise SetupError(f"No free socket path: {DEFAULT_PATHS[0]} to {DEFAULT_PATHS[-1]}")


def _inherited(fd: int) -> socket.socket:
    """Return the socket behind a descriptor of our caller, moved out of the way."""
    try:
        sock = _socket_of(os.dup(fd))
        try:
            _check_connected(sock)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise SetupError(f"Invalid --fd: {fd}: {error.strerror}") from error
    sock.set_inheritable(False)
    if fd >= _FIRST_FREE_FD:
        os.close(fd)
    return sock


def _socket_of(fd: int) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise


def _check_connected(sock: socket.socket) -> None:
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        raise OSError(EPROTOTYPE, "not a stream socket")
    sock.getpeername()


def _open(path: str, user: RunAs | None) -> MachineSocket:
    """Make the name, as `user` where it may: then it belongs to it."""
    if user is not None and os.geteuid() == 0:
        # It may fail in a folder of root's, or for a stale file of root's in another.
        with suppress(OSError), _as_user(user):
            return _listen(path)
    try:
        return _listen(path)
    except OSError as error:
        text = f"Couldn't open socket {path}: {error.strerror}"
        raise _Taken(text) from error


@contextmanager
def _as_user(user: RunAs) -> Iterator[None]:
    before = os.geteuid(), os.getegid()
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


def _listen(path: str) -> MachineSocket:
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == EADDRINUSE:  # by somebody who was faster
            raise _Taken(f"Socket path {path} already in use") from error
        raise
    absolute = os.path.abspath(path)
    return MachineSocket(sock, absolute, _identity(absolute))


def _make_way(path: str) -> None:
    """Remove a socket that was left behind; _Taken for anything else."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise _Taken(f"Socket path {path} is no socket")
    if _is_alive(path):
        raise _Taken(f"Socket path {path} already in use")
    with suppress(FileNotFoundError):
        os.unlink(path)


def _is_alive(path: str) -> bool:
    """Tell whether somebody holds the socket, without them noticing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except PermissionError:
            raise
        except OSError as error:
            return error.errno != ECONNREFUSED
    return True


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
