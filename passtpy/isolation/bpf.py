# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the program by which the kernel judges each system call of a process.

A program is a list of instructions of the classic BPF machine, which reads words of
`struct seccomp_data` (seccomp(2)): the number of the call, the architecture, and six
arguments of 64 bits. It ends by returning an action. Only the low half of an argument
is looked at: everything we check is an `int` or a set of flags to the kernel.
"""

import struct
import sys
from collections.abc import Sequence
from typing import Final

from passtpy.record import record

KILL: Final = 0x8000_0000  # the process, not only a thread
ERRNO: Final = 0x0005_0000  # plus the error that the call returns
LOG: Final = 0x7FFC_0000  # allow, and tell the kernel's log
ALLOW: Final = 0x7FFF_0000

X32_CALL: Final = 0x4000_0000  # a bit in the number of calls of x32, another ABI

_INSTRUCTION: Final = struct.Struct("=HBBI")
_LOAD: Final = 0x20  # a word at an absolute place
_AND: Final = 0x54
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16
_ALL: Final = 0xFFFF_FFFF


@record
class Check:
    """A condition: the argument, as far as `mask` goes, is one of `values`."""

    argument: int
    values: tuple[int, ...]
    mask: int = _ALL


@record
class Judgement:
    """What becomes of one call: allowed if every check holds, `otherwise` if not."""

    number: int
    checks: tuple[Check, ...] = ()
    otherwise: int = KILL
    then: int = ALLOW


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, yes, no, value)


def _argument_at(argument: int) -> int:
    low = 0 if sys.byteorder == "little" else 4
    return _ARGUMENTS_AT + 8 * argument + low


def _check(check: Check, otherwise: int) -> list[bytes]:
    """Go on behind these steps if the condition holds, else return `otherwise`."""
    steps = [_step(_LOAD, _argument_at(check.argument))]
    if check.mask != _ALL:
        steps.append(_step(_AND, check.mask))
    left = len(check.values)
    for value in check.values:
        steps.append(_step(_JUMP_EQUAL, value, yes=left))
        left -= 1
    return [*steps, _step(_RETURN, otherwise)]


def _judge(judgement: Judgement) -> list[bytes]:
    steps = [each for c in judgement.checks for each in _check(c, judgement.otherwise)]
    steps.append(_step(_RETURN, judgement.then))
    # The number is not in the accumulator any more behind a check: it returns.
    return [_step(_JUMP_EQUAL, judgement.number, no=len(steps)), *steps]


def assemble(
    architecture: int, judgements: Sequence[Judgement], otherwise: int, x32: bool
) -> bytes:
    """Return the program; what no judgement is about ends in `otherwise`.

    `x32`: the architecture has that second set of numbers, which nobody needs.
    """
    steps = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_JUMP_EQUAL, architecture, yes=1),
        _step(_RETURN, KILL),
        _step(_LOAD, _NUMBER_AT),
    ]
    if x32:
        steps.append(_step(_JUMP_AT_LEAST, X32_CALL, no=1))
        steps.append(_step(_RETURN, KILL))
    for judgement in judgements:
        steps += _judge(judgement)
    steps.append(_step(_RETURN, otherwise))
    return b"".join(steps)
