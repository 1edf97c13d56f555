# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds, joins and makes namespaces, and tells when that of the guest is gone."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from errno import EINVAL, ENOSPC, EPERM
from typing import Final

from passtpy import _native
from passtpy.config.model import AttachPath, AttachPid, Config
from passtpy.errors import SetupError
from passtpy.net.kernel.inotify import (
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_MOVED_FROM,
    inotify_events,
)
from passtpy.net.kernel.loop import Loop
from passtpy.record import record

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

NETNS_DIR: Final = "/run/netns"

Place = tuple[int, str]


@record
class Namespaces:
    """Open descriptors of the namespaces to join."""

    net: int
    user: int | None

    def close(self) -> None:
        """Close both."""
        os.close(self.net)
        if self.user is not None:
            os.close(self.user)


def netns_path(target: AttachPid | AttachPath) -> str:
    """Return where the kernel shows the network namespace."""
    if isinstance(target, AttachPid):
        return f"/proc/{target.pid}/ns/net"
    return target.path if "/" in target.path else f"{NETNS_DIR}/{target.path}"


def name_to_watch(path: str) -> str | None:
    """Return the name whose end is that of the namespace; None: it has none.

    A descriptor of ours, or of the caller that started us in the background, is only a
    way to the name: it is closed while the namespace lives.
    """
    folder, number = os.path.split(os.path.abspath(path))
    ours = [f"/proc/{pid}/fd" for pid in (os.getpid(), os.getppid())]
    if os.path.realpath(folder) not in ours or not number.isdecimal():
        return path
    with suppress(OSError):
        name = os.readlink(path)
        if os.path.samefile(name, path):
            return name
    return None


def userns_path(config: Config) -> str | None:
    """Return the user namespace to join first, if any.

    A network namespace given by its path alone is joined from where we are.
    """
    if config.userns is not None:
        return config.userns
    if isinstance(config.target, AttachPid) and not config.netns_only:
        return f"/proc/{config.target.pid}/ns/user"
    return None


def open_namespaces(config: Config, target: AttachPid | AttachPath) -> Namespaces:
    """Open what `config` asks to join; SetupError when it is not there."""
    net = _open("network", netns_path(target))
    path = userns_path(config)
    try:
        user = None if path is None else _open("user", path)
    except SetupError:
        os.close(net)
        raise
    if user is not None and os.path.samestat(
        os.fstat(user), os.stat("/proc/self/ns/user")
    ):
        os.close(user)  # the kernel refuses to join the namespace one is in
        user = None
    return Namespaces(net, user)


def _open(kind: str, path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SetupError(
            f"Couldn't open {kind} namespace {path}: {error.strerror}"
        ) from error


def join(namespaces: Namespaces) -> None:
    """Move this process, which has one thread, into the namespaces."""
    joins = [("network", namespaces.net, CLONE_NEWNET)]
    if namespaces.user is not None:
        joins.insert(0, ("user", namespaces.user, CLONE_NEWUSER))
    for kind, fd, flag in joins:
        try:
            _native.setns(fd, flag)
        except OSError as error:
            reason = "not a namespace" if error.errno == EINVAL else error.strerror
            raise SetupError(f"Couldn't join {kind} namespace: {reason}") from error


def clone(flags: int) -> int:
    """Fork into new namespaces; SetupError when the system does not allow it."""
    try:
        return _native.clone_namespaces(flags)
    except OSError as error:
        reason = error.strerror
        if error.errno == EPERM:
            reason = "operation not permitted; are user namespaces disabled?"
        elif error.errno == ENOSPC:
            reason = "too many; see /proc/sys/user/max_user_namespaces"
        elif error.errno == EINVAL:
            reason = "not supported by this kernel"
        raise SetupError(f"Couldn't create namespaces: {reason}") from error


def map_root(uid: int, gid: int) -> None:
    """Let `uid` and `gid` outside be root in the user namespace we just entered."""
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1\n")
        _write("/proc/self/gid_map", f"0 {gid} 1\n")
    except OSError as error:
        raise SetupError(
            f"Couldn't map user {uid} into the namespace: {error.strerror}"
        ) from error


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def allow_ping() -> None:
    """Let root in this network namespace use ping sockets, where that is possible."""
    with suppress(OSError):  # read-only /proc/sys: `ping` needs its own privilege then
        _write("/proc/sys/net/ipv4/ping_group_range", "0 0")


class NetnsWatch:
    """Calls back once when the namespace's name disappears.

    A name on an ordinary file system is watched with inotify, a process through a
    pidfd. Any other name has to be looked up again and again (below /proc there are no
    events), by whoever still sees files when we do not: `place` says where. Create the
    watch before opening the namespace, so that no deletion falls between the two.
    """

    def __init__(self, path: str) -> None:
        parent, self._name = os.path.split(os.path.abspath(path))
        self._inotify = -1
        self._pidfd = -1
        self._directory = -1
        self._loop: Loop | None = None
        self._gone: Callable[[], None] = lambda: None
        process = re.fullmatch(r"/proc/([0-9]+)/ns/net", path)
        try:
            if process:
                self._pidfd = os.pidfd_open(int(process[1]))
                return
            if not path.startswith("/proc/"):
                with suppress(OSError):  # no instance left: it is looked up
                    events = IN_DELETE | IN_MOVED_FROM | IN_DELETE_SELF
                    self._inotify = _native.inotify_watch(parent, events)
                    return
            # Held open, because we may lose the right to search the way to it.
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            self._directory = os.open(parent, flags)
        except OSError as error:
            raise SetupError(
                f"Couldn't open network namespace {path}: {error.strerror}"
            ) from error

    @property
    def place(self) -> Place | None:
        """Return an open folder and the name in it, if it has to be looked up."""
        return None if self._directory < 0 else (self._directory, self._name)

    def leave_place(self) -> None:
        """Close the folder: whoever looks has it by now."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def start(self, loop: Loop, gone: Callable[[], None]) -> None:
        """Call `gone` from `loop` once the name has disappeared."""
        self._loop = loop
        self._gone = gone
        if self._pidfd >= 0:
            loop.add_reader(self._pidfd, self.tell)
        elif self._inotify >= 0:
            loop.add_reader(self._inotify, self._on_inotify)

    def close(self) -> None:
        """Stop watching."""
        loop, self._loop = self._loop, None
        for fd in (self._pidfd, self._inotify):
            if loop is not None and fd >= 0:
                loop.remove_reader(fd)
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._inotify = -1
        self.leave_place()

    def tell(self) -> None:
        """Call back: it is gone."""
        gone = self._gone
        self.close()
        gone()

    def _on_inotify(self) -> None:
        name = os.fsencode(self._name)
        for mask, found in inotify_events(os.read(self._inotify, 1 << 16)):
            if mask & (IN_DELETE_SELF | IN_IGNORED) or found == name:
                self.tell()
                return
