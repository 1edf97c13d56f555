# SPDX-License-Identifier: GPL-2.0-or-later
"""UNIX sockets of the host as ends of forwards: what is written, and what is refused.

    LISTENER := "unix:" PATH ":" PORT { "," WORD }
    TARGET   := PORT ":unix:" PATH { "," WORD }
    WORD     := "proxy=v1" | "proxy=v2" | "mode=" OCTAL

A listener's file may be given a mode; a target is there already. A path is absolute:
the daemon has no folder of its own.
"""

import os
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from passtpy.addr import Address
from passtpy.config.portrule import DEFAULT_MODE, PROXIES, PortRule, Side
from passtpy.errors import ConfigError
from passtpy.flow import IPPROTO_TCP

PREFIX: Final = "unix:"
_AS_TARGET: Final = ":" + PREFIX
PATH_MAX: Final = 107  # bytes of sockaddr_un, less the one that ends them
_MODE: Final = "mode="
_MODE_MAX: Final = 0o777


def nameless(ipv4: bool) -> Address:
    """Return what clients of our UNIX sockets, who have no address, appear to have."""
    return IPv4Address("127.0.0.1") if ipv4 else IPv6Address("::1")


def is_unix(text: str) -> bool:
    """Tell whether a specification has a UNIX socket as one of its ends."""
    return text.startswith(PREFIX) or leads_to_unix(text)


def leads_to_unix(text: str) -> bool:
    """Tell whether a specification leads to a UNIX socket."""
    return _AS_TARGET in text and not text.startswith(PREFIX)


def path_fault(path: str) -> str | None:
    """Return why no socket can have this path; None: one can."""
    if path.startswith("@"):
        return "an abstract name has no permissions"
    if not path.startswith("/") or path.endswith("/"):
        return "not the absolute path of a socket"
    if any(char < " " or char == "\x7f" for char in path):
        return "control characters"
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:  # text that stands for no bytes
        return "no path"
    if size > PATH_MAX:
        return f"{size} bytes, more than {PATH_MAX}"
    return None


def is_name(text: str) -> bool:
    """Tell whether a socket can be called so, directly in a folder."""
    if text in ("", ".", "..") or "/" in text:
        return False
    return path_fault(f"/{text}") is None


def read_folder(text: str) -> str:
    """Return the folder of --unix-folder as paths in it begin; ConfigError if none."""
    folder = text.rstrip("/")
    if not folder.startswith("/") or os.path.normpath(folder) != folder:
        raise ConfigError(f"Invalid folder '{text}': no absolute path without . and ..")
    return folder


def place_of(path: str, folders: Sequence[str]) -> tuple[int, str] | None:
    """Return in which of these folders a socket is, and its name there; None: in none.

    Only its text counts: what it leads to may change, and is not looked at.
    """
    folder, _, name = path.rpartition("/")
    if folder in folders and is_name(name):
        return folders.index(folder), name
    return None


def read_unix(text: str, option: str, proto: int, side: Side) -> PortRule:
    """Return the rule of a specification with a UNIX socket; ConfigError if none."""
    if proto != IPPROTO_TCP:
        raise ConfigError(f"UNIX sockets are for TCP: {option} {text}")
    body, *words = text.split(",")
    if leads_to_unix(text):
        if side is not Side.SPLICE:
            raise ConfigError(f"Only -T leads to a UNIX socket: {option} {text}")
        port, _, path = body.partition(_AS_TARGET)
    else:
        if side is not Side.HOST:
            raise ConfigError(f"Only -t listens at a UNIX socket: {option} {text}")
        path, _, port = body.removeprefix(PREFIX).rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
    if not 0 < number <= 65535:
        raise ConfigError(f"Invalid port specifier '{text}'")
    fault = path_fault(path)
    if fault is not None:
        raise ConfigError(f"Invalid socket path '{path}': {fault}")
    mode, proxy = _read_words(words, text, side)
    if side is Side.HOST:
        return PortRule(
            proto, None, None, number, number, path=path, mode=mode, proxy=proxy
        )
    return PortRule(proto, None, "lo", number, number, to_path=path, proxy=proxy)


def _read_words(words: list[str], text: str, side: Side) -> tuple[int, int]:
    mode, proxy = DEFAULT_MODE, 0
    for word in words:
        octal = word.removeprefix(_MODE)
        if word in PROXIES:
            proxy = PROXIES[word]
        elif word != octal and side is Side.HOST and _is_octal(octal):
            mode = int(octal, 8)
        else:
            raise ConfigError(f"Invalid port specifier '{text}'")
    return mode, proxy


def _is_octal(text: str) -> bool:
    digits = 0 < len(text) < 5 and all(char in "01234567" for char in text)
    return digits and int(text, 8) <= _MODE_MAX
