# SPDX-License-Identifier: GPL-2.0-or-later
"""Names that we answer ourselves: exact, below a suffix, or by a regular expression."""

import re
from typing import Final

from passtpy.addr import Address, parse_address
from passtpy.errors import ConfigError
from passtpy.record import record
from passtpy.wire.dnsname import is_valid

MAX_PATTERN: Final = 256  # characters of a regular expression


@record
class ZoneEntry:
    """One name, or several, that have these addresses, or are `alias`.

    `pattern`: `name`, `*.suffix` (which is no name for the suffix itself), or
    `/expression/`, which has to match the whole name.
    """

    pattern: str
    addresses: tuple[Address, ...] = ()
    alias: str = ""


def read_entry(text: str) -> ZoneEntry:
    """Read `PATTERN=ADDRESS[,ADDRESS…]` or `PATTERN=NAME`."""
    pattern, equals, value = text.rpartition("=")
    if not equals or not pattern or not value:
        raise ConfigError(f"{text!r} is not PATTERN=ADDRESS or PATTERN=NAME")
    _check_pattern(pattern)
    parts = value.split(",")
    addresses = [parse_address(part) for part in parts]
    if all(addr is not None for addr in addresses):
        return ZoneEntry(_fold(pattern), tuple(a for a in addresses if a is not None))
    if len(parts) == 1 and is_valid(value.rstrip(".")):
        return ZoneEntry(_fold(pattern), alias=value.rstrip(".").lower())
    raise ConfigError(f"{value!r} is neither addresses nor a name")


def _fold(pattern: str) -> str:
    return pattern if pattern.startswith("/") else pattern.rstrip(".").lower()


def _check_pattern(pattern: str) -> None:
    if pattern.startswith("/"):
        if len(pattern) < 3 or not pattern.endswith("/") or len(pattern) > MAX_PATTERN:
            raise ConfigError(f"{pattern!r} is no /expression/")
        try:
            re.compile(pattern[1:-1])
        except re.error as error:
            raise ConfigError(f"{pattern!r}: {error}") from None
    elif not is_valid(pattern.removeprefix("*.").rstrip(".")):
        raise ConfigError(f"{pattern!r} is no name")
