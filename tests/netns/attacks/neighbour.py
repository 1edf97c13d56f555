# SPDX-License-Identifier: GPL-2.0-or-later
"""Attacks a process of ours that lives in its namespaces, as root there.

Serves an echo at port 8080. Each line on standard input is a word and a PID: `stop`,
`cont` and `kill` send that signal; `rob` tries all that would give it something. One
line of answer: what worked.
"""

import ctypes
import os
import signal
import socket
import sys
import threading

PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
PIDFD_GETFD = 438  # everywhere
SIGNALS = {"stop": signal.SIGSTOP, "cont": signal.SIGCONT, "kill": signal.SIGKILL}
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def attempts(pid: int) -> dict[str, object]:
    there = f"/proc/{pid}"
    pidfd = os.pidfd_open(pid)
    zero = ctypes.c_long(0)
    return {
        "attach": lambda: check(libc.ptrace(PTRACE_ATTACH, pid, zero, zero)),
        "seize": lambda: check(libc.ptrace(PTRACE_SEIZE, pid, zero, zero)),
        "memory": lambda: open(f"{there}/mem", "r+b"),
        "maps": lambda: open(f"{there}/maps").read(),
        "files": lambda: os.readlink(f"{there}/fd/0"),
        "root": lambda: os.listdir(f"{there}/root/"),
        "mounts": lambda: os.open(f"{there}/ns/mnt", os.O_RDONLY),
        "environment": lambda: open(f"{there}/environ").read(),
        "copy": lambda: check(libc.syscall(PIDFD_GETFD, pidfd, 0, 0)),
    }


def rob(pid: int) -> list[str]:
    got = []
    for name, attempt in attempts(pid).items():
        try:
            attempt()  # type: ignore[operator]
        except OSError:
            continue
        got.append(name)
    return got


def echo(sock: socket.socket) -> None:
    with sock:
        while data := sock.recv(4096):
            sock.sendall(data)


def serve(waiting: socket.socket) -> None:
    while True:
        sock, _ = waiting.accept()
        threading.Thread(target=echo, args=(sock,), daemon=True).start()


def obey(word: str, pid: int) -> str:
    if word == "rob":
        return " ".join(rob(pid))
    try:
        os.kill(pid, SIGNALS[word])
    except OSError:
        return ""
    return word


waiting = socket.create_server(("0.0.0.0", 8080), backlog=256)
threading.Thread(target=serve, args=(waiting,), daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    order, number = line.split()
    print(obey(order, int(number)), flush=True)
