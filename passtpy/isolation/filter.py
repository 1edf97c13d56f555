# SPDX-License-Identifier: GPL-2.0-or-later
"""Installs the filter of a process: the table of calls.py, as the kernel reads it."""

import os
from typing import Final

from passtpy import _native
from passtpy.config.model import Seccomp
from passtpy.isolation.bpf import ALLOW, ERRNO, KILL, LOG, Judgement, assemble
from passtpy.isolation.calls import REFUSED, Process, allowed
from passtpy.isolation.numbers import ARCHITECTURES, Architecture, number

_ENOSYS: Final = 38


def architecture() -> Architecture | None:
    """Return ours; None: its numbers are unknown here."""
    return ARCHITECTURES.get(os.uname().machine)


def program(process: Process, mode: Seccomp, here: Architecture) -> bytes:
    """Return the filter of a process."""
    lax = mode is Seccomp.LOG
    judgements = []
    for row in allowed(process):
        code = number(row.name, here)
        if code is not None:
            otherwise = LOG if lax else row.otherwise
            judgements.append(Judgement(code, row.checks, otherwise))
    named = {row.name for row in allowed(process)}
    for name, error in REFUSED:
        code = number(name, here)
        if code is not None and name not in named:
            then = LOG if lax else ERRNO | error
            judgements.append(Judgement(code, then=then))
    return assemble(here.audit, judgements, LOG if lax else KILL, here.has_x32)


def install(process: Process, mode: Seccomp) -> bool:
    """Make no other calls from now on; False where there can be no filter.

    OSError if the kernel does not take it.
    """
    here = architecture()
    if mode is Seccomp.OFF or here is None:
        return mode is Seccomp.OFF
    _native.seccomp(program(process, mode, here))
    return True


def refuse_io_uring() -> None:
    """Have the loop do without: a filter sees nothing of what is asked through a ring.

    Only the loop's registrations would go through it. Privileges cannot be gained any
    more from here on, which a filter asks for.
    """
    here = architecture()
    if here is None:
        return
    _native.no_new_privs()
    code = number("io_uring_setup", here)
    assert code is not None
    ring = Judgement(code, then=ERRNO | _ENOSYS)
    _native.seccomp(assemble(here.audit, [ring], ALLOW, x32=False))
