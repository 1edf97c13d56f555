# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands about what a guest may reach: policy, pins, approve."""

import json
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from passtpy.client.connect import Client, ClientError, WrongUse, choose
from passtpy.client.show import count, duration, out, size, table, width
from passtpy.egress.document import parse_policy
from passtpy.egress.egress import Egress
from passtpy.egress.model import Policy
from passtpy.egress.show import show_ruling
from passtpy.egress.source import PolicySource
from passtpy.egress.target import MOST_PORT
from passtpy.egress.zones import Surroundings
from passtpy.errors import PolicyError
from passtpy.flow import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP
from passtpy.policy.question import QuestionError, read_end

_PROTOS: Final = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP, "icmp": IPPROTO_ICMP}
_USES: Final = {
    "show": "",
    "reload": "[FILE]",
    "check": "FILE",
    "test": "FILE tcp|udp|icmp NAME:PORT|ADDR:PORT",
}
REFUSED: Final = 1  # exit status of `policy test`


def _print(value: object, args: Namespace, lines: Iterator[str]) -> None:
    out([json.dumps(value, indent=1)] if args.json else lines)


def _load(path: str) -> Policy:
    source = PolicySource(path, (), None)
    try:
        return source.load()
    except PolicyError as error:
        raise ClientError(str(error)) from None
    finally:
        source.close()


def _check(args: Namespace, path: str) -> int:
    policy = _load(path)
    told = {"rules": len(policy.rules), "mode": policy.mode, "default": policy.default}
    rules = f"{len(policy.rules)} rule{'' if len(policy.rules) == 1 else 's'}"
    text = f"{path}: {rules}, {policy.mode}, else {policy.default}"
    _print(told, args, iter([text]))
    return 0


def read_where(text: str, proto: str) -> tuple[str | None, bytes | None, int]:
    """Return the name or the address that a flow goes to, and the port."""
    from passtpy.addr import inany
    from passtpy.egress.names import NameFault, normalise

    needs_port = None if proto != "icmp" else 0
    try:
        address, port = read_end(text, "dst", needs_port)
    except QuestionError as fault:
        name, colon, tail = text.rpartition(":")
        if proto == "icmp" and not colon:
            name, tail = text, "0"
        if not tail.isascii() or not tail.isdecimal() or int(tail) > MOST_PORT:
            raise WrongUse(str(fault)) from None
        try:
            return normalise(name), None, int(tail)
        except NameFault as wrong:
            raise WrongUse(f"{name!r}: {wrong}") from None
    return None, inany(address), port


def _test(args: Namespace, path: str, proto: str, where: str) -> int:
    """Say what a file would say of a flow, without a daemon and without DNS."""
    if proto not in _PROTOS:
        raise WrongUse(f"{proto}: expected tcp, udp or icmp")
    name, address, port = read_where(where, proto)
    policy = _load(path)
    numbers = range(1, len(policy.rules) + 1)
    egress = Egress(policy, Surroundings(), lambda rules: numbers, lambda: 0)
    names = None if name is None else (name,)
    asked = None if name is None else egress.may_ask(name, 0)
    ruling = egress.judge(address, port, _PROTOS[proto], names=names)
    told = show_ruling(egress, ruling)
    if asked is not None:
        told["question"] = "answered" if asked.allowed else asked.refusal
    _print(told, args, show_verdict(told))
    return 0 if told["action"] in ("allow", "ask") else REFUSED


def show_verdict(told: dict[str, Any]) -> Iterator[str]:
    """Yield what a policy says of a flow, for people."""
    if "question" in told:
        yield f"question:  {told['question']}"
    yield f"policy:    {told['action']}"
    if "match" in told:
        yield f"rule:      {told['match']}  ({told['place']})"
    yield f"because:   {told['why']}"
    if told["mode"] == "observe":
        yield "mode:      observe: it would pass, and be told"


def sent(path: str) -> dict[str, Any]:
    """Return a policy file and the files that it names, to be sent."""
    file, files = Path(path), dict[str, str]()

    def read(name: str) -> str:
        files[name] = _text_of(file.parent / name)
        return files[name]

    text = _text_of(file)
    with suppress(PolicyError):  # what is wrong with it the daemon will say
        parse_policy(text, path, read)
    return {"text": text, "files": files}


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise ClientError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ClientError(f"{file}: {error}") from None


def _reload(args: Namespace, path: str | None) -> int:
    client = Client(choose(args.instance))
    if path is None:
        told = client.ask("POST", "/v1/reload")
    else:
        told = client.ask("PUT", "/v1/policy", body=sent(path))
    _print(told, args, (f"{name}: {value}" for name, value in told.items()))
    return 0


def _show(args: Namespace) -> int:
    told = Client(choose(args.instance)).ask("GET", "/v1/policy")
    _print(told, args, _policy_lines(told))
    return 0


def _policy_lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"file: {told['file'] or 'none'}  mode: {told['mode']}  dns: {told['dns']}"
    rows = [
        (
            str(rule["id"]),
            count("", rule["hits"]),
            rule["action"],
            rule["match"],
            rule["name"] or rule["place"],
        )
        for rule in told["rules"]
    ]
    rows.append(("0", count("", told["default_hits"]), told["default"], "the rest", ""))
    yield from table(("ID", "HITS", "ACTION", "FLOWS", "RULE"), rows, width())


def run_policy(args: Namespace) -> int:
    """Run `passtpy policy`."""
    words = args.what
    match args.action, words:
        case "show", []:
            return _show(args)
        case "reload", [] | [_]:
            return _reload(args, words[0] if words else None)
        case "check", [path]:
            return _check(args, path)
        case "test", [path, proto, where]:
            return _test(args, path, proto, where)
    raise WrongUse(f"expected: policy {args.action} {_USES[args.action]}".rstrip())


def run_limits(args: Namespace) -> int:
    """Run `passtpy limits`."""
    limits = list(Client(choose(args.instance)).lines("GET", "/v1/limits"))
    if args.json:
        out(json.dumps(limit) for limit in limits)
        return 0
    rows = [
        (
            str(each["rule"]),
            *map(size, each["bytes"]),
            *(count("", number) for number in each["dropped"]),
            *(count("", each[name]) for name in ("flows", "refused", "closed")),
            ", ".join(f"{name} {value}" for name, value in each["limit"].items()),
            each["name"] or "",
        )
        for each in limits
    ]
    head = ("RULE", "IN", "OUT", "LOST IN", "LOST OUT", "FLOWS", "REFUSED", "CLOSED")
    out(table((*head, "LIMIT", "NAME"), rows, width()))
    return 0


def run_pins(args: Namespace) -> int:
    """Run `passtpy pins`."""
    pins = list(Client(choose(args.instance)).lines("GET", "/v1/policy/pins"))
    if args.json:
        out(json.dumps(pin) for pin in pins)
        return 0
    rows = [
        (pin["address"], pin["name"], duration(pin["seconds"] * 10**9)) for pin in pins
    ]
    out(table(("ADDRESS", "NAME", "FOR"), rows, width()))
    return 0
