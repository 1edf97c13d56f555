# SPDX-License-Identifier: GPL-2.0-or-later
"""Brings domain names into the one form in which they are compared.

A guest chooses how it writes a name: in capitals, with a last dot, as bytes that no
host has. Two names are the same here if DNS would ask for the same; whatever could be
read in two ways is no name. The form is that of wire/dnsname.py: ASCII, no last dot.
"""

import re
from collections.abc import Sequence
from typing import Final

from passtpy.wire.dnsname import MAX_LABEL, MAX_NAME

# Letters, digits, hyphens (RFC 952, RFC 1123 2.1), and underscores as in _dmarc
_NAME: Final = re.compile("[a-z0-9_-]+(?:[.][a-z0-9_-]+)*")
_LABEL: Final = re.compile(rb"[A-Za-z0-9_-]+")
# Who resolves a name that ends so reads an address: 1.2.3.4, 127.1, 0x7f.1
_NUMBER: Final = re.compile("[0-9]+|0x[0-9a-f]*")
# Each of these is another name in IDNA 2003 than in IDNA 2008 (RFC 5891, UTS 46 7)
_DEVIATIONS: Final = frozenset("\u00df\u03c2\u200c\u200d\u1e9e")
_DOTS: Final = str.maketrans("\u3002\uff0e\uff61", "...")  # RFC 3490 3.1


class NameFault(ValueError):
    """Why a text is no name that could be allowed, or asked for."""


def normalise(text: str) -> str:
    """Return the form in which this name is compared; NameFault if it is none."""
    if len(text) > MAX_NAME + 1:  # ASCII is no shorter than what it stands for
        raise NameFault(f"a name has at most {MAX_NAME} characters")
    name = text if text.isascii() else _to_ascii(text)
    name = name.lower().removesuffix(".")
    if not name:
        raise NameFault("a name is empty")
    if len(name) > MAX_NAME:
        raise NameFault(f"a name has at most {MAX_NAME} characters")
    if _NAME.fullmatch(name) is None:
        raise NameFault(_what_is_wrong(name))
    labels = name.split(".")
    if max(map(len, labels)) > MAX_LABEL:
        raise NameFault(f"a label has at most {MAX_LABEL} characters")
    if _NUMBER.fullmatch(labels[-1]):
        raise NameFault("a name that ends in a number reads as an address")
    return name


def _what_is_wrong(name: str) -> str:
    if "" in name.split("."):
        return "a label is empty"
    bad = next(c for c in name if c != "." and not _NAME.fullmatch(c))
    return f"{bad!r} cannot stand in a name"


def _to_ascii(text: str) -> str:
    """Return the punycode of a name; the tables for it are loaded for such a name."""
    from encodings.idna import ToASCII

    if _DEVIATIONS.intersection(text):
        raise NameFault("this name has two forms: write the one with xn--")
    labels = []
    for label in text.translate(_DOTS).split("."):
        if label.isascii():
            labels.append(label)
            continue
        try:
            labels.append(ToASCII(label).decode("ascii"))
        except UnicodeError as error:
            raise NameFault(f"{label!r} has no form in ASCII: {error}") from None
    return ".".join(labels)


def from_labels(labels: Sequence[bytes]) -> str:
    """Return a name that came in a message, label by label, without the last one.

    What DNS lets stand in a label, and no host's name has, is refused: a dot or a NUL
    within a label would be read as something else further on.
    """
    if not all(map(_LABEL.fullmatch, labels)):
        raise NameFault("bytes that no host's name has")
    return normalise(b".".join(labels).decode("ascii"))
