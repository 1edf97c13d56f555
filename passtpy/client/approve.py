# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a person about flows that wait, and tells the daemon the answer.

What is answered for ever is written into the policy's file, as a rule before the one
that asks, and the file is read again: whoever reads it later finds what was approved.
"""

import json
import os
import sys
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from passtpy.client.connect import Client, ClientError, WrongUse, choose
from passtpy.client.show import out, table, width

QUESTIONS: Final = "/v1/policy/questions"
LOOK_S: Final = 0.5
_PROMPT: Final = "[o]nce, [s]ession, [a]lways, [n]o, ne[v]er? "
_AGAIN: Final = "answer with one letter of o, s, a, n, v"


class Reply(NamedTuple):
    """What a person decided."""

    allow: bool
    how_long: str  # once, session or always


REPLIES: Final = {
    "o": Reply(True, "once"),
    "s": Reply(True, "session"),
    "a": Reply(True, "always"),
    "n": Reply(False, "once"),
    "v": Reply(False, "always"),
}


def run_approve(args: Namespace) -> int:
    """Run `passtpy approve`."""
    client = Client(choose(args.instance))
    if args.list:
        return _list(client, args)
    if args.id is None:
        return _converse(client)
    if args.answer is None:
        raise WrongUse("allow or deny?")
    question = next((q for q in _open(client) if q["question"] == args.id), None)
    if question is None:
        raise ClientError(f"there is no question {args.id}")
    told = settle(client, question, Reply(args.answer == "allow", args.how_long))
    out([json.dumps(told, indent=1) if args.json else _said(told)])
    return 0


def _open(client: Client) -> list[dict[str, Any]]:
    questions: list[dict[str, Any]] = client.ask("GET", QUESTIONS)["questions"]
    return questions


def show(question: dict[str, Any]) -> str:
    """Return a question as people read it."""
    where, port = question["to"], question["port"]
    place = where if question["proto"].startswith("icmp") else f"{where}:{port}"
    address = "" if where == question["address"] else f" ({question['address']})"
    return f"{question['proto']} {place}{address}"


def _said(told: dict[str, Any]) -> str:
    return f"{show(told)}: {told['answer']}"


def _list(client: Client, args: Namespace) -> int:
    questions = _open(client)
    if args.json:
        out([json.dumps(questions, indent=1)])
        return 0
    rows = [(str(q["question"]), show(q), str(q["flows"])) for q in questions]
    out(table(("ID", "QUESTION", "WAITING"), rows, width()))
    return 0


def _converse(client: Client) -> int:
    """Ask about each flow that comes, until there is nobody to answer."""
    while True:
        questions = _open(client)
        for question in questions:
            reply = _ask(question)
            if reply is None:
                return 0
            try:
                out([_said(settle(client, question, reply))])
            except ClientError as error:  # it waited too long, or the file is closed
                out([str(error)])
        if not questions:
            time.sleep(LOOK_S)


def _ask(question: dict[str, Any]) -> Reply | None:
    """Return what a person says; None: there is nobody any more."""
    while True:
        sys.stdout.write(f"{show(question)}: {_PROMPT}")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return None
        reply = REPLIES.get(line.strip().lower()[:1])
        if reply is not None:
            return reply
        out([_AGAIN])


def settle(client: Client, question: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Answer a question; for ever means: in the policy's file as well."""
    if reply.how_long == "always":
        write_rule(client.ask("GET", "/v1/policy"), question, reply.allow)
    body = {
        "answer": "allow" if reply.allow else "deny",
        "remember": reply.how_long != "once",
    }
    told: dict[str, Any] = client.ask(
        "POST", f"{QUESTIONS}/{question['question']}", body=body
    )
    if reply.how_long == "always":
        client.ask("POST", "/v1/reload")
    return told


def write_rule(policy: dict[str, Any], question: dict[str, Any], allow: bool) -> None:
    """Put a rule for this question before the one that asks it."""
    if policy["file"] is None:
        raise ClientError("there is no policy file to write to: answer for the session")
    path = Path(policy["file"])
    try:
        lines = path.read_text().splitlines(keepends=True)
        at = _place(policy, question, lines)
        before = "".join(lines[:at])
        if before and not before.endswith("\n"):
            before += "\n"
        text = f"{before}{rule_text(question, allow)}\n{''.join(lines[at:])}"
        _replace(path, text)
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from None


def _place(policy: dict[str, Any], question: dict[str, Any], lines: list[str]) -> int:
    """Return before which line the rule has to stand."""
    rule = next((r for r in policy["rules"] if r["id"] == question["rule"]), None)
    if rule is None:
        return len(lines)  # the default asks: any rule comes before that
    number = rule["place"].rpartition(":")[2]
    if number.isdecimal() and 0 < int(number) <= len(lines):
        at = int(number) - 1
        if lines[at].replace(" ", "").startswith("[[rule]]"):
            return at
    raise ClientError("the file is not as it was when it was read: reload it first")


def rule_text(question: dict[str, Any], allow: bool) -> str:
    """Return a rule that answers a question for ever."""
    proto = question["proto"].removesuffix("v6")
    lines = ["[[rule]]", f"to = [{json.dumps(question['to'])}]"]
    if proto != "icmp":
        lines.append(f"ports = [{question['port']}]")
    lines += [f'proto = "{proto}"', f'action = "{"allow" if allow else "reject"}"', ""]
    return "\n".join(lines)


def _replace(path: Path, text: str) -> None:
    """Put another file in the place of one, whole or not at all."""
    path = path.resolve()  # what a link leads to, not the link
    made = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        made.write_text(text)
        made.chmod(path.stat().st_mode & 0o7777)
        made.replace(path)
    except OSError:
        with suppress(OSError):
            made.unlink()
        raise
