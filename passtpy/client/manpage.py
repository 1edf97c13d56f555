# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the manual pages of the commands: `python -m passtpy.client.manpage`.

It prints roff to stdout, of passtpy(1) unless `pesto`, `slirp4netns` or `cni` is said.
Commands and options are those of the tables that make --help; a test compares the
pages in docs/ with it.
"""

import sys
from collections.abc import Callable, Iterator

from passtpy import __version__
from passtpy.client.command import FOLLOW, INSTANCE, SHARED, Arg, Command
from passtpy.client.commands import COMMANDS
from passtpy.client.manpage_others import cni_manpage, pesto_manpage, slirp_manpage
from passtpy.config.manpage import DATE, escape, fold, sentence
from passtpy.control.filter import BOUNDS, FIELDS

HEAD = rf"""
.\" Made by `python -m passtpy.client.manpage`; change passtpy/client/.
.TH PASSTPY 1 "{DATE}" "passtpy {__version__}" "User Commands"
.SH NAME
passtpy \- ask and change running user\-mode networks
.SH SYNOPSIS
.B passtpy
.I COMMAND
.RI [ OPTION ].\|.\|.\& " " [ WORD ].\|.\|.
.br
.B passtpy
.BR pasta | passt | pesto | slirp4netns
.RI [ WORD ].\|.\|.
.br
.B passtpy
.BR run | learn
.RI [ OPTION ].\|.\|.\& " " [ \-\- ]
.IR COMMAND " [" ARG ].\|.\|.
.br
.B passtpy
.BR \-\-help | \-\-version
.SH DESCRIPTION
Each daemon that
.BR passtpy\-pasta (1)
or
.BR passtpy\-passt (1)
has started listens at a control socket. The commands below ask it what it does, and
change what it does, without a restart. With
.BR pasta ,
.BR passt ,
.B pesto
or
.B slirp4netns
as its first word
.B passtpy
is the program of that name.
.PP
.B passtpy run
gives
.I COMMAND
a network of its own, as
.B passtpy\-pasta \-\-config\-net
without forwarded ports does, and takes the same options. In it the internet can be
reached, or what
.BR \-\-allow ,
.B \-\-deny
and
.B \-\-policy
say; the host cannot, unless they name it.
.B passtpy learn
lets everything pass, and prints the policy that
.I COMMAND
has needed.
.PP
Who may ask: the user who started the daemon, and root; nobody from within the
namespace that it serves.
.SH OPTIONS
Options may stand between other words.
"""

TAIL = r"""
.SH EXIT STATUS
.TP
.B 0
Done; also when nothing was found, or the reader of a pipe went away.
.TP
.B 1
Nobody was there to be asked, or the daemon refused, or its answer ended early; a line
on standard error tells why.
.TP
.B 2
Wrong use: an unknown word, option or filter, or a specification that makes no sense.
.SH ENVIRONMENT
.TP
.B XDG_RUNTIME_DIR
Where the sockets of a user are. Without it the user's daemons have none, unless
.B \-\-control
names one.
.SH FILES
.TP
.I /run/passtpy/NAME.sock
The control socket of a daemon that root started.
.I NAME
is what its
.B \-\-name
says, or else its PID.
.TP
.I $XDG_RUNTIME_DIR/passtpy/NAME.sock
The same of any other user.
.SH EXAMPLES
.TP
.B passtpy run \-\-allow github.com \-\- git clone https://github.com/git/git
Let a command reach one name, and nothing else.
.TP
.B passtpy flows \-w tcp and dst port 443
Look at HTTPS connections each second.
.TP
.B passtpy explain example.org:443
Say which rule would decide about a connection of the guest, and how.
.TP
.B passtpy explain 127.0.0.1:80 \-\-from host \-\- pasta \-t 80:81
The same of a daemon that does not run, by its command line.
.TP
.B passtpy ports add \-i web tcp:8080:80 udp:127.0.0.1/5353
Forward two more ports, or neither, to the guest of the instance
.IR web .
.TP
.B passtpy capture \-w \- tcp port 443 | tshark \-r \-
Read packets as they cross.
.TP
.B passtpy close rule 7 and from host
Reset flows that rule 7 let in from the host.
.TP
.B source <(passtpy completion bash)
Have bash complete all this.
.SH SEE ALSO
.BR passtpy\-cni (1),
.BR passtpy\-passt (1),
.BR passtpy\-pasta (1),
.BR passtpy\-pesto (1),
.BR passtpy\-slirp4netns (1)
"""

HELP = Arg(("-h", "--help"), "print help", {"action": "store_true"})


def _bold(word: str) -> str:
    return rf"\fB{escape(word)}\fR"


def _value(arg: Arg) -> str:
    """Return what an option or a word takes, as --help names it."""
    options = arg.options
    if options.get("action") == "store_true":
        return ""
    if "choices" in options:
        return "|".join(map(_bold, options["choices"]))
    name = options.get("metavar") or options.get("dest") or arg.names[-1].lstrip("-")
    return rf"\fI{escape(name.upper())}\fR"


def _is_option(arg: Arg) -> bool:
    return arg.names[0].startswith("-")


def _synopsis(command: Command) -> str:
    words = [_bold(f"passtpy {command.name}"), r"[\fIOPTION\fR].\|.\|.\&"]
    for arg in command.args:
        if _is_option(arg):
            continue
        count = arg.options.get("nargs", "")
        text = _value(arg) + (r".\|.\|.\&" if count in ("*", "+") else "")
        words.append(f"[{text}]" if count in ("*", "?") else text)
    return " ".join(words)


def _arg_lines(arg: Arg) -> Iterator[str]:
    names = ", ".join(map(_bold, arg.names)) if _is_option(arg) else ""
    yield ".TP"
    yield " ".join(filter(None, (names, _value(arg))))
    default = arg.options.get("default")
    told = "" if default is None else f" Default: {default}."
    yield escape(sentence(arg.help) + told)


def _command_lines(command: Command) -> Iterator[str]:
    yield f".SS passtpy {command.name}"
    yield _synopsis(command)
    yield ".PP"
    told = [sentence(command.help)]
    if command.follows:
        told.append(f"Takes {FOLLOW.names[0]}.")
    if command.local:
        told.append(f"Takes no {INSTANCE.names[0]}.")
    yield escape(" ".join(told))
    for arg in command.args:
        yield from _arg_lines(arg)


def _filter_lines() -> Iterator[str]:
    yield ".SH FILTERS"
    yield "A filter chooses flows by one or more words, quoted where the shell would"
    yield "read them:"
    for words, meaning in FIELDS:
        yield ".TP"
        yield _bold(words)
        yield escape(sentence(meaning))
    yield from (".PP", escape(BOUNDS))


def manpage() -> str:
    """Return the page of passtpy and its commands."""
    lines = [line for arg in (HELP, *SHARED) for line in _arg_lines(arg)]
    lines.append(".SH COMMANDS")
    lines += (line for command in COMMANDS for line in _command_lines(command))
    lines += _filter_lines()
    return fold(HEAD.lstrip() + "\n".join(lines) + TAIL)


PAGES: dict[str, Callable[[], str]] = {
    "passtpy": manpage,
    "pesto": pesto_manpage,
    "slirp4netns": slirp_manpage,
    "cni": cni_manpage,
}


if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1] if sys.argv[1:] else "passtpy"]())
