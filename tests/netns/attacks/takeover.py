# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the program as if its daemon had been taken over: it then makes one call.

    takeover.py NOTES CALL ARGUMENT… -- WORDS OF passtpy-pasta OR passtpy-passt

NOTES gets `ready` once the door is shut, then what the call returned and its errno;
nothing more, if that was the end. CALL is its number on x86-64, `/`, and that on arm64.
An argument is a number, or text that is passed as the address of its bytes.
"""

import ctypes
import os
import sys

from passtpy import __main__ as program
from passtpy.config.model import Seccomp
from passtpy.isolation import stages
from passtpy.isolation.calls import Process
from passtpy.session import Session

at = sys.argv.index("--")
path, which, *arguments = sys.argv[1:at]
which, *words = [which, *sys.argv[at + 1 :]]
notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
number = int(which.split("/")[os.uname().machine == "aarch64"])
libc = ctypes.CDLL(None, use_errno=True)
given = [
    ctypes.c_long(int(each)) if each.lstrip("-").isdecimal() else each.encode()
    for each in arguments
]


def attack(session: Session) -> None:
    os.write(notes, b"ready\n")
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *given)
    os.write(notes, f"{result} {ctypes.get_errno()}\n".encode())
    session.stop(0)


sessions: list[Session] = []
run, shut = Session.run, stages.shut


def run_and_keep(self: Session) -> int:
    sessions.append(self)
    return run(self)


def shut_and_attack(process: Process, seccomp: Seccomp) -> bool:
    done = shut(process, seccomp)
    if process & Process.DAEMON:
        sessions[0].loop.call_soon(attack, sessions[0])
    return done


Session.run = run_and_keep  # type: ignore[method-assign]
stages.shut = shut_and_attack
sys.argv = [f"passtpy-{words[0]}", *words[1:]]
sys.exit(getattr(program, words[0])())
