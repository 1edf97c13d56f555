# SPDX-License-Identifier: GPL-2.0-or-later
"""Domain names in the form of DNS messages (RFC 1035 3.1), as options carry them.

DHCP compresses its search list (RFC 3397); DHCPv6 and neighbour discovery must not
(RFC 8415 10, RFC 8106 5.2). A name is a plain `str` without its last dot; it must be
valid, as is_valid() tells, before it is encoded.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from passtpy.errors import WireError

MAX_LABEL: Final = 63
MAX_NAME: Final = 253  # 255 on the wire: a length before each label, a zero at the end
_MAX_OFFSET: Final = 0x3FFF  # what a pointer can express
_POINTER: Final = 0xC0


def is_valid(name: str) -> bool:
    """Tell whether `name` can be encoded: printable ASCII, labels of 1 to 63 bytes."""
    if not 0 < len(name) <= MAX_NAME or not name.isascii():
        return False
    if not name.isprintable() or " " in name or "\\" in name:
        return False
    return all(0 < len(label) <= MAX_LABEL for label in name.split("."))


def encode(name: str) -> bytes:
    """Return one whole name."""
    labels = name.encode("ascii").split(b".")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def encode_list(names: Iterable[str], room: int) -> bytes:
    """Return as many names, one after the other, as fit into `room` bytes."""
    data = b""
    for name in names:
        encoded = encode(name)
        if len(data) + len(encoded) > room:
            break
        data += encoded
    return data


def encode_compressed(names: Iterable[str]) -> bytes:
    """Return all names; one that ends like an earlier one points there."""
    data = bytearray()
    known: dict[str, int] = {}
    for name in names:
        labels = name.split(".")
        for position in range(len(labels)):
            suffix = ".".join(labels[position:]).lower()
            if suffix in known:
                data += (_POINTER << 8 | known[suffix]).to_bytes(2, "big")
                break
            if len(data) <= _MAX_OFFSET:
                known[suffix] = len(data)
            label = labels[position].encode("ascii")
            data += bytes([len(label)]) + label
        else:
            data.append(0)
    return bytes(data)


def decode_list(data: bytes) -> tuple[str, ...]:
    """Read names, compressed or not; pointers may only lead backwards."""
    names: list[str] = []
    offset = 0
    while offset < len(data):
        labels, offset = _read_name(data, offset)
        if not labels:  # padding, as neighbour discovery puts it behind the last name
            continue
        names.append(_text(labels))
    return tuple(names)


def _read_name(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """Return the labels of the name at `offset`, and where the next one begins."""
    labels: list[bytes] = []
    after = 0  # behind the first pointer
    limit = offset  # pointers must go below every place visited: no loops
    while True:
        if offset >= len(data):
            raise WireError("dns: truncated name")
        length = data[offset]
        if length >= _POINTER:
            if offset + 1 >= len(data):
                raise WireError("dns: truncated pointer")
            target = int.from_bytes(data[offset : offset + 2], "big") & _MAX_OFFSET
            after = after or offset + 2
            if target >= limit:
                raise WireError("dns: pointer forwards")
            offset = limit = target
            continue
        if length > MAX_LABEL or offset + 1 + length > len(data):
            raise WireError("dns: bad label")
        offset += 1 + length
        if not length:
            return labels, after or offset
        labels.append(data[offset - length : offset])


def _text(labels: Sequence[bytes]) -> str:
    try:
        name = b".".join(labels).decode("ascii")
    except UnicodeDecodeError:
        raise WireError("dns: not ASCII") from None
    if not is_valid(name):
        raise WireError("dns: bad name")
    return name
