# SPDX-License-Identifier: GPL-2.0-or-later
"""Attacks process 1 of its namespaces, as root there; says what it got.

One word on standard output for each thing that worked.
"""

import ctypes
import os

PTRACE_ATTACH = 16
FIRST = 1


def _try_memory() -> None:
    with open(f"/proc/{FIRST}/mem", "r+b"):
        print("memory")


def _try_files() -> None:
    for number in os.listdir(f"/proc/{FIRST}/fd"):
        print("file:" + os.readlink(f"/proc/{FIRST}/fd/{number}"))


def _try_copy() -> None:
    pidfd = os.pidfd_open(FIRST)
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(64):
        fd = libc.syscall(438, pidfd, number, 0)  # pidfd_getfd, everywhere
        if fd >= 0:
            print("copied:" + os.readlink(f"/proc/self/fd/{fd}"))


def _try_attach() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, FIRST, None, None) == 0:
        print("attached")


def _try_folder() -> None:
    print("folder:" + os.readlink(f"/proc/{FIRST}/cwd"))


for attempt in (_try_memory, _try_files, _try_copy, _try_attach, _try_folder):
    try:
        attempt()
    except OSError:
        continue
with open(f"/proc/{FIRST}/status", encoding="ascii") as file:
    told = ("CapEff:", "Seccomp:")
    print(*(line.strip() for line in file if line.startswith(told)))
