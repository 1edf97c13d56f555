# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the address of a name that a person typed, before anybody is asked about it.

The daemon knows addresses only, and never waits for a resolver; whoever asks may. A
name is looked up as any program here would.
"""

import socket
from collections.abc import Callable
from typing import Any

from passtpy.addr import parse_address
from passtpy.client.connect import ClientError
from passtpy.config.unixend import PREFIX

Lookup = Callable[..., list[tuple[Any, ...]]]


def _version(host: str) -> int:
    """Return 4 or 6 for an address, 0 for a name."""
    addr = parse_address(host.strip("[]"))
    return 0 if addr is None else addr.version


def _split(text: str) -> tuple[str, str]:
    """Return the host, and what follows it: nothing, or a colon and a port."""
    if _version(text):
        return text, ""
    host, colon, port = text.rpartition(":")
    return (host, f":{port}") if colon else (text, "")


def _found(name: str, version: int, lookup: Lookup) -> list[str]:
    family = {4: socket.AF_INET, 6: socket.AF_INET6}.get(version, socket.AF_UNSPEC)
    try:
        answers = lookup(name, None, family, socket.SOCK_STREAM)
    except UnicodeError:
        raise ClientError(f"{name!r} is neither an address nor a name") from None
    except OSError as error:
        raise ClientError(f"{name}: {error.strerror}") from None
    addresses = (str(address[0]).partition("%")[0] for *_, address in answers)
    return list(dict.fromkeys(addresses))


class Names:
    """Turns ends with names into ends with addresses, and remembers which."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._lookup = lookup
        self.told: list[dict[str, Any]] = []

    def resolve(self, text: str, beside: str | None, needs_port: bool) -> str:
        """Return `text` with the first address of the name in it.

        One of the family of `beside`, the other end, if that is an address. What lacks
        a port is for others to complain about.
        """
        if text.startswith(PREFIX):
            return text
        host, port = _split(text)
        if not host or _version(host) or (needs_port and not port):
            return text
        version = _version(_split(beside)[0]) if beside else 0
        first, *others = _found(host, version, self._lookup)
        self.told.append({"name": host, "address": first, "others": others})
        return f"[{first}]{port}" if ":" in first else f"{first}{port}"
