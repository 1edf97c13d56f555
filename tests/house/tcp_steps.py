# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints the table of TCP's transitions into docs/tcp.md.

`python -m tests.house.tcp_steps` writes it there; the house's tests compare.
"""

import re
from pathlib import Path

SOURCE = Path("native/proto/tcp_steps.def")
PAGE = Path("docs/tcp.md")
BEGIN, END = "<!-- steps: begin -->\n", "<!-- steps: end -->\n"

# Functions of native/proto/tcp_state.c that a row may name.
THEN = {
    "nothing": "",
    "await_ack": "it is sent again until the guest acknowledges it",
    "take_ack": "what was on its way is acknowledged: its timer ends",
    "owe_ack": "acknowledged with the batch; the guest may forget it from now on",
}

_STEP = re.compile(r'^TCP_STEP\((\w+),\s*(\w+),\s*(\w+),\s*"([^"]*)"\)$', re.M)


def table(root: Path) -> str:
    """The transitions as a table of Markdown."""
    steps = _STEP.findall((root / SOURCE).read_text())
    rows = [
        f"| `{event}` | {what} | {f'`{after}`' if after != 'NOTHING' else ''} "
        f"| {THEN[then]} |\n"
        for event, after, then, what in steps
    ]
    return "".join(
        [
            "| event | what happened | only after | and then |\n",
            "|---|---|---|---|\n",
            *rows,
        ]
    )


def written(root: Path) -> str:
    """What stands in the page."""
    return (root / PAGE).read_text().partition(BEGIN)[2].partition(END)[0]


def tcp_steps_are_printed(root: Path) -> list[str]:
    """The page shows the table that the code runs by."""
    if written(root) == table(root):
        return []
    return [f"{PAGE}: not the table of {SOURCE}; `python -m tests.house.tcp_steps`"]


def tcp_state_changes_in_one_place(root: Path) -> list[str]:
    """Only tcp_event() enters what happened to a TCP flow over the tap."""
    return [
        f"{path.relative_to(root)}: sets events of a flow, which tcp_state.c does"
        for path in sorted((root / "native/proto").glob("tcp*.[ch]"))
        if path.name != "tcp_state.c" and "flow_set_events" in path.read_text()
    ]


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    text = (root / PAGE).read_text()
    head, _, rest = text.partition(BEGIN)
    (root / PAGE).write_text(head + BEGIN + table(root) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
