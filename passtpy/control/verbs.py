# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of verbs: all that can be asked of a running daemon, or changed in it."""

from collections.abc import Iterator, Sequence
from typing import Any

from passtpy.config.late import PORT_OPTIONS
from passtpy.config.portrule import Able, PortRule, PortTable, Side
from passtpy.config.ports import PortContext, ephemeral_ports, read_ports
from passtpy.control.capture import RULES_TOLD, SIDES, SNAPLEN, Wish
from passtpy.control.filter import (
    Context,
    FilterError,
    Predicate,
    compile_filter,
    compile_program,
)
from passtpy.control.flows import chosen, listing
from passtpy.control.forwards import Listed, with_rules, without_rules
from passtpy.control.metrics import MEDIA_TYPE, metrics
from passtpy.control.owners import Owners, Question
from passtpy.control.policy_verbs import POLICY_VERBS
from passtpy.control.schemas import IDS, MAX_SPEC, MAX_SPECS, SPEC, SPEC_KINDS
from passtpy.control.verb import (
    Arguments,
    Code,
    ControlError,
    Json,
    Kind,
    Later,
    Lines,
    Param,
    Reply,
    Text,
    Value,
    Verb,
)
from passtpy.errors import ConfigError
from passtpy.log import LogLevel

MIN_FILE = 256 * 1024  # bytes of a capture: its header tells of rules
LEVELS = tuple(level.name.lower() for level in LogLevel)


def _context(owners: Owners) -> Context:
    names: dict[str, frozenset[int]] = {}
    for rule in owners.rules.listed():
        if rule.name:
            names[rule.name] = names.get(rule.name, frozenset()) | {rule.id}
    return Context(names, owners.flows.now())


def _wrong_filter(error: FilterError) -> ControlError:
    return ControlError(Code.BAD_REQUEST, str(error), "filter")


def _filter(owners: Owners, text: str) -> Predicate:
    try:
        return compile_filter(text, _context(owners))
    except FilterError as error:
        raise _wrong_filter(error) from None


def get_instance(owners: Owners, _: Arguments) -> Reply:
    """Answer `instance`."""
    about = dict(owners.instance.describe())
    about["policy_generation"] = owners.rules.generation
    about["log_level"] = owners.logging.level()
    return Value(about)


def list_flows(owners: Owners, args: Arguments) -> Reply:
    """Answer `flows`."""
    predicate = _filter(owners, args.get("filter", ""))
    names = {rule.id: rule.name for rule in owners.rules.listed()}
    return Lines(listing(owners.flows, predicate, args.get("limit"), names))


def close_flow(owners: Owners, args: Arguments) -> Reply:
    """Answer `close one`."""
    if not owners.flows.close(args["id"]):
        raise ControlError(Code.NOT_FOUND, f"there is no flow {args['id']}", "id")
    return Value({"closed": 1})


def close_flows(owners: Owners, args: Arguments) -> Reply:
    """Answer `close`: a line for each flow, and how many there were."""
    predicate = _filter(owners, args["filter"])

    def closed() -> Iterator[Json | None]:
        count = 0
        for flow in chosen(owners.flows, predicate, None):
            if flow is not None and owners.flows.close(flow.flow_id):
                count += 1
            yield None
        yield {"closed": count}

    return Lines(closed())


def list_rules(owners: Owners, _: Arguments) -> Reply:
    """Answer `rules`."""
    fields = ("id", "number", "name", "match", "outcome", "why", "hits")
    return Value(
        {
            "generation": owners.rules.generation,
            "rules": [
                {field: getattr(rule, field) for field in fields}
                for rule in owners.rules.listed()
            ],
        }
    )


def explain(owners: Owners, args: Arguments) -> Reply:
    """Answer `explain`."""
    question = Question(
        args.get("from", "guest"),
        args.get("proto", "tcp"),
        args.get("src"),
        args["dst"],
        args.get("name"),
    )
    return Value(owners.rules.explain(question))


def forward_json(each: Listed) -> dict[str, Any]:
    """Return a forward as every answer shows it."""
    rule = each.rule
    return {
        "id": each.id,
        "table": each.side.value,
        "proto": "udp" if rule.proto == 17 else "tcp",
        "addr": None if rule.addr is None else str(rule.addr),
        "interface": rule.ifname,
        "first": rule.first,
        "last": rule.last,
        "target": None if rule.target is None else str(rule.target),
        "target_first": rule.first + rule.delta,
        "weak": rule.weak,
        "auto": rule.scan,
        "proxy": rule.proxy,
        "socket": rule.path,
        "target_socket": rule.to_path,
        "open_ports": each.open_ports,
        "text": str(rule).strip(),
    }


def list_forwards(owners: Owners, _: Arguments) -> Reply:
    """Answer `forwards`."""
    return Value({"forwards": [forward_json(f) for f in owners.forwards.listed()]})


def read_spec(tables: Sequence[PortTable], text: object) -> list[tuple[Side, PortRule]]:
    """Return the rules of `tcp:8080:80` and its like; ConfigError for what is none."""
    if not isinstance(text, str):
        raise ConfigError("a specification is text, like tcp:8080:80")
    if len(text) > MAX_SPEC:
        raise ConfigError(f"a specification has at most {MAX_SPEC} characters")
    kind, colon, spec = text.partition(":")
    option = SPEC_KINDS.get(kind)
    if not colon or option is None:
        known = ", ".join(f"{each}:" for each in SPEC_KINDS)
        raise ConfigError(f"{text!r} has to begin with one of {known}")
    each = PORT_OPTIONS[option]
    able = next((t.able for t in tables if t.side is each.side), None)
    if able is None:
        raise ConfigError(f"{kind}: there is no namespace to listen in")
    context = PortContext(
        option=each.name,
        proto=each.proto,
        side=each.side,
        ipv4=bool(able & Able.IPV4),
        ipv6=bool(able & Able.IPV6),
        scans=bool(able & Able.SCAN),
        ephemeral=ephemeral_ports(),
    )
    return [(each.side, rule) for rule in read_ports(spec, context)]


def add_forwards(owners: Owners, args: Arguments) -> Reply:
    """Answer `add forwards`: all of them, or none and a reason for each."""
    specs = args["specs"]
    if len(specs) > MAX_SPECS:
        text = f"at most {MAX_SPECS} specifications at once"
        raise ControlError(Code.TOO_MUCH, text, "specs")
    tables = owners.forwards.tables()
    wanted: list[tuple[Side, PortRule]] = []
    origin: list[int] = []  # which specification each rule comes from
    faults: list[Json] = []
    for number, spec in enumerate(specs):
        try:
            rules = read_spec(tables, spec)
        except ConfigError as error:
            faults.append({"spec": spec, "message": str(error)})
            continue
        if len(wanted) + len(rules) > MAX_SPECS:
            text = f"at most {MAX_SPECS} rules at once"
            raise ControlError(Code.TOO_MUCH, text, "specs")
        wanted += rules
        origin += [number] * len(rules)
    changed, refused = with_rules(tables, wanted)
    faults += [{"spec": specs[origin[at]], "message": why} for at, why in refused]
    if faults:
        raise _refused(faults, Code.BAD_REQUEST if not refused else Code.CONFLICT)
    return _replace(owners, tables, changed, wanted)


def _refused(faults: Sequence[Json], code: Code) -> ControlError:
    text = "; ".join(str(fault["message"]) for fault in faults[:5])
    return ControlError(code, text, "specs", tuple(faults))


def _replace(
    owners: Owners,
    seen: tuple[PortTable, ...],
    tables: tuple[PortTable, ...],
    added: Sequence[tuple[Side, PortRule]],
) -> Later:
    later = Later()

    def applied(reasons: Sequence[str]) -> None:
        if reasons:
            faults = tuple({"message": reason} for reason in reasons)
            text = "; ".join(reasons[:5])
            later.settle(ControlError(Code.CONFLICT, text, "specs", faults))
            return
        listed = [
            forward_json(f)
            for f in owners.forwards.listed()
            if (f.side, f.rule) in set(added)
        ]
        later.settle(Value({"forwards": listed}))

    owners.forwards.replace(seen, tables, applied)
    return later


def remove_forward(owners: Owners, args: Arguments) -> Reply:
    """Answer `remove a forward`."""
    found = [f for f in owners.forwards.listed() if f.id == args["id"]]
    if not found:
        raise ControlError(Code.NOT_FOUND, _no_forward(args["id"]), "id")
    return _remove(owners, found)


def remove_forwards(owners: Owners, args: Arguments) -> Reply:
    """Answer `remove forwards`: all of them, or none and a reason for each."""
    ids = args["ids"]
    for number in ids:
        if isinstance(number, bool) or not isinstance(number, int):
            raise ControlError(Code.BAD_REQUEST, "ids have to be integers", "ids")
    known = {each.id: each for each in owners.forwards.listed()}
    unknown = [number for number in ids if number not in known]
    if unknown:
        faults = tuple({"id": n, "message": _no_forward(n)} for n in unknown)
        text = "; ".join(fault["message"] for fault in faults[:5])
        raise ControlError(Code.NOT_FOUND, text, "ids", faults)
    return _remove(owners, [known[number] for number in dict.fromkeys(ids)])


def _no_forward(number: int) -> str:
    return f"there is no forward {number}"


def _remove(owners: Owners, found: Sequence[Listed]) -> Later:
    gone = [(each.side, each.rule) for each in found]
    seen = owners.forwards.tables()
    tables = without_rules(seen, gone)
    later = Later()

    def applied(reasons: Sequence[str]) -> None:
        if reasons:
            later.settle(ControlError(Code.CONFLICT, "; ".join(reasons)))
        else:
            later.settle(Value({"removed": [forward_json(f) for f in found]}))

    owners.forwards.replace(seen, tables, applied)
    return later


def get_stats(owners: Owners, _: Arguments) -> Reply:
    """Answer `stats`."""
    return Value({"counters": dict(sorted(owners.instance.statistics().items()))})


def get_metrics(owners: Owners, _: Arguments) -> Reply:
    """Answer `metrics`."""
    return Text(metrics(owners), MEDIA_TYPE)


def get_events(owners: Owners, args: Arguments) -> Reply:
    """Answer `events`."""
    return owners.events.subscribe(args.get("since"))


def list_captures(owners: Owners, _: Arguments) -> Reply:
    """Answer `captures`."""
    return Value({"captures": owners.captures.listed()})


def capture(owners: Owners, args: Arguments) -> Reply:
    """Answer `capture`."""
    text = args.get("filter", "")
    try:
        program = compile_program(text, _context(owners))
    except FilterError as error:
        raise _wrong_filter(error) from None
    rules = [
        f"rule {rule.id}: {rule.match} {rule.outcome} ({rule.name or rule.why})"
        for rule in owners.rules.listed()[:RULES_TOLD]
    ]
    wish = Wish(
        program=program,
        filter=text,
        side=args.get("side", "both"),
        snaplen=args.get("snaplen", SNAPLEN),
        packets=args.get("packets"),
        bytes=args.get("bytes"),
        seconds=args.get("seconds"),
        comments=rules,
    )
    return owners.captures.start(wish)


def stop_captures(owners: Owners, args: Arguments) -> Reply:
    """Answer `stop captures`."""
    return Value({"captures": owners.captures.stop(args.get("id"))})


def put_log(owners: Owners, args: Arguments) -> Reply:
    """Answer `log`."""
    owners.logging.set_level(args["level"], args.get("for_s"))
    return Value({"level": owners.logging.level()})


def reload(owners: Owners, _: Arguments) -> Reply:
    """Answer `reload`."""
    return owners.instance.reload()


def stop(owners: Owners, _: Arguments) -> Reply:
    """Answer `stop`."""
    return owners.instance.stop()


_FILTER = Param(
    "filter", Kind.TEXT, "flows to choose, as `tcp and port 443`: see the list of words"
)

METRICS: Verb[Owners] = Verb(
    "metrics",
    "GET",
    "/metrics",
    "Count, for Prometheus.",
    "Metrics as text.",
    get_metrics,
    media="text/plain",
)
VERBS: tuple[Verb[Owners], ...] = (
    Verb(
        "instance",
        "GET",
        "/v1/instance",
        "Say who you are.",
        "Name, version, mode, addresses, uptime, generation of the policy.",
        get_instance,
    ),
    Verb(
        "flows",
        "GET",
        "/v1/flows",
        "List flows.",
        "One JSON object a line for each flow.",
        list_flows,
        (_FILTER, Param("limit", Kind.INTEGER, "flows at most", least=1)),
        lines=True,
    ),
    Verb(
        "close-flow",
        "DELETE",
        "/v1/flows/{id}",
        "Reset one flow, as if its peer had.",
        "How many were closed: 1.",
        close_flow,
        (Param("id", Kind.INTEGER, "id of the flow", required=True, most=2**64 - 1),),
    ),
    Verb(
        "close-flows",
        "DELETE",
        "/v1/flows",
        "Reset all flows that a filter chooses.",
        "How many were closed.",
        close_flows,
        (
            Param(
                "filter", Kind.TEXT, "flows to close; empty: all of them", required=True
            ),
        ),
        lines=True,
    ),
    Verb(
        "rules",
        "GET",
        "/v1/rules",
        "List the policy, in the order in which it is tried.",
        "Rules with their ids, what they are about, and hits.",
        list_rules,
    ),
    Verb(
        "explain",
        "GET",
        "/v1/explain",
        "Say what would become of a flow.",
        "The rule that decides, addresses on both sides, and where a connection goes on"
        " if nobody listens there; rules that nearly matched.",
        explain,
        (
            Param("dst", Kind.TEXT, "ADDR:PORT it is meant for", required=True),
            Param("src", Kind.TEXT, "ADDR[:PORT] it comes from"),
            Param(
                "proto",
                Kind.TEXT,
                "protocol; tcp unless said",
                choices=("tcp", "udp", "icmp"),
            ),
            Param(
                "from",
                Kind.TEXT,
                "where it begins; guest unless said",
                choices=("guest", "host", "namespace"),
            ),
            Param(
                "name",
                Kind.TEXT,
                "name that the guest asked for; unless said, those of the pins",
            ),
        ),
    ),
    Verb(
        "forwards",
        "GET",
        "/v1/forwards",
        "List forwarded ports.",
        "Forwards with their ids.",
        list_forwards,
    ),
    Verb(
        "add-forwards",
        "POST",
        "/v1/forwards",
        "Forward more ports: all that is asked, or nothing.",
        "The new forwards, once their sockets listen.",
        add_forwards,
        (
            Param(
                "specs",
                Kind.LIST,
                "specifications as on the command line, behind tcp:, udp:, tcp-ns: or"
                f" udp-ns:, as tcp:8080:80; {MAX_SPECS} at most, as are their rules,"
                f" of {MAX_SPEC} characters each",
                required=True,
                most=MAX_SPECS,
                items=SPEC,
            ),
        ),
    ),
    Verb(
        "remove-forward",
        "DELETE",
        "/v1/forwards/{id}",
        "Stop forwarding.",
        "The forward that was removed; its connections go on.",
        remove_forward,
        (Param("id", Kind.INTEGER, "id of the forward", required=True),),
    ),
    Verb(
        "remove-forwards",
        "DELETE",
        "/v1/forwards",
        "Stop forwarding: all that is asked, or nothing.",
        "The forwards that were removed; their connections go on.",
        remove_forwards,
        (Param("ids", Kind.LIST, "ids of forwards", required=True, items=IDS),),
    ),
    Verb(
        "stats",
        "GET",
        "/v1/stats",
        "Count.",
        "Every counter, by name.",
        get_stats,
    ),
    METRICS,
    Verb(
        "events",
        "GET",
        "/v1/events",
        "Tell what happens, until the client leaves.",
        "One JSON object a line; what was missed is told in it.",
        get_events,
        (Param("since", Kind.INTEGER, "number of the first event wanted, if kept"),),
        lines=True,
    ),
    Verb(
        "capture",
        "POST",
        "/v1/capture",
        "Capture packets of the flows that a filter chooses, until a limit, until the"
        " client leaves, or until somebody ends it.",
        "A pcapng file, as it grows; what could not be kept is told in it.",
        capture,
        (
            _FILTER,
            Param(
                "side",
                Kind.TEXT,
                "where packets are seen; both unless said",
                choices=tuple(SIDES),
            ),
            Param(
                "snaplen",
                Kind.INTEGER,
                "bytes kept of a packet; all unless said",
                least=1,
                most=SNAPLEN,
            ),
            Param("packets", Kind.INTEGER, "packets until it ends", least=1),
            Param("bytes", Kind.INTEGER, "bytes the file may have", least=MIN_FILE),
            Param("seconds", Kind.INTEGER, "time until it ends", least=1, most=10**9),
        ),
        media="application/x-pcapng",
    ),
    Verb(
        "captures",
        "GET",
        "/v1/capture",
        "List captures that run.",
        "Captures with their ids, what they gave, and what they could not keep.",
        list_captures,
    ),
    Verb(
        "stop-captures",
        "DELETE",
        "/v1/capture",
        "End captures; their clients are still given what is there.",
        "The captures that end.",
        stop_captures,
        (Param("id", Kind.INTEGER, "id of the one to end; else all are", least=1),),
    ),
    *POLICY_VERBS,
    Verb(
        "log",
        "PUT",
        "/v1/log",
        "Change the level of the log, for good or for a while.",
        "The level that is in force.",
        put_log,
        (
            Param("level", Kind.TEXT, "level", required=True, choices=LEVELS),
            Param("for_s", Kind.INTEGER, "seconds until it goes back", least=1),
        ),
    ),
    Verb(
        "reload",
        "POST",
        "/v1/reload",
        "Open log and audit by their names again, read the policy's files again, and"
        " apply it to open flows: the same as SIGHUP. What else the rules are made from"
        " is followed all the time.",
        "The generation of the policy.",
        reload,
    ),
    Verb(
        "stop",
        "POST",
        "/v1/stop",
        "End politely: the same as SIGTERM.",
        "That it ends.",
        stop,
    ),
)
