# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes docs/compatibility.md: `python -m passtpy.config.differences`.

The rows are those of the option table; what is not told below behaves as in passt and
pasta. It prints to stdout; a test compares the page with what this would print.
"""

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from passtpy.config.cli import show_names
from passtpy.config.newer import NEWER
from passtpy.config.option import Option
from passtpy.config.options import OPTIONS, options_of


class Verdict(StrEnum):
    """How an option compares with that of passt and pasta."""

    EQUAL = "equal"
    BETTER = "better"
    DIFFERS = "differs"
    NEW = "new"


class Note(NamedTuple):
    """What is not as there, and why."""

    verdict: Verdict
    text: str


_EQUAL, _BETTER = Verdict.EQUAL, Verdict.BETTER
_DIFFERS, _NEW = Verdict.DIFFERS, Verdict.NEW

NOTES: Final[dict[str, Note]] = {
    "debug": Note(_DIFFERS, "the same levels, other words: events with fields"),
    "trace": Note(_DIFFERS, "as for --debug"),
    "stats": Note(
        _BETTER,
        "may stand before or after -f; the number is checked; the columns are counters"
        " of frames, bytes, flows and drops, not of wake-ups by kind of descriptor",
    ),
    "drain-timeout": Note(_NEW, "there a signal ends all connections at once"),
    "log-file": Note(_DIFFERS, "lines are events with fields; the first names us"),
    "log-size": Note(_BETTER, "junk behind the number is refused"),
    "seccomp": Note(_NEW, "there a filter kills, and cannot be chosen otherwise"),
    "impair": Note(_NEW, "for tests of what runs in a guest"),
    "chroot-fallback": Note(
        _BETTER, "without it, where it would help, we start, and a line says so"
    ),
    "name": Note(_NEW, "instances have names"),
    "control": Note(_NEW, "HTTP and JSON: flows, rules, ports, metrics, events"),
    "conf-path": Note(
        _BETTER,
        "a client that stops half-way stops nobody; a change is made as a whole or not"
        " at all, and told; ports that stay are never closed; a file that is no socket"
        " is left alone",
    ),
    "api-socket": Note(_NEW, "for tools that know slirp4netns"),
    "gvproxy-services": Note(_NEW, "for tools that know gvproxy"),
    "unix-folder": Note(_NEW, "UNIX sockets as ends of forwards, see forwarding.md"),
    "metrics": Note(_NEW, "for Prometheus"),
    "policy": Note(_NEW, "what the guest may reach: by name, network and port"),
    "allow": Note(_NEW, "the same on the command line"),
    "deny": Note(_NEW, "the same on the command line"),
    "policy-mode": Note(_NEW, "a policy may be tried before it is enforced"),
    "learn": Note(_NEW, "a policy is written for what a program does"),
    "rate-in": Note(_NEW, "there nothing is limited"),
    "rate-out": Note(_NEW, "as for --rate-in"),
    "audit": Note(_NEW, "refusals as JSON lines, a loop of them counted"),
    "dns-server": Note(_NEW, "a cache, failover, TCP; what was not asked is not told"),
    "dns-record": Note(_NEW, "also suffixes and expressions, as gvproxy has them"),
    "log-files": Note(_NEW, "nothing is forgotten when a file is full"),
    "log-format": Note(_NEW, "json for log collectors"),
    "pid": Note(_BETTER, "written once ready; may be a pipe or a device, too"),
    "pcap": Note(_BETTER, "flushed by every signal that ends us, SIGINT too"),
    "socket": Note(
        _BETTER,
        "a stale file is only replaced if it is a socket that nobody answers at; the"
        " file is removed at the end where we may; root's socket belongs to the user"
        " that we become",
    ),
    "fd": Note(
        _BETTER,
        "what is no connected stream socket is refused at once; pasta refuses it",
    ),
    "one-off": Note(
        _EQUAL, "a machine that sends a length which no frame can have has left, too"
    ),
    "vhost-user": Note(
        _BETTER,
        "checksums and segmentation are left to the other side; only as an option: a"
        " command given to pasta may have one of that name",
    ),
    "repair-path": Note(_DIFFERS, "accepted with a warning: flows do not migrate"),
    "migrate-exit": Note(_DIFFERS, "as for --repair-path"),
    "migrate-no-linger": Note(_DIFFERS, "as for --repair-path"),
    "config-net": Note(
        _BETTER,
        "addresses and routes follow the host; any number of routes is copied;"
        " the queue of the tap is long enough for all flows",
    ),
    "no-copy-routes": Note(_BETTER, "works also when the gateway is no neighbour"),
    "interface": Note(
        _BETTER, "may come back later: while it is gone the guest keeps what it has"
    ),
    "address": Note(_BETTER, "the length of an IPv6 prefix is honoured, not always 64"),
    "outbound": Note(
        _BETTER,
        "without it a source that a program of the guest chose is kept, if it is a"
        " further address of the interface that its own resembles",
    ),
    "outbound-if4": Note(
        _BETTER, "may come later, or again; without a usable address: local mode"
    ),
    "outbound-if6": Note(_BETTER, "as for --outbound-if4"),
    "no-icmp": Note(_DIFFERS, "error messages about TCP and UDP flows still arrive"),
    "udp-filter": Note(
        _NEW,
        "pasta lets in the endpoint only, and has a port for each remote; here one port"
        " serves all remotes of a socket (RFC 4787)",
    ),
    "multicast-relay": Note(_NEW, "mDNS, SSDP and the like, for those who want them"),
    "map-host-loopback": Note(
        _BETTER, "the default is the gateway as it is now, when the host moves"
    ),
    "map-guest-addr": Note(_BETTER, "the address meant follows the host"),
    "dns-forward": Note(
        _BETTER,
        "follows resolv.conf; a resolver of the other family is asked where there is"
        " none of this one, and the host itself where no resolver is known;"
        " without the option, a gateway that is a resolver stays one although its"
        " address stands for the host",
    ),
    "dns-host": Note(_BETTER, "the default follows resolv.conf"),
    "no-dhcp": Note(_BETTER, "DHCP also answers NAK, INFORM, RELEASE and DECLINE"),
    "no-dhcpv6": Note(_BETTER, "REBIND is answered as RFC 8415 asks, rapid commit too"),
    "no-ra": Note(
        _BETTER, "what is no longer true is withdrawn; DNSSL needs no IPv6 resolver"
    ),
    "dns": Note(_BETTER, "the default follows resolv.conf"),
    "search": Note(
        _BETTER, "several domains in one value are several domains; follows resolv.conf"
    ),
    "hostname": Note(_DIFFERS, "only letters, digits, '.', '-' and '_'"),
    "fqdn": Note(_DIFFERS, "as for --hostname"),
    "tcp-ports": Note(
        _BETTER,
        "auto asks the kernel over sock_diag; one port that cannot be bound hides no"
        " other; the same port on two interfaces is no conflict",
    ),
    "udp-ports": Note(_BETTER, "as for --tcp-ports"),
    "tcp-ns": Note(_BETTER, "a mistake is told before the namespace is touched"),
    "udp-ns": Note(_BETTER, "as for --tcp-ns"),
    "preserve-source": Note(_NEW, "pasta loses the client's address on loopback flows"),
}

HEAD: Final = """\
# Compatibility

<!-- Made by `python -m passtpy.config.differences`; change that file. -->

`passtpy-pasta` and `passtpy-passt` take the command lines of `pasta` and `passt` and
keep what their callers (podman, rootlesskit, libvirt) rely on: the same option names,
prefixes, defaults, messages and exit statuses; the parent returns when everything
works, with descriptors 0 to 2 closed; they say nothing with `--quiet`; pasta quits when
the namespace is gone, passt with `--one-off` when the machine has left. The option
table and its meaning: [options.md](options.md).

*equal*: nobody will see a difference. *better*: the same, and what the note says.
*differs*: as the note says. *new*: they have no such option.
"""

TAIL: Final = """\
## Refused

What belongs to the other program is refused as there, with status 1. Any other option
that we do not have is `unrecognized option`, which is how podman and rootlesskit find
out what a version can do.
"""

BEYOND: Final = """
## Beyond options

| What | Programs | | Note |
|---|---|---|---|
| Order in which mistakes are told | both | better | as there in two passes (the \
line; `-t -u -T -U`), but both before anything is touched |
| Start-up summary | both | equal | the same lines in the same order, each after the \
time; then what to tell qemu, and one event, `namespace.ready` or `machine.awaited` |
| `--version` | both | differs | says `pasta` or `passt`, and our version |
| Change of the host's network | both | better | followed: see \
[operating.md](operating.md) |
| Command's namespaces | pasta | better | a small init reaps orphans; when the command \
ends, or we are killed, nothing of it survives |
| SIGINT | both | better | ends the daemon as SIGTERM does, files flushed |
| SIGHUP | both | differs | opens the log again; there it ends the daemon |
| Capabilities of the daemon | both | better | none; pasta keeps two. What has to be \
done in the namespace later is done by a process inside it that can do nothing else |
| System call filter | both | better | one for each process, with arguments: see \
[security.md](security.md) |
| Empty root directory | both | better | also for the processes in the namespace |
| A client of the other family than the server | both | better | served, TCP and UDP, \
over the tap and spliced: see [forwarding.md](forwarding.md) |
| Short frames with padding | passt | better | accepted; there they are dropped |
| A machine that leaves within a frame | passt | better | the next one starts anew; \
there the socket is lost for all |
| Checksums of the machine's frames | passt | better | verified, bad ones are dropped |
| Flows of a machine that comes back | passt | better | go on, and are not read from \
meanwhile; one that was started anew resets what it does not know |
| Ping on a host that allows nobody ping sockets | both | better | works all the same \
where root has started us: see [icmp.md](icmp.md); else it is said which sysctl to set |
| Migration of flows | passt | differs | none |
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(option: Option) -> str:
    note = NOTES.get(option.key, Note(Verdict.EQUAL, ""))
    name = _cell(show_names(option).strip())
    return f"| `{name}` | {option.programs} | {note.verdict} | {_cell(note.text)} |"


def _refused(program: str) -> Iterator[str]:
    yield f"\nBy {program}:\n\n| Option | Message |\n|---|---|"
    known = options_of(program)
    for option in OPTIONS:
        if option not in known and option.key != "vhost-user":
            yield f"| `{', '.join(option.names)}` | {option.refused()} |"


def _lines() -> Iterator[str]:
    yield HEAD
    group = ""
    for option in OPTIONS:
        if option.group != group:
            if group:
                yield ""
            group = option.group
            yield f"## {group}\n\n| Option | Programs | | Note |\n|---|---|---|---|"
        yield _row(option)
    yield f"\n{TAIL.rstrip()}"
    for program in ("pasta", "passt"):
        yield from _refused(program)
    yield BEYOND.rstrip()
    yield NEWER.rstrip()


def differences() -> str:
    """Return the whole page."""
    return "\n".join(_lines()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(differences())
