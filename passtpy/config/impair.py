# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads `--impair`: how the link to the guest is to be worse than it is, for tests.

`delay=50ms,jitter=5ms,loss=1%` is about both directions; `in,loss=1%` about what goes
to the guest, `out,loss=1%` about what it sends. Later ones add to earlier ones.
"""

import re
from typing import Any, Final

from passtpy.errors import ConfigError
from passtpy.record import record, replace

MOST_DELAY_NS: Final = 60_000_000_000
_TIME: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(us|ms|s)", re.ASCII)
_UNITS: Final = {"us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_SHARE: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%", re.ASCII)
_SEED: Final = re.compile("[0-9]{1,18}", re.ASCII)
_WAYS: Final = {"in": ("inward",), "out": ("outward",)}


@record(kw_only=True)
class Link:
    """What a direction is like; the fields are those of `Datapath.impair`."""

    delay_ns: int = 0
    jitter_ns: int = 0
    loss_ppm: int = 0
    reorder: bool = False

    def as_tuple(self) -> tuple[int, int, int, bool]:
        """Return it as the datapath takes it."""
        return self.delay_ns, self.jitter_ns, self.loss_ppm, self.reorder


@record(kw_only=True)
class Impairment:
    """A worse link: towards the guest, and from it; `seed` begins chance."""

    inward: Link = Link()
    outward: Link = Link()
    seed: int = 1


def _time(word: str, text: str) -> int:
    found = _TIME.fullmatch(text)
    ns = -1 if found is None else round(float(found[1]) * _UNITS[found[2]])
    if not 0 <= ns <= MOST_DELAY_NS:
        raise ConfigError(f"Invalid --impair: {word}: expected a time up to 60s")
    return ns


def _share(word: str, text: str) -> int:
    found = _SHARE.fullmatch(text)
    ppm = -1 if found is None else round(float(found[1]) * 10_000)
    if not 0 <= ppm <= 1_000_000:
        raise ConfigError(f"Invalid --impair: {word}: expected 0% to 100%")
    return ppm


def _fields(words: list[str]) -> tuple[dict[str, Any], int | None]:
    """Return what words say of links, and the seed."""
    said: dict[str, Any] = {}
    seed = None
    for word in words:
        name, equals, text = word.partition("=")
        if name in ("delay", "jitter") and equals:
            said[f"{name}_ns"] = _time(word, text)
        elif name == "loss" and equals:
            said["loss_ppm"] = _share(word, text)
        elif word == "reorder":
            said["reorder"] = True
        elif name == "seed" and _SEED.fullmatch(text):
            seed = int(text)
        else:
            known = "in, out, delay=, jitter=, loss=, reorder, seed="
            raise ConfigError(f"Invalid --impair: {word!r}: expected {known}")
    return said, seed


def read_impair(text: str, before: Impairment | None) -> Impairment:
    """Return what a value says, and what those before it said."""
    impairment = before or Impairment()
    first, *rest = text.split(",")
    ways = _WAYS.get(first, ("inward", "outward"))
    said, seed = _fields(rest if first in _WAYS else [first, *rest])
    for way in ways:
        link = replace(getattr(impairment, way), **said)
        if link.jitter_ns > link.delay_ns:
            raise ConfigError(f"Invalid --impair: {text}: more jitter than delay")
        impairment = replace(impairment, **{way: link})
    return impairment if seed is None else replace(impairment, seed=seed)
