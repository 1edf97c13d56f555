# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the program, and has copies of each of its processes attack the kernel.

    copies.py NOTES ATTACKS pasta|passt WORD…

A process that is about to shut its door makes a copy of itself for each attack, which
shuts it and makes one call. NOTES gets a line for each: who it was, the name of the
attack, `ended` and by which signal, or `told` and the errno (0: it was done). ATTACKS
is a JSON object of names and calls: the number on x86-64, that on arm64, and arguments,
which are numbers, or text that is passed as the address of its bytes.
"""

import ctypes
import json
import os
import sys
from collections.abc import Collection

from passtpy import __main__ as program
from passtpy.config.model import Seccomp
from passtpy.isolation import stages
from passtpy.isolation.calls import Process

_, path, attacks_path, which, *words = sys.argv
notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
libc = ctypes.CDLL(None, use_errno=True)
with open(attacks_path, encoding="ascii") as file:
    attacks: dict[str, list[int | str]] = json.load(file)
on_arm = os.uname().machine == "aarch64"


def call(x86: int, arm: int, *arguments: int | str) -> int:
    given = [
        each.encode() if isinstance(each, str) else ctypes.c_long(each)
        for each in arguments
    ]
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(arm if on_arm else x86), *given)
    return ctypes.get_errno()


shut, hold_only = stages.shut, stages.hold_only


def hold_notes_too(null: int, keep: Collection[int]) -> None:
    hold_only(null, {*keep, notes})


def attack_and_shut(process: Process, seccomp: Seccomp) -> bool:
    for name, given in attacks.items():
        copy = os.fork()
        if copy == 0:
            shut(process, seccomp)
            os._exit(call(*given))  # type: ignore[arg-type]
        status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        end = f"ended {-status}" if status < 0 else f"told {status}"
        os.write(notes, f"{process.name}\t{name}\t{end}\n".encode())
    os.write(notes, f"{process.name}\tis done\n".encode())
    return shut(process, seccomp)


stages.shut = attack_and_shut
stages.hold_only = hold_notes_too
sys.argv = [f"passtpy-{which}", *words]
sys.exit(getattr(program, which)())
