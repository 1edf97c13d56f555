# SPDX-License-Identifier: GPL-2.0-or-later
"""Records behave as dataclasses do, and cost no import of what makes those."""

import copy
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import pytest

from passtpy.record import field, is_record, names_of, record, replace
from tests.unit.fresh import said

T = TypeVar("T")


@record
class Point:
    """Frozen, with a default and one of its own."""

    x: int
    y: int = 2
    notes: Mapping[str, int] = field(default_factory=dict)
    of_all: ClassVar[int] = 7


@dataclass(frozen=True, slots=True)
class Standard:
    """The same by the standard library."""

    x: int
    y: int = 2


@record(frozen=False)
class Count:
    """Can be changed."""

    n: int = 0


@record(kw_only=True)
class Named:
    """All by name; a value with a default may stand first."""

    first: int = 1
    second: int


@record
class Empty:
    """Nothing but its kind."""


@record
class Positive:
    """Looks at what it gets."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError("not positive")


@record
class Box(Generic[T]):
    """Of any type."""

    value: T


def test_values_come_by_place_or_name_with_defaults() -> None:
    assert (Point(1).x, Point(1).y) == (1, 2)
    assert Point(1, 3) == Point(y=3, x=1)
    assert Named(second=5) == Named(first=1, second=5)
    assert (Point.of_all, Box("a").value) == (7, "a")


@pytest.mark.parametrize("words", [{}, {"x": 1, "z": 2}, {"x": 1, "of_all": 2}])
def test_a_value_too_few_or_unknown_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Point(**words)


def test_named_values_are_not_taken_by_place() -> None:
    with pytest.raises(TypeError):
        Named(1, 2)  # type: ignore[call-arg]


def test_each_instance_has_a_default_of_its_own() -> None:
    assert Point(1).notes == {}
    assert Point(1).notes is not Point(1).notes


def test_equal_are_values_of_one_class() -> None:
    assert Point(1) == Point(1)
    assert Point(1) != Point(2)
    other: object = Count(1)
    assert Box(1) != other
    assert Empty() == Empty()


def test_what_is_frozen_is_hashed_and_cannot_be_changed() -> None:
    assert {Box(1), Box(1), Box(2)} == {Box(2), Box(1)}
    assert hash(Empty()) == hash(Empty())
    point = Point(1)
    with pytest.raises(AttributeError, match="cannot assign"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot delete"):
        del point.x


def test_what_is_not_frozen_is_changed_and_has_no_hash() -> None:
    count = Count()
    count.n += 1
    assert count == Count(1)
    with pytest.raises(TypeError):
        hash(count)


def test_only_what_is_named_fits_in() -> None:
    with pytest.raises(AttributeError):
        Count().other = 1  # type: ignore[attr-defined]


def test_post_init_is_run() -> None:
    with pytest.raises(ValueError, match="not positive"):
        Positive(0)
    with pytest.raises(ValueError, match="not positive"):
        replace(Positive(1), n=0)


def test_a_changed_copy_leaves_the_first_alone() -> None:
    first = Point(1, 5)
    assert replace(first, x=2) == Point(2, 5)
    assert first == Point(1, 5)
    with pytest.raises(TypeError):
        replace(first, z=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", [Point(1, 3), Count(4), Empty(), Box("a")])
def test_copies_and_pickles_are_equal(value: object) -> None:
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value


def test_it_shows_itself_as_a_dataclass_does() -> None:
    shown = repr(Standard(1)).replace("Standard", "Point")
    assert repr(Point(1)) == shown.replace(")", ", notes={})")
    assert repr(Empty()) == "Empty()"


def test_patterns_match_by_place() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_names_of_values_are_told() -> None:
    assert names_of(Point) == ("x", "y", "notes")
    assert is_record(Point)
    assert is_record(Point(1))
    assert not is_record("x")
    assert not is_record(3)


def test_the_start_imports_neither_dataclasses_nor_inspect() -> None:
    code = (
        "import sys, passtpy.__main__, passtpy.daemon;"
        "print([m for m in ('dataclasses', 'inspect') if m in sys.modules])"
    )
    assert said(code) == "[]\n"
