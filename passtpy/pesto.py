# SPDX-License-Identifier: GPL-2.0-or-later
"""The program passtpy-pesto: shows and changes the ports of a running daemon.

Its command line is pesto's. Commands apply, in the order of the line, to a copy of the
tables that the daemon sends; the result goes back as a whole. Ours also answers, so
that a port that could not be had is an error here, and not a surprise later.
"""

import socket
import sys
from collections.abc import Iterator, Sequence

from passtpy import __version__
from passtpy.config.getopt import Getopt, GetoptError, Grammar
from passtpy.config.late import PORT_OPTIONS
from passtpy.config.portrule import Able, PortRule, PortTable, RuleError, Side
from passtpy.config.ports import NONE, PortContext, Span, ephemeral_ports, read_ports
from passtpy.config.rawrule import SIDES, TABLES, from_raw, to_raw
from passtpy.errors import ConfigError, WireError
from passtpy.wire.pesto import GreetingReader, emit_update

MAX_PATH = 107  # bytes of a UNIX socket's
LICENSE = "GPL-2.0-or-later"
USAGE = """\
Usage: pesto [OPTION]... PATH

Show or change the ports that a running passt or pasta forwards. PATH is where its
option -c made a socket.

  -s, --show            print the ports before and after a change
  -A, --add             add what follows to what there is
  -D, --delete          delete what follows
  -C, --clear TABLE     forget all of a table: HOST or SPLICE
  -t, --tcp-ports SPEC  TCP ports of the host, to the guest
  -u, --udp-ports SPEC  UDP ports of the host, to the guest
  -T, --tcp-ns SPEC     TCP ports of the namespace, to the host
  -U, --udp-ns SPEC     UDP ports of the namespace, to the host
  -d, --debug           print what is sent
  -h, --help            print this
      --version         print the version

Without -A and -D the first -t replaces all TCP ports of its table, and so for the
others. Without any of them the ports are printed. SPEC is that of pasta.
"""

_SHORT = {
    "s": "show",
    "A": "add",
    "D": "delete",
    "C": "clear",
    "t": "tcp-ports",
    "u": "udp-ports",
    "T": "tcp-ns",
    "U": "udp-ns",
    "d": "debug",
    "h": "help",
}
_GRAMMAR = Grammar(
    short=_SHORT,
    long={name: name for name in (*_SHORT.values(), "version")},
    valued=frozenset(("clear", *PORT_OPTIONS)),
)


class PestoError(Exception):
    """What to say on stderr before exit status 1."""


class _Usage(PestoError):
    pass


def _words(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield options, and ("", word) for each other word, wherever it stands."""
    left = list(words)
    while left:
        getopt = Getopt(left, _GRAMMAR)
        yield from getopt
        rest = getopt.rest
        if "--" in left[: len(left) - len(rest)]:
            yield from (("", word) for word in rest)
            return
        if rest:
            yield "", rest[0]
        left = rest[1:]


class Editor:
    """Applies the commands of one line to a copy of the tables."""

    def __init__(self, tables: Sequence[PortTable], ephemeral: Span) -> None:
        self.tables = {table.side: table for table in tables}
        self._ephemeral = ephemeral
        self._command = ""  # add, delete, or none yet: the first of a kind replaces
        self._replaced: set[str] = set()

    def apply(self, option: str, value: str) -> None:
        """Carry out one option; PestoError for what cannot be."""
        if option in ("add", "delete"):
            self._command = option
        elif option == "clear":
            self._clear(value)
        elif option in PORT_OPTIONS:
            self._ports(option, value)

    def _clear(self, name: str) -> None:
        side = next((s for s in self.tables if s.value == name), None)
        if side is None:
            raise PestoError(f"Unsupported pif name {name}")
        self.tables[side] = self.tables[side].cleared()
        each = {o for o, p in PORT_OPTIONS.items() if p.side is side}
        self._replaced |= each

    def _ports(self, option: str, text: str) -> None:
        each = PORT_OPTIONS[option]
        table = self.tables.get(each.side)
        if table is None:
            way = "outbound" if each.side is Side.SPLICE else "inbound"
            raise PestoError(f"Can't use {each.name}, no {way} interface")
        if not self._command and option not in self._replaced:
            rest = tuple(rule for rule in table.rules if rule.proto != each.proto)
            table = PortTable(table.side, table.able, rest)
        self._replaced.add(option)
        for rule in self._read(option, text, table.able):
            table = table.delete(rule) if self._command == "delete" else table.add(rule)
        self.tables[each.side] = table

    def _read(self, option: str, text: str, able: Able) -> tuple[PortRule, ...]:
        if text == NONE:
            return ()
        each = PORT_OPTIONS[option]
        context = PortContext(
            option=each.name,
            proto=each.proto,
            side=each.side,
            ipv4=bool(able & Able.IPV4),
            ipv6=bool(able & Able.IPV6),
            scans=bool(able & Able.SCAN),
            ephemeral=self._ephemeral,
        )
        rules = read_ports(text, context)
        if not all(rule.is_plain for rule in rules):
            raise PestoError(
                f"pesto's protocol cannot tell {each.name} {text}: use passtpy ports"
            )
        return rules


def _connect(path: str) -> socket.socket:
    if not 0 < len(path.encode(errors="surrogateescape")) <= MAX_PATH:
        raise PestoError(f'Invalid socket path "{path}"')
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise PestoError(f"Failed to connect to {path}: {error.strerror}") from None
    return sock


def _read_tables(sock: socket.socket) -> tuple[PortTable, ...]:
    """Return what the daemon has; tables that we do not know are left alone."""
    reader = GreetingReader()
    try:
        while reader.tables is None:
            data = sock.recv(65536)
            if not data:
                raise PestoError("Error reading from control socket")
            reader.feed(data)
    except OSError as error:
        raise PestoError(f"Couldn't read server greeting: {error.strerror}") from None
    return tuple(
        PortTable(
            SIDES[raw.number], Able(raw.able), tuple(from_raw(r) for r in raw.rules)
        )
        for raw in reader.tables
        if raw.number in SIDES
    )


def _show(tables: Sequence[PortTable]) -> Iterator[str]:
    for table in tables:
        yield f"  {table.side.value}"
        yield from (f"    {rule}" for rule in table.rules)


def _send(sock: socket.socket, tables: Sequence[PortTable], debug: bool) -> None:
    """Send the new state, and wait for what the daemon says about it."""
    update = emit_update(
        (TABLES[table.side], tuple(to_raw(rule) for rule in table.rules))
        for table in tables
    )
    if debug:
        sys.stderr.write(f"sending {len(update)} bytes: {update.hex()}\n")
    said = bytearray()
    try:
        sock.sendall(update)
        while len(said) < 65536 and (data := sock.recv(4096)):
            said += data
    except OSError as error:
        raise PestoError(f"Error writing to control socket: {error.strerror}") from None
    if said:
        raise PestoError(said.decode(errors="surrogateescape").rstrip("\n"))


def run(words: Sequence[str], ephemeral: Span) -> int:
    """Do what the line says; PestoError for whatever goes wrong."""
    options = list(_words(words))
    named = [name for name, _ in options]
    if "help" in named:
        sys.stdout.write(USAGE)
        return 0
    if "version" in named:
        sys.stdout.write(f"pesto {__version__}\n{LICENSE}\n")
        return 0
    paths = [value for name, value in options if not name]
    if len(paths) != 1:
        raise _Usage("exactly one path is needed")
    changes = [(name, value) for name, value in options if name in _CHANGES]
    with _connect(paths[0]) as sock:
        tables = _read_tables(sock)
        lines = list(_show(tables))
        if not changes:
            _print(f"passt/pasta configuration ({paths[0]})", lines)
            return 0
        if "show" in named:
            _print(f"Previous configuration ({paths[0]})", lines)
        editor = Editor(tables, ephemeral)
        for name, value in changes:
            editor.apply(name, value)
        changed = tuple(editor.tables.values())
        _send(sock, changed, "debug" in named)
        if "show" in named:
            _print(f"Updated configuration ({paths[0]})", _show(changed))
    return 0


_CHANGES = frozenset(("add", "delete", "clear", *PORT_OPTIONS))


def _print(head: str, lines: Sequence[str] | Iterator[str]) -> None:
    sys.stdout.write("\n".join((head, *lines)) + "\n")


def main(words: Sequence[str] | None = None) -> int:
    """Be pesto."""
    try:
        return run(sys.argv[1:] if words is None else words, ephemeral_ports())
    except (_Usage, GetoptError) as error:
        sys.stderr.write(f"{error}\n{USAGE}")
    except (PestoError, ConfigError, RuleError, WireError) as error:
        sys.stderr.write(f"{error}\n")
    except BrokenPipeError:
        pass
    return 1


if __name__ == "__main__":
    sys.exit(main())
