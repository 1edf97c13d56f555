# SPDX-License-Identifier: GPL-2.0-or-later
"""Waits, as root of a namespace, for a process of the host that joins it; catches it.

Every process that appears is attached to until one can be: `caught` is said then, and
`ready` when it begins. It gives up when its standard input ends.
"""

import ctypes
import os
import select

PTRACE_ATTACH = 16

libc = ctypes.CDLL(None, use_errno=True)
before = set(os.listdir("/proc"))
print("ready", flush=True)
while not select.select([0], [], [], 0)[0]:
    for name in set(os.listdir("/proc")) - before:
        if name.isdecimal() and libc.ptrace(PTRACE_ATTACH, int(name), None, None) == 0:
            print("caught", flush=True)
            before.add(name)
