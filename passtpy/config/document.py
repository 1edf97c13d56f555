# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes docs/options.md from the option table: `python -m passtpy.config.document`.

It prints to stdout; a test compares the page with what this would print.
"""

import sys
from collections.abc import Iterator

from passtpy.config.cli import show_names
from passtpy.config.option import Option
from passtpy.config.options import OPTIONS, PORT_HELP

HEAD = """\
# Options

<!-- Made by `python -m passtpy.config.document`; change passtpy/config/options.py. -->

Parsing is that of GNU `getopt_long`: `--name value`, `--name=value`, unambiguous
prefixes of long names, bundled letters (`-dft 80`). It stops at the first word that is
no option, so `pasta ls -l` gives `-l` to `ls`; passt takes no other words. When an
option is repeated the last one wins, except `-t`, `-u`, `-T` and `-U`: they accumulate.

With `--vhost-user` anywhere among the options any program is passt.

A malformed line prints the message and the usage on stderr; any other error is one
line on stderr. Both exit with status 1.

What forwarding does with the ports is told in [forwarding.md](forwarding.md).
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(option: Option) -> str:
    names = _cell(show_names(option).strip())
    default = option.default or "-"
    passt = option.told("passt").default or "-"
    if passt != default and len(option.modes) > 2:
        default = f"{default}; passt: {passt}"
    cells = (f"`{names}`", _cell(option.help), _cell(default), option.programs)
    return f"| {' | '.join(cells)} |"


def _lines() -> Iterator[str]:
    yield HEAD
    group = ""
    for option in OPTIONS:
        if option.group != group:
            group = option.group
            yield f"## {group}\n\n| Option | Meaning | Default | Programs |"
            yield "|---|---|---|---|"
        yield _row(option)
        if OPTIONS.index(option) + 1 == len(OPTIONS):
            break
        if OPTIONS[OPTIONS.index(option) + 1].group != group:
            yield ""
    yield "\n## Port specifications"
    for program, text in PORT_HELP.items():
        yield f"\nOf {program}:\n\n```text\n{text}\n```"


def document() -> str:
    """Return the whole page."""
    return "\n".join(_lines()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
