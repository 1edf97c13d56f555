# SPDX-License-Identifier: GPL-2.0-or-later
"""The assembler of filters, against a machine that runs what it made."""

import struct
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from passtpy.isolation.bpf import (
    ALLOW,
    ERRNO,
    KILL,
    LOG,
    X32_CALL,
    Check,
    Judgement,
    assemble,
)

ARCH = 0xC000_003E
LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
WORD = 0xFFFF_FFFF


def run(program: bytes, call: int, args: Sequence[int], arch: int = ARCH) -> int:
    """Run a program as the kernel does (bpf(4)): what it says about one call."""
    steps = list(struct.iter_unpack("=HBBI", program))
    assert len(steps) <= 4096
    padded = [*args, *[0] * (6 - len(args))]
    data = struct.pack("=IIQ6Q", call, arch, 0, *padded)
    at = accumulator = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


def meant(table: Sequence[Judgement], call: int, args: Sequence[int]) -> int:
    """Say what is to become of a call, from the table itself."""
    for row in table:
        if row.number == call:
            good = all(args[c.argument] & c.mask & WORD in c.values for c in row.checks)
            return row.then if good else row.otherwise
    return KILL


NUMBERS = st.integers(0, 20)
VALUES = st.integers(0, 7)
CHECKS = st.builds(
    Check,
    st.integers(0, 5),
    st.lists(VALUES, min_size=1, max_size=9).map(tuple),
    st.sampled_from([WORD, 3, 4, 0x1000]),
)
ROWS = st.builds(
    Judgement,
    NUMBERS,
    st.lists(CHECKS, max_size=3).map(tuple),
    st.sampled_from([KILL, ERRNO | 13, LOG]),
    st.sampled_from([ALLOW, ERRNO | 2]),
)
TABLES = st.lists(ROWS, max_size=30, unique_by=lambda row: row.number)
# Values that are checked, and the same with something in the upper half
ARGUMENTS = st.lists(
    st.one_of(VALUES, VALUES.map(lambda n: n | 1 << 32), st.just(0x1007)),
    min_size=6,
    max_size=6,
)


@given(TABLES, NUMBERS, ARGUMENTS, st.booleans())
def test_a_program_says_what_the_table_means(
    table: list[Judgement], call: int, args: list[int], x32: bool
) -> None:
    program = assemble(ARCH, table, KILL, x32)
    assert run(program, call, args) == meant(table, call, args)


@given(TABLES, NUMBERS, ARGUMENTS)
def test_no_call_is_made_by_the_numbers_of_another_architecture(
    table: list[Judgement], call: int, args: list[int]
) -> None:
    program = assemble(ARCH, table, LOG, x32=True)
    assert run(program, call, args, arch=0x4000_0003) == KILL
    assert run(program, call | X32_CALL, args) == KILL


def test_what_is_in_no_row_has_the_answer_for_all_others() -> None:
    program = assemble(ARCH, [Judgement(1)], LOG, x32=False)
    assert [run(program, call, ()) for call in (1, 2)] == [ALLOW, LOG]
