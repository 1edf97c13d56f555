# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls that each process of ours may make, and why: one table.

Whatever is not in it ends the process (`--seccomp=kill`). A row is a call, who needs it
for what, and what its arguments must be; the numbers of calls are in numbers.py. What
libraries try by themselves, and can do without, has an error as its answer: see
REFUSED.
"""

import errno
import os
import socket
from enum import Flag, auto
from typing import Final

from passtpy.isolation.bpf import ERRNO, KILL, Check
from passtpy.record import record


class Process(Flag):
    """Who makes a call."""

    PASTA = auto()  # the daemon of a namespace
    PASST = auto()  # that of virtual machines
    FACTORY = auto()  # makes sockets in the namespace of somebody else
    INIT = auto()  # the first process of a command's namespaces, and its factory
    LOOKOUT = auto()  # looks at files for the daemon
    DAEMON = PASTA | PASST
    MAKER = FACTORY | INIT
    ALL = DAEMON | MAKER | LOOKOUT


P = Process

PROT_EXEC: Final = 4
_AT_EMPTY_PATH: Final = 0x1000
_SOCK_KIND: Final = 0xF
_SIOCOUTQ: Final = 0x5411
_TIOCSPGRP: Final = 0x5410
_FIONBIO: Final = 0x5421
_SIOCGIFINDEX: Final = 0x8933
_F_SETFL: Final = 4
_F_DUPFD_CLOEXEC: Final = 1030
_F_GET_SEALS: Final = 1034
_TUNSETPERSIST: Final = 0x400454CB
_TUNATTACHFILTER: Final = 0x401054D5
_TUNDETACHFILTER: Final = 0x401054D6
_TUN: Final = (_TUNSETPERSIST, _TUNATTACHFILTER, _TUNDETACHFILTER)
_NETLINK_ROUTE: Final = 0
_NETLINK_SOCK_DIAG: Final = 4

_INTERNET: Final = Check(0, (socket.AF_INET, socket.AF_INET6))
_OF_NAMESPACE: Final = Check(0, (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK))
_PROTOCOLS: Final = Check(
    2,
    (
        _NETLINK_ROUTE,  # the same number as the usual protocol of an address family
        _NETLINK_SOCK_DIAG,
        socket.IPPROTO_TCP,
        socket.IPPROTO_UDP,
    ),
)
_NO_RAW: Final = Check(1, (socket.SOCK_STREAM, socket.SOCK_DGRAM), _SOCK_KIND)
_NO_CODE: Final = Check(2, (0,), PROT_EXEC)


@record
class Call:
    """One call: for whom, why, with what arguments, and the answer to others."""

    name: str
    who: Process
    why: str
    checks: tuple[Check, ...] = ()
    otherwise: int = KILL
    only: str = ""  # this architecture
    rare: bool = False  # when it is needed depends on more than a test can bring about


TABLE: Final = (
    # Packets: the most frequent first
    Call("epoll_pwait", P.DAEMON, "what is ready"),
    Call("recvmsg", P.DAEMON, "datagrams; what comes with descriptors"),
    Call("sendmsg", P.ALL, "payload; sockets for the daemon"),
    Call("recvfrom", P.ALL, "payload, netlink, requests"),
    Call("sendto", P.DAEMON | P.MAKER, "payload, netlink, answers"),
    Call("recvmmsg", P.DAEMON, "datagrams, many at once"),
    Call("sendmmsg", P.DAEMON, "datagrams, many at once"),
    Call("read", P.DAEMON | P.INIT | P.LOOKOUT, "the tap, timers, signals, files"),
    Call("write", P.DAEMON, "the log, notifications of a machine"),
    Call("writev", P.PASTA, "the tap"),
    Call("epoll_ctl", P.DAEMON, "sockets of flows"),
    Call("timerfd_settime", P.DAEMON, "the next deadline"),
    # Sockets
    Call(
        "socket",
        P.DAEMON,
        "of flows and listeners: TCP, UDP, ping; nothing raw, local, or netlink",
        (_INTERNET, _NO_RAW),
    ),
    Call(
        "socket",
        P.MAKER,
        "what the daemon asks for, and netlink; nothing raw, nothing local",
        (_OF_NAMESPACE, _NO_RAW, _PROTOCOLS),
    ),
    Call(
        "socket",
        P.LOOKOUT,
        "UNIX sockets to which ports are forwarded, and such as become ports",
        (Check(0, (socket.AF_UNIX,)), Check(1, (socket.SOCK_STREAM,), _SOCK_KIND)),
    ),
    Call(
        "socketpair",
        P.DAEMON,
        "a connection to our own resolver; not datagrams, which may go anywhere",
        (Check(0, (socket.AF_UNIX,)), Check(1, (socket.SOCK_STREAM,), _SOCK_KIND)),
    ),
    Call("bind", P.ALL, "sources of flows; listeners"),
    Call("listen", P.ALL, "ports that are added, or found by themselves"),
    Call("connect", P.DAEMON | P.LOOKOUT, "flows; UNIX sockets they lead to"),
    Call("accept4", P.DAEMON, "flows, machines, clients of the control socket"),
    Call("shutdown", P.DAEMON, "one direction of a flow ends"),
    Call("getpeername", P.DAEMON, "whether a socket that was made for us is connected"),
    Call("getsockname", P.DAEMON, "which address the host chose; the loop"),
    Call("setsockopt", P.DAEMON | P.MAKER, "options of flows and listeners"),
    Call("getsockopt", P.DAEMON, "errors of flows; who a client is"),
    # Descriptors
    Call("close", P.ALL, "everything has an end"),
    Call(
        "fstat", P.DAEMON | P.LOOKOUT, "what a file or a machine's memory is", rare=True
    ),
    Call(
        "newfstatat",
        P.DAEMON,
        "the same in some C libraries: no name, only a descriptor",
        (Check(3, (_AT_EMPTY_PATH,), _AT_EMPTY_PATH),),
        ERRNO | errno.ENOENT,
    ),
    Call("newfstatat", P.LOOKOUT, "folders on the way to resolv.conf"),
    Call(
        "lseek",
        P.DAEMON | P.LOOKOUT,
        "tables of /proc are read again; a log file that is full",
    ),
    Call("ftruncate", P.DAEMON, "a log file that is full keeps its newest part"),
    Call("fsync", P.DAEMON, "logs and captures at the end"),
    Call(
        "fcntl",
        P.PASTA | P.MAKER,
        "copies: tables of ports, without sock_diag; a spare, if no descriptor is left",
        (Check(1, (_F_DUPFD_CLOEXEC,)),),
    ),
    Call(
        "fcntl",
        P.PASST,
        "copies; what a machine passes: whether its memory may shrink, non-blocking",
        (Check(1, (_F_DUPFD_CLOEXEC, _F_SETFL, _F_GET_SEALS)),),
    ),
    Call(
        "ioctl",
        P.DAEMON,
        "bytes not sent yet; non-blocking; the tap stays with its namespace, "
        "and drops what floods us; the terminal goes back to the shell; which number "
        "an interface has",
        (Check(1, (_FIONBIO, _SIOCOUTQ, _TIOCSPGRP, _SIOCGIFINDEX, *_TUN)),),
        ERRNO | errno.ENOTTY,
    ),
    # Memory and threads
    Call("brk", P.ALL, "memory", rare=True),
    Call(
        "mmap",
        P.ALL,
        "memory, that of a machine too; never code",
        (_NO_CODE,),
        rare=True,
    ),
    Call("munmap", P.ALL, "memory", rare=True),
    Call("mremap", P.ALL, "memory", rare=True),
    Call("mprotect", P.DAEMON, "memory of threads; never code", (_NO_CODE,), rare=True),
    Call("futex", P.DAEMON, "locks"),
    Call("exit", P.DAEMON, "a thread ends"),
    Call("getpid", P.DAEMON, "the loop ends"),
    Call("tgkill", P.DAEMON, "a thread that hangs is cancelled", rare=True),
    Call("exit_group", P.ALL, "the end"),
    # Signals, time and the like
    Call(
        "rt_sigreturn",
        P.DAEMON,
        "a machine has shrunk its memory: SIGBUS; a thread is cancelled",
        rare=True,
    ),
    Call("rt_sigprocmask", P.PASTA, "the terminal goes back to the shell"),
    Call("restart_syscall", P.ALL, "we were stopped and went on", rare=True),
    Call("poll", P.DAEMON | P.INIT | P.LOOKOUT, "a few descriptors"),
    Call("ppoll", P.DAEMON | P.INIT | P.LOOKOUT, "the same", only="aarch64"),
    Call("wait4", P.PASTA | P.INIT, "how the command ended; orphans"),
    Call("kill", P.INIT, "signals for the command"),
    Call("pidfd_send_signal", P.PASTA, "the command, if it does not end"),
    Call(
        "clock_gettime",
        P.ALL,
        "what we have used; time, where the kernel's page cannot tell",
        rare=True,
    ),
    Call("getrandom", P.DAEMON, "numbers of questions to resolvers"),
    # Files, for the process that no packet reaches
    Call("openat", P.LOOKOUT, "resolv.conf, who a client is, the log file anew"),
    Call("readlink", P.LOOKOUT, "resolv.conf is often a link"),
    Call("readlinkat", P.LOOKOUT, "the same", only="aarch64"),
    Call("renameat", P.LOOKOUT, "a log file that is full becomes the one before"),
    Call("inotify_init1", P.LOOKOUT, "changes of it"),
    Call("inotify_add_watch", P.LOOKOUT, "changes of it"),
    Call("unlink", P.LOOKOUT, "the names of our sockets, when they are over"),
    Call("unlinkat", P.LOOKOUT, "the same, in the folders of --unix-folder"),
    Call("fchdir", P.LOOKOUT, "there, sockets are bound"),
    Call("umask", P.LOOKOUT, "the mode of their files"),
)

# What libraries try and can do without: they are told no, and nothing is done.
REFUSED: Final = (
    # There are no files: Python looks for the lines of a traceback, the C library for
    # time zones and for the limits of memory.
    ("openat", errno.ENOENT),
    ("open", errno.ENOENT),
    ("stat", errno.ENOENT),
    ("lstat", errno.ENOENT),
    ("readlink", errno.ENOENT),
    ("readlinkat", errno.ENOENT),
    ("access", errno.ENOENT),
    ("faccessat", errno.ENOENT),
    ("unlink", errno.EACCES),
    ("unlinkat", errno.EACCES),
    ("getsockname", errno.ENOTSOCK),  # Python describes what it finds open at the end
    ("getpeername", errno.ENOTCONN),
    ("rt_sigprocmask", errno.EPERM),  # a thread that ends
    ("ioctl", errno.ENOTTY),  # Python asks whether a file is a terminal
    ("fstat", errno.EPERM),
    ("newfstatat", errno.EPERM),
    ("prctl", errno.EPERM),  # names of threads
    ("madvise", errno.EINVAL),  # memory that could be given back
    ("rt_sigaction", errno.EPERM),  # Python, at its end
    ("prlimit64", errno.EPERM),
    ("sysinfo", errno.EPERM),
    ("sched_getaffinity", errno.EPERM),
)


def allowed(process: Process) -> tuple[Call, ...]:
    """Return the rows of one kind of process."""
    machine = os.uname().machine
    return tuple(r for r in TABLE if r.who & process and r.only in ("", machine))
