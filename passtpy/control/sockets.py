# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the control sockets, while we still may: they are served later.

The native one is made without being asked for, where every user keeps such things; if
that cannot be, nobody has to know. One that was asked for is worth an error.
"""

import os
import socket
import stat
from contextlib import suppress
from errno import EADDRINUSE
from typing import Final

from passtpy.addr import Address
from passtpy.config.instance import SUFFIX, runtime_folder
from passtpy.config.model import Config
from passtpy.errors import SetupError
from passtpy.log import Log
from passtpy.net.kernel.local import listen, make_way

_FOLDER_MODE: Final = 0o755


class ControlSockets:
    """The listening sockets, made before privileges are given up."""

    def __init__(self, config: Config, log: Log) -> None:
        self.made: dict[str, socket.socket] = {}
        self.owner = os.geteuid()  # who started us; we may become another user
        self.owned: list[str] = []
        self._open_native(config, log)
        for kind, path in (
            ("pesto", config.conf_path),
            ("slirp", config.api_socket),
            ("gvproxy", config.gvproxy_services),
        ):
            if path is not None:
                self.made[kind] = _listen(path)
                self.owned.append(path)
        if config.metrics is not None:
            self.made["metrics"] = _listen_tcp(*config.metrics)

    def _open_native(self, config: Config, log: Log) -> None:
        if not config.control_enabled:
            return
        if config.control is not None:
            self.made["native"] = _listen(config.control)
            self.owned.append(config.control)
            return
        path = _usual_path(config)
        if path is None:
            return
        _sweep(os.path.dirname(path))
        try:  # nobody asked for it: not worth an error
            self.made["native"] = listen(path)
            self.owned.append(path)
        except OSError as error:
            if config.name is not None and isinstance(error, FileExistsError):
                raise SetupError(f"an instance is called {config.name}") from None
            log.debug("control.off", path=path, reason=error.strerror or str(error))

    def close(self) -> None:
        """Remove what we may remove; the rest is known as stale by connecting."""
        for path in self.owned:
            with suppress(OSError):
                os.unlink(path)


def _usual_path(config: Config) -> str | None:
    """Return where the control socket of this instance is, and see to its folder."""
    folder = runtime_folder()
    if folder is None:
        return None
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, _FOLDER_MODE)
        found = os.lstat(folder)
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return None  # somebody else's: no place for us
    return os.path.join(folder, (config.name or str(os.getpid())) + SUFFIX)


def _sweep(folder: str) -> None:
    """Remove what daemons left that were named after their PID, and are no more.

    Those of root may not remove their own: they have become another user by the end.
    Who has such a PID may be about to listen, and one that is not seen here may live
    in another PID namespace: both have to say nothing.
    """
    try:
        entries = os.listdir(folder)
    except OSError:
        return
    for entry in entries:
        pid = entry.removesuffix(SUFFIX)
        if pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            with suppress(OSError):
                make_way(os.path.join(folder, entry))


def _listen(path: str) -> socket.socket:
    try:
        return listen(path)
    except FileExistsError as error:
        if error.errno == EADDRINUSE:
            raise SetupError(f"Socket path {path} already in use") from None
        raise SetupError(f"Socket path {path} is no socket") from None
    except OSError as error:
        raise SetupError(f"Couldn't listen at {path}: {error.strerror}") from error


def _listen_tcp(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        return socket.create_server((str(address), port), family=family)
    except OSError as error:
        reason = f"Couldn't listen for metrics at {address} port {port}"
        why = os.strerror(error.errno) if error.errno else str(error)
        raise SetupError(f"{reason}: {why}") from error
