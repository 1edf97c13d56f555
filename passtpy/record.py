# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes classes whose instances are a few named values.

`record` does what `dataclass(frozen=True, slots=True)` does, at a tenth of the price. A
program that starts for every command pays for each of its classes: the standard
library writes and compiles up to six functions for each, and imports `inspect` to do
it. Here they are shared, and the one that has to be written, `__init__`, is written
when the first instance is made; most classes have none in most runs.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    TypeVar,
    cast,
    dataclass_transform,
    overload,
)

if TYPE_CHECKING:
    from dataclasses import replace as replace  # knows the names and types of values

T = TypeVar("T")
_MISSING: Final = object()
_MADE: Final = object()  # stands for a default that a factory makes


class _Field:
    """One of the values; `dataclasses.replace` would find what it looks for."""

    __slots__ = ("_field_type", "default", "factory", "init", "name")

    def __init__(self, name: str, default: object, factory: object) -> None:
        self.name = name
        self.default = default
        self.factory = factory
        self.init = True
        self._field_type = None


def field(*, default_factory: Callable[[], T]) -> T:
    """Say that each instance gets a default of its own."""
    return cast(T, _Field("", _MADE, default_factory))


def _is_value(annotation: object) -> bool:
    if isinstance(annotation, str):
        return not annotation.startswith(("ClassVar", "typing.ClassVar"))
    return getattr(annotation, "__origin__", annotation) is not ClassVar


def _fields_of(cls: type) -> dict[str, _Field]:
    found = {}
    for name, annotation in cls.__annotations__.items():
        if not _is_value(annotation):
            continue
        default = cls.__dict__.get(name, _MISSING)
        if isinstance(default, _Field):
            default.name = name
            found[name] = default
        else:
            found[name] = _Field(name, default, None)
    return found


def _write_init(cls: type, frozen: bool, kw_only: bool) -> Callable[..., None]:
    """Write and compile the `__init__` of a class: nothing else is as fast."""
    fields: dict[str, _Field] = cls.__dict__["__dataclass_fields__"]
    known: dict[str, object] = {"_set": object.__setattr__, "_made": _MADE}
    words, lines = ["self", "*"] if kw_only and fields else ["self"], []
    for name, each in fields.items():
        value, place = name, f"self.{name}="
        if each.default is not _MISSING:
            known[f"_default_{name}"] = each.default
            words.append(f"{name}=_default_{name}")
        else:
            words.append(name)
        if each.factory is not None:
            known[f"_make_{name}"] = each.factory
            value = f"_make_{name}() if {name} is _made else {name}"
        lines.append(f"_set(self,{name!r},{value})" if frozen else place + value)
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    body = "\n ".join(lines or ["pass"])
    # Of nothing but names that stand in our own classes
    exec(f"def __init__({','.join(words)}):\n {body}", known)  # noqa: S102
    return cast(Callable[..., None], known["__init__"])


def _eq(get: Callable[[Any], object]) -> Callable[[Any, object], bool]:
    def equal(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return cast(bool, NotImplemented)
        return bool(get(self) == get(other))

    return equal


def _hash(get: Callable[[Any], object]) -> Callable[[Any], int]:
    return lambda self: hash(get(self))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{k}={getattr(self, k)!r}" for k in self.__dataclass_fields__)
    return f"{self.__class__.__qualname__}({shown})"


def _set_refused(_: object, name: str, __: object) -> None:
    raise AttributeError(f"cannot assign to field {name!r}")


def _delete_refused(_: object, name: str) -> None:
    raise AttributeError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[object]:
    return [getattr(self, name) for name in self.__dataclass_fields__]


def _setstate(self: Any, state: list[object]) -> None:
    for name, value in zip(self.__dataclass_fields__, state, strict=True):
        object.__setattr__(self, name, value)


def _no_values(_: object) -> tuple[()]:
    return ()


def _make(cls: type, frozen: bool, kw_only: bool) -> type:
    """Make the class anew, with a slot for each value."""
    fields = _fields_of(cls)
    own = dict(cls.__dict__)
    for name in (*fields, "__dict__", "__weakref__"):
        own.pop(name, None)
    get = attrgetter(*fields) if fields else _no_values
    own["__slots__"] = tuple(fields)
    own["__dataclass_fields__"] = fields
    own["__match_args__"] = () if kw_only else tuple(fields)
    own.setdefault("__repr__", _repr)
    own.setdefault("__eq__", _eq(get))
    if frozen:
        # A class that has an __eq__ has a __hash__ of None
        if own.get("__hash__") is None:
            own["__hash__"] = _hash(get)
        own["__setattr__"], own["__delattr__"] = _set_refused, _delete_refused
        own["__getstate__"], own["__setstate__"] = _getstate, _setstate

    def first_init(self: object, *args: object, **kwargs: object) -> None:
        init = _write_init(made, frozen, kw_only)
        made.__init__ = init  # type: ignore[misc]
        init(self, *args, **kwargs)

    own["__init__"] = first_init
    made = type(cls)(cls.__name__, cls.__bases__, own)
    made.__qualname__ = cls.__qualname__
    return made


@overload
def record(cls: type[T], /) -> type[T]: ...


@overload
def record(
    *, frozen: bool = True, kw_only: bool = False
) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(
    cls: type | None = None, /, *, frozen: bool = True, kw_only: bool = False
) -> Any:
    """Make a class of named values of one that only names them."""
    if cls is not None:
        return _make(cls, frozen, kw_only)
    return lambda cls: _make(cls, frozen, kw_only)


def is_record(value: object) -> bool:
    """Tell whether a class, or the class of an instance, is one."""
    cls = value if isinstance(value, type) else type(value)
    return "__dataclass_fields__" in cls.__dict__


def names_of(cls: type) -> tuple[str, ...]:
    """Return the names of a record's values."""
    return tuple(cls.__dict__["__dataclass_fields__"])


if not TYPE_CHECKING:

    def replace(of, **changes):
        """Return a copy with some values changed."""
        cls = of.__class__
        values = {name: getattr(of, name) for name in cls.__dataclass_fields__}
        return cls(**(values | changes))
