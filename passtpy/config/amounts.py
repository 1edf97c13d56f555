# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads amounts as people write them: `10M` and `20 MB/s` of speed, `5 GB` of data.

Speeds are in bits a second unless they say bytes: `B`. Prefixes are powers of 1000,
with an `i` behind them powers of 1024.
"""

import re
from typing import Final

from passtpy.errors import ConfigError

SLOWEST: Final = 1000  # bytes a second
FASTEST: Final = 12_500_000_000  # 100 Gbit/s; the datapath takes no more
MOST_BYTES: Final = (1 << 63) - 1
_NUMBER: Final = r"([0-9]{1,15}(?:\.[0-9]{1,3})?) ?([kKMGT]?)(i?)"
RATE: Final = _NUMBER + r"(bit|B)?(?:/s)?"
SIZE: Final = _NUMBER + r"B?"
_POWERS: Final = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_EXPECTED_RATE: Final = "expected a speed of 8 kbit/s to 100 Gbit/s, as 10M or 20 MB/s"
_EXPECTED_SIZE: Final = "expected an amount of data, as 500M or 2 GB"


class AmountError(ValueError):
    """What was expected instead."""


def _scaled(found: re.Match[str]) -> float:
    number, prefix, binary = found.groups()[:3]
    if binary and not prefix:
        raise AmountError("expected a prefix before the i, as in Ki")
    base = 1024 if binary else 1000
    return float(number) * float(base) ** _POWERS[prefix]


def read_rate(text: str) -> int:
    """Return bytes a second; AmountError says what was expected."""
    found = re.fullmatch(RATE, text, re.ASCII)
    if found is None:
        raise AmountError(_EXPECTED_RATE)
    rate = round(_scaled(found) / (1 if found[4] == "B" else 8))
    if not SLOWEST <= rate <= FASTEST:
        raise AmountError(_EXPECTED_RATE)
    return rate


def read_size(text: str) -> int:
    """Return bytes; AmountError says what was expected."""
    found = re.fullmatch(SIZE, text, re.ASCII)
    size = 0 if found is None else round(_scaled(found))
    if not 0 < size <= MOST_BYTES:
        raise AmountError(_EXPECTED_SIZE)
    return size


def show_rate(rate: int) -> str:
    """Return bytes a second as people write them: in bits."""
    return f"{_show(rate * 8)}bit/s"


def show_size(size: int) -> str:
    """Return bytes as people write them."""
    return f"{_show(size)}B"


def _show(number: int) -> str:
    """Return a number with the largest prefix that leaves it exact."""
    for prefix, power in (("T", 4), ("G", 3), ("M", 2), ("k", 1)):
        if number and number % 1000 ** (power - 1) == 0 and number >= 1000**power:
            exact = f"{number / 1000**power:.3f}"
            return f"{exact.rstrip('0').rstrip('.')} {prefix}"
    return f"{number} "


def rate_of(option: str, text: str) -> int:
    """Read the value of an option that is a speed."""
    try:
        return read_rate(text)
    except AmountError as error:
        raise ConfigError(f"Invalid {option}: {text}: {error}") from None
