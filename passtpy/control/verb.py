# SPDX-License-Identifier: GPL-2.0-or-later
"""What a verb is: a request to the running daemon, apart from how it is transported.

A verb validates its arguments, acts, and answers with a value or a `ControlError`. Its
parameters are declared, so that every dialect reads them alike, and the reference page
and the OpenAPI document are made from the same table.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

from passtpy.record import record

UNBOUNDED = 2**63 - 1
MAX_DIGITS = 20  # of a number in text: 64 bits

Owners = TypeVar("Owners")
Arguments = Mapping[str, Any]
Json = Mapping[str, Any]


class Code(StrEnum):
    """Why a verb did not do what was asked."""

    BAD_REQUEST = "bad_request"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_MUCH = "too_much"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class ControlError(Exception):
    """A verb that failed: a code for programs, a text for people, the field at fault.

    `details` holds one entry for each part of a batch that was refused.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        field: str | None = None,
        details: tuple[Json, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.details = details

    def as_json(self) -> Json:
        """Return what a client is told."""
        error: dict[str, Any] = {"code": self.code.value, "message": self.message}
        if self.field is not None:
            error["field"] = self.field
        if self.details:
            error["details"] = list(self.details)
        return {"error": error}


class Kind(StrEnum):
    """What an argument may be."""

    TEXT = "string"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    LIST = "array"
    OBJECT = "object"


@record
class Param:
    """One argument of a verb."""

    name: str
    kind: Kind
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()
    least: int = 0  # of an integer
    most: int = UNBOUNDED  # the same; of a list: entries
    items: Json | None = None  # what a list holds, in JSON Schema

    def read(self, given: object) -> Any:
        """Return the value; ControlError when it is of another kind.

        Text stands for everything, as it does in the query of a URL.
        """
        match self.kind:
            case Kind.INTEGER:
                return self._integer(given)
            case Kind.BOOLEAN:
                return self._boolean(given)
            case Kind.LIST if isinstance(given, list):
                return given
            case Kind.OBJECT if isinstance(given, dict):
                return given
            case Kind.TEXT if isinstance(given, str):
                if self.choices and given not in self.choices:
                    raise self._wrong(f"one of {', '.join(self.choices)}")
                return given
        article = "an" if self.kind.value[0] in "aio" else "a"
        raise self._wrong(f"{article} {self.kind.value}")

    def _integer(self, given: object) -> int:
        if isinstance(given, str) and given.isascii() and given.isdigit():
            # What has more digits is beyond every bound; Python reads no endless ones.
            digits = given.lstrip("0") or "0"
            given = int(digits) if len(digits) <= MAX_DIGITS else self.most + 1
        if isinstance(given, bool) or not isinstance(given, int):
            raise self._wrong("an integer")
        if not self.least <= given <= self.most:
            raise self._wrong(f"between {self.least} and {self.most}")
        return given

    def _boolean(self, given: object) -> bool:
        if isinstance(given, bool):
            return given
        if given in ("true", "1", "yes", "false", "0", "no"):
            return given in ("true", "1", "yes")
        raise self._wrong("true or false")

    def _wrong(self, expected: str) -> ControlError:
        return ControlError(
            Code.BAD_REQUEST, f"{self.name} has to be {expected}", self.name
        )


@record
class Value:
    """One JSON object, the whole answer."""

    body: Json


@record
class Lines:
    """JSON objects, one a line, made as they are sent: a list of any length.

    Bytes are a line that is JSON already. None says that much was looked at and nothing
    found: packets come first now.
    """

    items: Iterator[Json | bytes | None]


@record
class Text:
    """An answer that is no JSON."""

    body: bytes
    media_type: str


class Stream:
    """An answer without an end: its reader takes what is there, until either leaves.

    Nobody ever waits for the reader; a kind of stream says what becomes of that which
    is not taken. `wake` is called when there is something again.
    """

    gentle = False  # little is kept of it, and nothing is urgent

    def __init__(self, media_type: str) -> None:
        self.media_type = media_type
        self.headers: dict[str, str] = {}  # what else a client is told before
        self.wake: Callable[[], None] = lambda: None
        self.ended = False

    def take(self) -> bytes:
        """Return what is there, a bounded piece at a time."""
        raise NotImplementedError

    def end(self) -> None:
        """Let the reader go once it has taken the rest; or the reader has gone."""
        if not self.ended:
            self.ended = True
            self.wake()


class Later:
    """An answer that is still being worked for; whoever works for it settles it."""

    def __init__(self) -> None:
        self.result: Value | Text | ControlError | None = None
        self.wake: Callable[[], None] = lambda: None

    def settle(self, result: "Value | Text | ControlError") -> None:
        """Give the answer, once."""
        assert self.result is None
        self.result = result
        self.wake()


Reply = Value | Lines | Text | Stream | Later


@record
class Verb(Generic[Owners]):
    """One line of the table of verbs."""

    name: str  # for people and for `operationId`
    method: str
    path: str  # with {names} of parameters
    help: str
    answer: str  # what comes back, in a sentence
    run: Callable[[Owners, Arguments], Reply]
    params: tuple[Param, ...] = ()
    lenient: bool = False  # what is unknown is ignored
    lines: bool = False  # the answer is any number of objects, one a line
    media: str = "application/json"  # of the answer

    def read(self, given: Mapping[str, object]) -> Arguments:
        """Return checked arguments; ControlError for what is unknown or missing."""
        known = {param.name: param for param in self.params}
        for name in given:
            if name not in known and not self.lenient:
                raise ControlError(
                    Code.BAD_REQUEST, f"{self.name} takes no {name}", name
                )
        for param in self.params:
            if param.required and param.name not in given:
                raise ControlError(
                    Code.BAD_REQUEST, f"{param.name} is missing", param.name
                )
        return {
            name: known[name].read(value)
            for name, value in given.items()
            if name in known
        }
