# SPDX-License-Identifier: GPL-2.0-or-later
"""Names the options of each program that asks no daemon, for completions."""

import re

from passtpy.config.options import options_of
from passtpy.config.slirp import USAGE as SLIRP_USAGE
from passtpy.pesto import USAGE as PESTO_USAGE

# A line about options has their names before two blanks.
_LINE = re.compile(r"^ *(-.*?)(?:  |$)", re.MULTILINE)
_NAME = re.compile(r"(?<![\w-])--?\w[\w-]*")


def programs() -> dict[str, tuple[str, ...]]:
    """Return the options of each program, by its name without `passtpy-`."""
    pasta = _of_table("pasta")
    return {
        "run": pasta,
        "learn": pasta,
        "pasta": pasta,
        "passt": _of_table("passt"),
        "pesto": _of_usage(PESTO_USAGE),
        "slirp4netns": _of_usage(SLIRP_USAGE),
    }


def _of_table(program: str) -> tuple[str, ...]:
    return tuple(name for option in options_of(program) for name in option.names)


def _of_usage(usage: str) -> tuple[str, ...]:
    return tuple(name for line in _LINE.findall(usage) for name in _NAME.findall(line))
