# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes over the listening sockets that systemd passes: sd_listen_fds(3), in our words.

They are the descriptors from 3 on, as many as $LISTEN_FDS says, with the names in
$LISTEN_FDNAMES, for the process $LISTEN_PID. The variables go: a command that we run
is passed nothing.
"""

import os
import socket
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from typing import Final

from passtpy.addr import Address
from passtpy.config.forwards import tables_from_config
from passtpy.config.model import Config
from passtpy.config.passed import Passed, Wanted
from passtpy.config.portrule import PortRule, RuleError
from passtpy.config.ports import read_address
from passtpy.errors import ConfigError
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP
from passtpy.net.kernel.listen import udp_options
from passtpy.record import replace

FIRST: Final = 3
_UNNAMED: Final = "unknown"  # what systemd calls a socket whose unit has no name
_PROTOS: Final = {socket.SOCK_STREAM: IPPROTO_TCP, socket.SOCK_DGRAM: IPPROTO_UDP}
_IFNAME_ROOM: Final = 16


def with_passed(
    config: Config, environ: MutableMapping[str, str], pid: int, first: int = FIRST
) -> Config:
    """Return the configuration with the sockets that it wants, and their ports.

    ConfigError if one was not passed. Those that nobody wants are closed.
    """
    passed = _take(environ, pid, first)
    used: dict[int, Passed] = {}
    host, *_ = tables_from_config(config)
    for wanted in config.wanted_sockets:
        for it in _chosen(wanted, passed):
            try:
                host = host.add(_rule(wanted, it))
            except RuleError as error:
                raise ConfigError(str(error)) from None
            used[it.fd] = it
    for it in passed:
        if it.fd not in used:
            os.close(it.fd)
    sockets = tuple(used.values())
    return replace(config, host_ports=host.rules, passed_sockets=sockets)


def _take(environ: MutableMapping[str, str], pid: int, first: int) -> Sequence[Passed]:
    """Return what was passed to this process, and keep it from all others."""
    meant = environ.pop("LISTEN_PID", "") == str(pid)
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if not meant or not count.isdecimal():
        return ()
    found = []
    for nth in range(int(count)):
        os.set_inheritable(first + nth, False)
        name = names[nth] if nth < len(names) and names[nth] else _UNNAMED
        it = _look(first + nth, name)
        if it is None:
            os.close(first + nth)
        else:
            found.append(it)
    return found


def _look(fd: int, name: str) -> Passed | None:
    """Return what a socket listens at; None: it is none that can be forwarded."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        proto = _PROTOS.get(sock.type)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or proto is None:
            return None
        host, port, *_ = sock.getsockname()
        if not port or bool(listens) != (proto == IPPROTO_TCP):
            return None
        sock.setblocking(False)
        if proto == IPPROTO_UDP:
            for level, option, value in udp_options(sock.family == socket.AF_INET6):
                sock.setsockopt(level, option, value)
        return Passed(name, proto, _address(sock, host), _device(sock), port, fd)
    finally:
        sock.detach()


def _address(sock: socket.socket, host: str) -> Address | None:
    """Return the address that a socket has; None: any of both families."""
    addr = read_address(host.partition("%")[0])
    if addr is not None and sock.family == socket.AF_INET6 and addr.is_unspecified:
        only = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return addr if only else None
    return addr


def _device(sock: socket.socket) -> str | None:
    with suppress(OSError):
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _IFNAME_ROOM)
        return os.fsdecode(raw.rstrip(b"\0")) or None
    return None


def _chosen(wanted: Wanted, passed: Sequence[Passed]) -> list[Passed]:
    found = [it for it in passed if (it.name, it.proto) == (wanted.name, wanted.proto)]
    if not found:
        kind = "listening TCP" if wanted.proto == IPPROTO_TCP else "UDP"
        raise ConfigError(f"{wanted}: no {kind} socket was passed by this name")
    if wanted.port is not None and len({it.port for it in found}) > 1:
        raise ConfigError(f"{wanted}: the sockets of this name have several ports")
    return found


def _rule(wanted: Wanted, it: Passed) -> PortRule:
    delta = 0 if wanted.port is None else wanted.port - it.port
    return PortRule(it.proto, it.addr, it.ifname, it.port, it.port, delta)
