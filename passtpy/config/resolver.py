# SPDX-License-Identifier: GPL-2.0-or-later
"""What resolv.conf says: a pure reader of its text (resolv.conf(5)).

`net/` reads the file, at start and whenever it changes; policy and services use the
values. Whatever cannot be understood is skipped, as the C library does.
"""

from typing import Final

from passtpy.addr import Address, parse_address
from passtpy.record import record
from passtpy.wire.dnsname import is_valid

MAX_SEARCH: Final = 6  # what the C library once took, and guests can be told
_COMMENT: Final = ("#", ";")


@record
class Resolver:
    """The host's resolvers and search list, in order and without repetitions."""

    nameservers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()


NO_RESOLVER: Final = Resolver()


def parse_resolv_conf(text: str) -> Resolver:
    """Read resolv.conf; the last of `search` and `domain` wins."""
    nameservers: list[Address] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        match line.split():
            case [word, *_] if word.startswith(_COMMENT):
                continue
            case ["nameserver", addr_text, *_]:
                addr = _parse_nameserver(addr_text)
                if addr is not None:
                    nameservers.append(addr)
            case ["search", *names]:
                search = _domains(names)
            case ["domain", name, *_]:
                search = _domains([name])
            case _:
                continue
    return Resolver(tuple(dict.fromkeys(nameservers)), search)


def read_domain(text: str) -> str | None:
    """Return a domain without its last dot; None if it cannot be one."""
    name = text.removesuffix(".")
    return name if is_valid(name) else None


def _parse_nameserver(text: str) -> Address | None:
    """Read an address; one with a scope (fe80::1%eth0) keeps it."""
    addr = parse_address(text)
    if addr is None or addr.is_unspecified or addr.is_multicast:
        return None
    return addr


def _domains(names: list[str]) -> tuple[str, ...]:
    """Return the domains that can be searched; a lone dot means none."""
    known = (read_domain(name) for name in names)
    return tuple(dict.fromkeys(name for name in known if name is not None))[:MAX_SEARCH]
