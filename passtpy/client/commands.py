# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of commands: what each is called, takes, asks and prints."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from passtpy.client.command import Arg, Command
from passtpy.client.connect import Client, ClientError, WrongUse, choose, instances
from passtpy.client.show import count, duration, endpoint, out, size, table, width
from passtpy.control.verb import MAX_DIGITS

FOLLOW_S: Final = 1.0
MOST_DELAY_S: Final = 86400


def _arg(*names: str, help: str, words: tuple[str, ...] = (), **options: Any) -> Arg:
    return Arg(names, help, options, words)


def _client(args: Namespace) -> Client:
    return Client(choose(args.instance))


def _print_json(value: object) -> None:
    out([json.dumps(value, indent=1, ensure_ascii=False)])


def _repeat(args: Namespace, once: Callable[[], None]) -> int:
    """Do it once, or again and again with -w."""
    while True:
        if args.follow and sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        once()
        if not args.follow:
            return 0
        time.sleep(FOLLOW_S)


def _ls(args: Namespace) -> int:
    told = []
    for each in instances():
        try:
            told.append(Client(each.path).ask("GET", "/v1/instance"))
        except ClientError:
            continue  # it ended meanwhile
    if args.json:
        _print_json(told)
        return 0
    rows = [
        (
            about["name"],
            about["program"],
            str(about["pid"]),
            duration(int(about["uptime_s"] * 1e9)),
            str(about.get("guest") or ""),
        )
        for about in told
    ]
    out(table(("NAME", "PROGRAM", "PID", "UP", "GUEST"), rows, width()))
    return 0


def _flow_row(flow: dict[str, Any]) -> tuple[str, ...]:
    sent, received = flow["bytes"]
    kind = f"{flow['type']}{'*' if flow['spliced'] else ''}"
    rule = flow["rule"].get("name") or str(flow["rule"]["id"])
    return (
        str(flow["id"]),
        kind,
        f"{flow['from']} > {flow['to']}",
        endpoint(flow["src"]),
        endpoint(flow["target_dst"]),
        size(sent),
        size(received),
        duration(flow["age_ns"]),
        duration(flow["idle_ns"]),
        rule,
    )


_FLOW_HEAD = (
    ("ID", "TYPE", "WAY", "FROM", "TO", "SENT", "GOT", "AGE", "IDLE", "RULE")
)  # fmt: skip


def _delay(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= MOST_DELAY_S:
        raise ValueError(text)
    return seconds


_delay.__name__ = "delay"  # argparse says "invalid delay value"


def _filter_of(args: Namespace) -> str:
    return " ".join(args.filter)


def _flows(args: Namespace) -> int:
    client = _client(args)
    query = {"filter": _filter_of(args) or None, "limit": args.limit}

    def once() -> None:
        flows = client.lines("GET", "/v1/flows", query)
        if args.json:
            out(json.dumps(flow) for flow in flows)
            return
        rows: list[tuple[str, ...]] = []
        try:
            rows += map(_flow_row, flows)
        except ClientError:
            if rows:  # a list that ends early is shown as far as it came
                out(table(_FLOW_HEAD, rows, width()))
            raise
        out(table(_FLOW_HEAD, rows, width()))

    return _repeat(args, once)


def _close(args: Namespace) -> int:
    client = _client(args)
    if len(args.filter) == 1 and args.filter[0].isdecimal():
        told = client.ask("DELETE", f"/v1/flows/{args.filter[0]}")
    else:
        text = "" if args.filter == ["all"] else _filter_of(args)
        (told,) = client.lines("DELETE", "/v1/flows", {"filter": text})
    if args.json:
        _print_json(told)
    else:
        closed = told["closed"]
        out([f"{closed} flow{'' if closed == 1 else 's'} closed"])
    return 0


def _rules(args: Namespace) -> int:
    client = _client(args)

    def once() -> None:
        told = client.ask("GET", "/v1/rules")
        if args.json:
            _print_json(told)
            return
        rows = [
            (
                str(rule["number"]),
                str(rule["id"]),
                str(rule["hits"]),
                rule["match"],
                rule["outcome"],
                rule["name"] or rule["why"],
            )
            for rule in told["rules"]
        ]
        out(table(("#", "ID", "HITS", "FLOWS", "OUTCOME", "WHY"), rows, width()))

    return _repeat(args, once)


def show_explanation(told: dict[str, Any]) -> Iterator[str]:
    """Yield what `explain` says, for people."""
    for each in told.get("resolved", ()):
        others = ", ".join(each["others"])
        also = f" (and {others})" if others else ""
        yield f"address:   {each['name']} is {each['address']}{also}"
    yield f"verdict:   {told['action']}"
    if told.get("rule"):
        rule = told["rule"]
        yield f"rule:      {rule['id']}  {rule['match']}  ({rule['why']})"
    if told.get("policy"):
        said = told["policy"]
        yield f"policy:    {said['action']}, {said['why']}"
        if said["mode"] == "observe":
            yield "mode:      observe: it would pass, and be told"
    for side in ("guest", "host", "namespace"):
        if told.get(side):
            yield f"{side + ':':10} {told[side]}"
    for side, ends in told.get("if_refused", {}).items():
        yield f"if refused: {side}: {ends}"
    for near in told.get("nearly", ()):
        yield f"not rule {near['id']}: {near['because']}"


def _policy(args: Namespace) -> int:
    from passtpy.client.policy import run_policy

    return run_policy(args)


def _approve(args: Namespace) -> int:
    from passtpy.client.approve import run_approve

    return run_approve(args)


def _limits(args: Namespace) -> int:
    from passtpy.client.policy import run_limits

    return run_limits(args)


def _pins(args: Namespace) -> int:
    from passtpy.client.policy import run_pins

    return run_pins(args)


def _explain(args: Namespace) -> int:
    from passtpy.client.names import Names

    names = Names()
    dst = names.resolve(args.dst, args.src, args.proto != "icmp")
    src = args.src and names.resolve(args.src, dst, needs_port=False)
    query = {"dst": dst, "src": src, "proto": args.proto, "from": args.origin}
    query["name"] = next((t["name"] for t in names.told if args.dst != dst), None)
    if args.command_line:
        from passtpy.client.offline import explain_offline

        words = args.command_line
        told = explain_offline(words, args.origin, args.proto, src, dst)
    else:
        told = _client(args).ask("GET", "/v1/explain", query)
    if names.told:
        told["resolved"] = names.told
    if args.json:
        _print_json(told)
    else:
        out(show_explanation(told))
    return 0


def _forward_rows(forwards: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (str(each["id"]), each["table"], str(each["open_ports"]), each["text"])
        for each in forwards
    ]


def _ports(args: Namespace) -> int:
    if args.action == "list" and args.what:
        raise WrongUse(f"list takes no {args.what[0]}")
    if args.action != "list" and not args.what:
        raise WrongUse(f"{args.action} what?")
    for number in args.what if args.action == "remove" else ():
        digits = number if number.isascii() and number.isdecimal() else ""
        if not 0 < len(digits) <= MAX_DIGITS:
            raise WrongUse(f"{number} is no id of a forward")
    client = _client(args)
    match args.action:
        case "add":
            told = client.ask("POST", "/v1/forwards", body={"specs": args.what})
            forwards, done = told["forwards"], "added"
        case "remove":
            ids = [int(number) for number in args.what]
            told = client.ask("DELETE", "/v1/forwards", body={"ids": ids})
            forwards, done = told["removed"], "removed"
        case _:
            forwards = client.ask("GET", "/v1/forwards")["forwards"]
            done = ""
    if args.json:
        _print_json(forwards)
    elif done:
        out(f"{done} {each['id']}: {each['text']}" for each in forwards)
    else:
        rows = _forward_rows(forwards)
        out(table(("ID", "TABLE", "OPEN", "FORWARD"), rows, width()))
    return 0


def _stats(args: Namespace) -> int:
    client = _client(args)

    def once() -> None:
        if args.prometheus:
            sys.stdout.write(client.text("/metrics"))
            return
        counters = client.ask("GET", "/v1/stats")["counters"]
        if args.json:
            _print_json(counters)
            return
        shown = {k: v for k, v in counters.items() if v or args.all}
        rows = [(name, count(name, value)) for name, value in shown.items()]
        out(table(("COUNTER", "VALUE"), rows, None))

    return _repeat(args, once)


def _log(args: Namespace) -> int:
    if args.level is None and args.seconds is not None:
        raise WrongUse("--for needs a level")
    client = _client(args)
    if args.level is None:
        told = {"level": client.ask("GET", "/v1/instance")["log_level"]}
    else:
        body = {"level": args.level}
        if args.seconds is not None:
            body["for_s"] = args.seconds
        told = client.ask("PUT", "/v1/log", body=body)
    if args.json:
        _print_json(told)
    else:
        out([f"log level: {told['level']}"])
    return 0


def _events(args: Namespace) -> int:
    query = {"since": args.since}
    for event in _client(args).lines("GET", "/v1/events", query, endless=True):
        out([json.dumps(event) if args.json else _show_event(event)])
    return 0


def _show_event(event: dict[str, Any]) -> str:
    fields = dict(event)
    stamp = fields.pop("time", None)
    fields.pop("seq", None)
    name = fields.pop("event")
    clock = "" if stamp is None else time.strftime("%H:%M:%S ", time.localtime(stamp))
    return f"{clock}{name} " + " ".join(f"{k}={v}" for k, v in fields.items())


def _reload(args: Namespace) -> int:
    told = _client(args).ask("POST", "/v1/reload")
    if args.json:
        _print_json(told)
    else:
        out(f"{name}: {value}" for name, value in told.items())
    return 0


def _stop(args: Namespace) -> int:
    told = _client(args).ask("POST", "/v1/stop")
    if args.json:
        _print_json(told)
    return 0


def _capture(args: Namespace) -> int:
    from passtpy.client.capture import run_capture

    return run_capture(_client(args), args)


def _completion(args: Namespace) -> int:
    from passtpy.client.completion import completion
    from passtpy.client.programs import programs

    sys.stdout.write(completion(args.shell, COMMANDS, programs()))
    return 0


def _top(args: Namespace) -> int:
    from passtpy.client.top import run_top

    return run_top(_client(args), args)


_FILTER = _arg(
    "filter",
    nargs="*",
    help="flows to choose, as: tcp and port 443; see passtpy(1)",
    words=("tcp", "udp", "port", "src", "dst", "host", "rule", "from", "not", "idle"),
)

COMMANDS: tuple[Command, ...] = (
    Command("ls", "list running instances", _ls, local=True),
    Command(
        "flows",
        "list flows",
        _flows,
        (_FILTER, _arg("-n", "--limit", type=int, help="list so many at most")),
        follows=True,
    ),
    Command(
        "top",
        "watch flows, by rate",
        _top,
        (
            _FILTER,
            _arg(
                "-d",
                "--delay",
                type=_delay,
                default=1.0,
                help="seconds from one look to the next",
            ),
            _arg("-n", "--rounds", type=int, help="end after so many looks"),
        ),
    ),
    Command(
        "explain",
        "say what would become of a flow",
        _explain,
        (
            _arg("dst", help="ADDR:PORT, NAME:PORT or unix:PATH it is meant for"),
            _arg("--src", help="ADDR[:PORT] or NAME[:PORT] it comes from"),
            _arg(
                "--proto",
                choices=("tcp", "udp", "icmp"),
                default="tcp",
                help="its protocol",
            ),
            _arg(
                "--from",
                dest="origin",
                choices=("guest", "host", "namespace"),
                default="guest",
                help="where it begins",
            ),
        ),
    ),
    Command("rules", "list the rules that decide about flows", _rules, follows=True),
    Command(
        "policy",
        "show, check, test or replace what a guest may reach",
        _policy,
        (
            _arg(
                "action",
                nargs="?",
                default="show",
                choices=("show", "check", "test", "reload"),
                help="what to do",
            ),
            _arg(
                "what",
                nargs="*",
                help="check FILE; test FILE tcp NAME:PORT; reload [FILE]",
            ),
        ),
    ),
    Command(
        "approve",
        "say whether flows that wait may be",
        _approve,
        (
            _arg(
                "id",
                nargs="?",
                type=int,
                help="number of a question; without it all are asked, one by one",
            ),
            _arg("answer", nargs="?", choices=("allow", "deny"), help="the answer"),
            _arg(
                "--for",
                dest="how_long",
                choices=("once", "session", "always"),
                default="once",
                help="how long it holds; always: it is written to the policy file",
            ),
            _arg("--list", action="store_true", help="list the questions that wait"),
        ),
    ),
    Command("limits", "list limits of rules, and what was counted for them", _limits),
    Command("pins", "list the addresses that names were told for", _pins),
    Command(
        "ports",
        "list, add or remove forwarded ports",
        _ports,
        (
            _arg(
                "action",
                nargs="?",
                default="list",
                choices=("list", "add", "remove"),
                help="what to do",
            ),
            _arg("what", nargs="*", help="add: tcp:8080:80 and its like; remove: ids"),
        ),
    ),
    Command(
        "stats",
        "print counters",
        _stats,
        (
            _arg("-a", "--all", action="store_true", help="also those that are zero"),
            _arg("--prometheus", action="store_true", help="in Prometheus' format"),
        ),
        follows=True,
    ),
    Command(
        "log",
        "print or change the level of the log",
        _log,
        (
            _arg(
                "level",
                nargs="?",
                choices=("quiet", "info", "debug", "trace"),
                help="the new level",
            ),
            _arg("--for", dest="seconds", type=int, help="seconds until it goes back"),
        ),
    ),
    Command(
        "capture",
        "capture packets, as pcapng",
        _capture,
        (
            _FILTER,
            _arg(
                "-w",
                "--write",
                metavar="FILE",
                help="file to write; - or none: stdout, unless it is a terminal",
            ),
            _arg(
                "--side",
                choices=("tap", "sockets", "both"),
                default="both",
                help="where packets are seen",
            ),
            _arg("-s", "--snaplen", type=int, help="bytes kept of a packet"),
            _arg("-c", "--packets", type=int, help="packets until it ends"),
            _arg("--bytes", type=int, help="bytes the file may have"),
            _arg("--seconds", type=int, help="time until it ends"),
            _arg(
                "--rotate",
                type=int,
                metavar="BYTES",
                help="begin another file after so many",
            ),
            _arg("--files", type=int, help="keep so many of these, the newest"),
            _arg("--list", action="store_true", help="list captures that run"),
            _arg("--stop", type=int, metavar="ID", help="end the capture of this id"),
            _arg("--stop-all", action="store_true", help="end all captures"),
        ),
    ),
    Command(
        "close",
        "reset flows",
        _close,
        (
            _arg(
                "filter",
                nargs="+",
                help="the id of a flow, a filter, or all",
                words=_FILTER.words,
            ),
        ),
    ),
    Command(
        "events",
        "tell what happens, as it happens",
        _events,
        (_arg("--since", type=int, help="number of the first event wanted"),),
    ),
    Command("reload", "open the log, read the policy again, as SIGHUP does", _reload),
    Command("stop", "end a daemon, as SIGTERM does", _stop),
    Command(
        "completion",
        "print the completion of a shell",
        _completion,
        (_arg("shell", choices=("bash", "zsh", "fish"), help="which shell"),),
        local=True,
    ),
)
