# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a value as text for another process, and reads it back believing nothing.

The text is JSON, the shape is told by the annotations of a record: a record is a
list of its fields, an address or bytes (hexadecimal) a string, a mapping a list of
pairs. The reader knows which type it wants, makes nothing but that, and takes neither a
field too many nor a number that no kernel would tell: whoever wrote the text may have
been taken over by the guest. (pickle would run what the writer says.)
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from passtpy.record import is_record, names_of

TEXT_MAX: Final = 1 << 24  # bytes; a hundred thousand routes of a host
_STRING_MAX: Final = 4096
_NUMBER_END: Final = 1 << 32
_ADDRESSES: Final = frozenset(
    (
        IPv4Address,
        IPv6Address,
        IPv4Interface,
        IPv6Interface,
        IPv4Network,
        IPv6Network,
    )
)

T = TypeVar("T")


class ReportError(Exception):
    """The text is not what its writer should have written."""


def write(value: object) -> bytes:
    """Return the text of a record."""
    return json.dumps(_plain(value), separators=(",", ":")).encode()


def read(kind: type[T], text: bytes) -> T:
    """Return the value of this type that the text stands for; ReportError if none."""
    if len(text) > TEXT_MAX:
        raise ReportError("too long")
    try:
        value: T = _value(kind, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ReportError(str(error)) from None
    return value


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if type(value) in _ADDRESSES:
        return str(value)
    if is_record(value):
        return [_plain(getattr(value, name)) for name in names_of(type(value))]
    if isinstance(value, Mapping):
        return [[_plain(key), _plain(each)] for key, each in value.items()]
    if isinstance(value, (tuple, frozenset)):
        return [_plain(each) for each in value]
    raise TypeError(f"cannot report {value!r}")


def _value(kind: Any, plain: object) -> Any:
    """Make a value of the type `kind` of what json read; ReportError if it is none."""
    read_scalar = _SCALARS.get(kind)
    if read_scalar is not None:
        return read_scalar(plain)
    if kind in _ADDRESSES:
        return kind(_string(plain))  # ValueError if it is none
    if isinstance(kind, type) and is_record(kind):
        types = _types(kind)
        found = _list(plain, len(types))
        return kind(**{n: _value(t, v) for (n, t), v in zip(types, found, strict=True)})
    if get_origin(kind) is UnionType:
        return _one_of(get_args(kind), plain)
    return _collection(get_origin(kind), get_args(kind), plain)


def _collection(origin: Any, kinds: tuple[Any, ...], plain: object) -> Any:
    if origin is tuple and kinds[-1] is not Ellipsis:
        found = _list(plain, len(kinds))
        return tuple(_value(k, each) for k, each in zip(kinds, found, strict=True))
    if origin in (tuple, frozenset):
        return origin(_value(kinds[0], each) for each in _list(plain))
    if origin is Mapping:
        pairs = [_list(each, 2) for each in _list(plain)]
        return {_value(kinds[0], key): _value(kinds[1], each) for key, each in pairs}
    raise TypeError(f"cannot read {origin}")


@cache
def _types(kind: type) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((name, hints[name]) for name in names_of(kind))


def _one_of(kinds: tuple[Any, ...], plain: object) -> Any:
    """Return the first that it is; `None` only for what is none at all."""
    if plain is None and NoneType in kinds:
        return None
    for kind in kinds:
        if kind is NoneType:
            continue
        try:
            return _value(kind, plain)
        except (ValueError, ReportError):
            continue
    raise ReportError("none of the possible types")


def _list(plain: object, length: int | None = None) -> list[object]:
    if not isinstance(plain, list) or (length is not None and len(plain) != length):
        raise ReportError("not a list of that length")
    return plain


def _string(plain: object) -> str:
    if not isinstance(plain, str) or len(plain) > _STRING_MAX:
        raise ReportError("not a string of reasonable length")
    return plain


def _number(plain: object) -> int:
    if type(plain) is not int or not -_NUMBER_END < plain < _NUMBER_END:
        raise ReportError("not a number of 32 bits")
    return plain


def _truth(plain: object) -> bool:
    if not isinstance(plain, bool):
        raise ReportError("neither true nor false")
    return plain


def _bytes(plain: object) -> bytes:
    return bytes.fromhex(_string(plain))


_SCALARS: Final[Mapping[Any, Callable[[object], object]]] = {
    str: _string,
    int: _number,
    bool: _truth,
    bytes: _bytes,
}
