# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs, asked over HTTP of owners that are made up."""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import pytest

from passtpy.control.capture import Captures
from passtpy.control.events import Events
from passtpy.control.http import Conversation, Router
from passtpy.control.metrics import metrics
from passtpy.control.owners import Owners, Question, RuleListed
from passtpy.control.verb import (
    Code,
    ControlError,
    Json,
    Later,
    Lines,
    Stream,
    Value,
    Verb,
)
from passtpy.control.verbs import VERBS
from passtpy.flow import FlowRecord
from tests.lab.pcapng import packets
from tests.unit.control.fakes import Forwards, Packets, packet_block, rule
from tests.unit.control.test_filter import SECOND, flow
from tests.unit.control.test_http import dechunk, request, split


class Daemon:
    """Every owner in one."""

    def __init__(self) -> None:
        self.flows = {n: flow(flow_id=n, eport0=n) for n in range(1, 8)}
        self.said = "info"
        self.timed: int | None = None
        self.later = Later()
        self.generation = 4

    def describe(self) -> Json:
        return {
            "name": "box",
            "version": "1",
            "program": "pasta",
            "pid": 7,
            "started_at": 100,
            "cpu_s": 1.5,
        }

    def statistics(self) -> Mapping[str, int]:
        return {"turns": 5, "flows": 7}

    def meanings(self) -> Mapping[str, str]:
        return {"turns": "runs of the datapath"}

    def reload(self) -> Later:
        return self.later

    def stop(self) -> Value:
        return Value({"stopping": True})

    def pages(self) -> Iterator[Sequence[FlowRecord]]:
        records = list(self.flows.values())
        for at in range(0, len(records), 3):
            yield records[at : at + 3]

    def close(self, flow_id: int) -> bool:
        return self.flows.pop(flow_id, None) is not None

    def now(self) -> int:
        return 200 * SECOND

    def listed(self) -> Sequence[RuleListed]:
        return [RuleListed(3, 1, "web", "tcp to any", "to the host", "--allow", 9)]

    def explain(self, question: Question) -> Json:
        if question.dst == "x":
            raise ControlError(Code.BAD_REQUEST, "x is no address", "dst")
        return {"asked": [question.origin, question.proto, question.src, question.dst]}

    def replace(self, text: str, files: Mapping[str, str]) -> Json:
        if text == "wrong":
            raise ControlError(Code.CONFLICT, "p:1:1: expected", "text")
        return {"generation": 5, "rules": len(files)}

    def pins(self) -> Iterator[Json]:
        yield {"address": "198.51.100.1", "name": "a.example", "seconds": 7}

    def limits(self) -> Iterator[Json]:
        yield {
            "rule": 3,
            "name": "web",
            "limit": {"rate_in": "8 Mbit/s"},
            "bytes": [10, 20],
            "dropped": [1, 2],
            "flows": 4,
            "refused": 5,
            "closed": 6,
            "used_up": False,
        }

    def questions(self) -> Iterator[Json]:
        yield {"question": 3, "to": "a.example"}

    def answer(self, number: int, allow: bool, remember: bool) -> Json:
        return {"question": number, "allow": allow, "remember": remember}

    def level(self) -> str:
        return self.said

    def set_level(self, level: str, seconds: int | None) -> None:
        self.said, self.timed = level, seconds


class Asker:
    def __init__(self, *rules: Any) -> None:
        self.daemon = Daemon()
        self.forwards = Forwards(*rules)
        self.events = Events(clock=lambda: 1.0)
        it: Any = self.daemon
        self.packets = Packets()
        captures = Captures(self.packets)
        self.owners = Owners(it, it, it, self.forwards, it, self.events, captures, it)

        def failed(at: str, error: Exception) -> None:
            raise error

        self._router = Router(VERBS, self.owners, failed)
        self.client = Conversation(self._router)

    def beside(self) -> "Asker":
        """Return another client of the same daemon."""
        other = copy(self)
        other.client = Conversation(self._router)
        return other

    def raw(self, method: str, target: str, body: object = None) -> tuple[int, bytes]:
        said = self.client.receive(request(method, target, body))
        while self.client.answering and not self.client.streaming:
            said += self.client.more()
        status, data = split(said)
        return status, dechunk(data) if b"chunked" in said[:200] else data

    def ask(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        status, data = self.raw(method, target, body)
        return status, json.loads(data)

    def lines(self, method: str, target: str) -> list[Any]:
        return [json.loads(line) for line in self.raw(method, target)[1].splitlines()]


@pytest.fixture
def asker() -> Asker:
    return Asker(rule(22), rule(53, proto=17))


def test_the_instance_says_who_it_is(asker: Asker) -> None:
    status, told = asker.ask("GET", "/v1/instance")
    assert status == 200
    assert told == {
        "name": "box",
        "version": "1",
        "program": "pasta",
        "pid": 7,
        "started_at": 100,
        "cpu_s": 1.5,
        "policy_generation": 4,
        "log_level": "info",
    }


def test_flows_are_listed_filtered_and_limited(asker: Asker) -> None:
    assert [f["id"] for f in asker.lines("GET", "/v1/flows")] == [1, 2, 3, 4, 5, 6, 7]
    assert len(asker.lines("GET", "/v1/flows?limit=4")) == 4
    (found,) = asker.lines("GET", "/v1/flows?filter=tcp+and+sport+5+and+rule+web")
    assert found == {
        "id": 5,
        "type": "tcp",
        "spliced": False,
        "state": "active",
        "from": "guest",
        "to": "host",
        "src": {"addr": "192.0.2.5", "port": 5},
        "dst": {"addr": "198.51.100.1", "port": 443},
        "target_src": {"addr": "192.0.2.1", "port": 50000},
        "target_dst": {"addr": "203.0.113.9", "port": 8443},
        "rule": {"id": 3, "name": "web"},
        "packets": [10, 5],
        "bytes": [1_000_000, 1],
        "tcp_flags": ["S", "SA"],
        "age_ns": 100 * SECOND,
        "idle_ns": 40 * SECOND,
    }
    status, told = asker.ask("GET", "/v1/flows?filter=tcp+blah")
    assert (status, told["error"]["field"]) == (400, "filter")


def test_flows_are_closed_by_id_and_by_filter(asker: Asker) -> None:
    assert asker.ask("DELETE", "/v1/flows/3") == (200, {"closed": 1})
    assert asker.ask("DELETE", "/v1/flows/3")[0] == 404
    assert asker.ask("DELETE", "/v1/flows")[0] == 400  # not all by mistake
    (told,) = asker.lines("DELETE", "/v1/flows?filter=sport+5-9")
    assert told == {"closed": 3}
    assert list(asker.daemon.flows) == [1, 2, 4]
    assert asker.lines("DELETE", "/v1/flows?filter=") == [{"closed": 3}]


def test_rules_are_listed(asker: Asker) -> None:
    _, told = asker.ask("GET", "/v1/rules")
    assert told["generation"] == 4
    assert told["rules"][0]["hits"] == 9


def test_a_question_is_explained(asker: Asker) -> None:
    target = "/v1/explain?dst=198.51.100.1:443&proto=udp&from=host&src=192.0.2.9"
    _, told = asker.ask("GET", target)
    assert told == {"asked": ["host", "udp", "192.0.2.9", "198.51.100.1:443"]}
    assert asker.ask("GET", "/v1/explain?dst=x")[1]["error"]["field"] == "dst"
    assert asker.ask("GET", "/v1/explain?dst=1&proto=gre")[0] == 400


def test_forwards_are_added_together_or_not_at_all(asker: Asker) -> None:
    body = {"specs": ["tcp:8080:80", "udp:127.0.0.1/90-91", "tcp-ns:5432"]}
    status, told = asker.ask("POST", "/v1/forwards", body)
    assert status == 200
    assert [f["text"] for f in told["forwards"]] == [
        "TCP [*]:8080  =>  80",
        "UDP [127.0.0.1]:90-91  =>  90-91",
        "TCP [*]%lo:5432  =>  5432",
    ]
    assert [f["proxy"] for f in told["forwards"]] == [0, 0, 0]
    ids = [f["id"] for f in asker.ask("GET", "/v1/forwards")[1]["forwards"]]
    assert ids[:2] == [1, 2]
    assert len(set(ids)) == 5
    body = {"specs": ["tcp:8090:90,proxy=v2"]}
    (more,) = asker.ask("POST", "/v1/forwards", body)[1]["forwards"]
    assert (more["text"], more["proxy"]) == ("TCP [*]:8090  =>  90  (PROXY v2)", 2)

    before = asker.forwards.now
    mixed: list[object] = ["tcp:81", "tcp:x", "sctp:5", "tcp:22", 7]
    status, told = asker.ask("POST", "/v1/forwards", {"specs": mixed})
    assert status == 409
    said = {d["spec"]: d["message"][:26] for d in told["error"]["details"]}
    assert said == {
        "tcp:x": "Invalid port specifier 'x'",
        "sctp:5": "'sctp:5' has to begin with",
        7: "a specification is text, l",
        "tcp:22": "Forwarding configuration c",
    }
    assert asker.forwards.now == before


def test_a_batch_is_bounded_before_it_is_read(asker: Asker) -> None:
    many = [f"tcp:127.0.0.1/{n}" for n in range(20_000, 20_300)]
    assert asker.ask("POST", "/v1/forwards", {"specs": many})[0] == 409
    odd = "tcp:" + ",".join(str(port) for port in range(1, 5000, 2))
    status, told = asker.ask("POST", "/v1/forwards", {"specs": [odd]})
    assert (status, told["error"]["message"]) == (429, "at most 1000 rules at once")
    status, told = asker.ask("POST", "/v1/forwards", {"specs": [odd * 2]})
    assert (status, told["error"]["code"]) == (400, "bad_request")
    assert "at most 16384 characters" in told["error"]["message"]


def test_a_port_that_is_taken_is_a_conflict(asker: Asker) -> None:
    asker.forwards.reasons = ("Listen failed for HOST TCP port */80: in use",)
    status, told = asker.ask("POST", "/v1/forwards", {"specs": ["tcp:80"]})
    assert (status, told["error"]["code"]) == (409, "conflict")
    assert "in use" in told["error"]["message"]


def test_a_forward_is_removed_by_its_id(asker: Asker) -> None:
    _, told = asker.ask("GET", "/v1/forwards")
    number = told["forwards"][0]["id"]
    status, told = asker.ask("DELETE", f"/v1/forwards/{number}")
    assert (status, told["removed"][0]["first"]) == (200, 22)
    assert asker.ask("DELETE", f"/v1/forwards/{number}")[0] == 404
    assert len(asker.forwards.now[0].rules) == 1


def test_forwards_are_removed_together_or_not_at_all(asker: Asker) -> None:
    first, second = (
        each["id"] for each in asker.ask("GET", "/v1/forwards")[1]["forwards"]
    )
    before = asker.forwards.now
    status, told = asker.ask("DELETE", "/v1/forwards", {"ids": [first, 98, 99]})
    assert (status, told["error"]["field"]) == (404, "ids")
    assert told["error"]["message"] == "there is no forward 98; there is no forward 99"
    assert [each["id"] for each in told["error"]["details"]] == [98, 99]
    for wrong in ("x", True, 1.5, None):
        assert asker.ask("DELETE", "/v1/forwards", {"ids": [wrong]})[0] == 400
    asker.forwards.reasons = ("it is busy",)
    status, told = asker.ask("DELETE", "/v1/forwards", {"ids": [first, second]})
    assert (status, told["error"]["message"]) == (409, "it is busy")
    assert asker.forwards.now == before
    asker.forwards.reasons = ()
    status, told = asker.ask("DELETE", "/v1/forwards", {"ids": [second, first, second]})
    assert (status, [f["id"] for f in told["removed"]]) == (200, [second, first])
    assert not any(table.rules for table in asker.forwards.now)


def test_counters_and_metrics(asker: Asker) -> None:
    assert asker.ask("GET", "/v1/stats")[1] == {"counters": {"flows": 7, "turns": 5}}
    status, raw = asker.raw("GET", "/metrics")
    lines = raw.decode().splitlines()
    assert status == 200
    assert 'passtpy_info{name="box",version="1",program="pasta"} 1' in lines
    assert "passtpy_turns_total 5" in lines
    assert "# HELP passtpy_turns_total Runs of the datapath." in lines
    assert "passtpy_flows 7" in lines
    assert "passtpy_cpu_seconds_total 1.5" in lines
    assert 'passtpy_rule_hits_total{id="3",name="web",why="--allow"} 9' in lines
    assert (
        'passtpy_forward_open_ports{id="1",side="HOST",rule="TCP [*]:22  =>  22"} 1'
        in lines
    )


@pytest.mark.parametrize("verb", [v for v in VERBS if v.method == "GET"])
def test_lines_are_where_the_table_says(asker: Asker, verb: Verb[Owners]) -> None:
    args = {"dst": "192.0.2.1:80"} if verb.name == "explain" else {}
    answer = verb.run(asker.owners, args)
    assert verb.lines is isinstance(answer, Lines | Stream)


def test_a_policy_is_sent_with_the_files_that_it_includes(asker: Asker) -> None:
    body = {"text": "version = 1", "files": {"a": "x.example"}}
    assert asker.ask("PUT", "/v1/policy", body) == (200, {"generation": 5, "rules": 1})
    status, told = asker.ask("PUT", "/v1/policy", {"text": "wrong"})
    assert (status, told["error"]["message"]) == (409, "p:1:1: expected")
    status, told = asker.ask("PUT", "/v1/policy", {"text": "", "files": {"a": 1}})
    assert (status, told["error"]["field"]) == (400, "files")


def test_pins_come_line_by_line(asker: Asker) -> None:
    (pin,) = asker.lines("GET", "/v1/policy/pins")
    assert pin["name"] == "a.example"


def test_limits_come_line_by_line_and_as_metrics(asker: Asker) -> None:
    (limit,) = asker.lines("GET", "/v1/limits")
    assert limit["limit"] == {"rate_in": "8 Mbit/s"}
    page = metrics(asker.owners).decode()
    for line in (
        'passtpy_limit_bytes_total{rule="3",direction="out"} 20',
        'passtpy_limit_dropped_total{rule="3",direction="in"} 1',
        'passtpy_limit_flows{rule="3"} 4',
        'passtpy_limit_refused_total{rule="3"} 5',
        'passtpy_limit_closed_total{rule="3"} 6',
    ):
        assert line in page.splitlines()


def test_a_question_is_answered_by_its_number(asker: Asker) -> None:
    status, told = asker.ask("GET", "/v1/policy/questions")
    assert told == {"questions": [{"question": 3, "to": "a.example"}]}
    body = {"answer": "allow", "remember": True}
    status, told = asker.ask("POST", "/v1/policy/questions/3", body)
    assert told == {"question": 3, "allow": True, "remember": True}
    status, _ = asker.ask("POST", "/v1/policy/questions/3", {"answer": "perhaps"})
    assert status == 400


def test_events_are_a_stream(asker: Asker) -> None:
    asker.events.publish("early", {})
    said = asker.client.receive(request("GET", "/v1/events?since=1"))
    asker.events.publish("late", {})
    body = dechunk(split(said + asker.client.more())[1])
    assert [json.loads(line)["event"] for line in body.splitlines()] == [
        "early",
        "late",
    ]


def test_the_level_of_the_log_may_change_for_a_while(asker: Asker) -> None:
    body = {"level": "debug", "for_s": 60}
    assert asker.ask("PUT", "/v1/log", body) == (200, {"level": "debug"})
    assert asker.daemon.timed == 60
    assert asker.ask("PUT", "/v1/log", {"level": "loud"})[0] == 400


def test_reload_tells_when_it_is_done(asker: Asker) -> None:
    assert asker.client.receive(request("POST", "/v1/reload")) == b""
    asker.daemon.later.settle(Value({"generation": 5}))
    assert json.loads(split(asker.client.more())[1]) == {"generation": 5}


def test_stop_is_polite(asker: Asker) -> None:
    assert asker.ask("POST", "/v1/stop") == (200, {"stopping": True})


def test_verbs_have_their_own_names_and_places() -> None:
    assert len({verb.name for verb in VERBS}) == len(VERBS)
    assert len({(verb.method, verb.path) for verb in VERBS}) == len(VERBS)


def test_a_capture_is_streamed_until_its_limit(asker: Asker) -> None:
    query = "filter=tcp+and+rule+web&packets=2&side=tap&snaplen=96"
    said = asker.client.receive(request("POST", f"/v1/capture?{query}"))
    assert b"capture-id: 1\r\n" in said
    ((program, sides, snaplen),) = asker.packets.wishes
    assert (len(program) // 48, sides, snaplen) == (3, 1, 96)
    _, told = asker.beside().ask("GET", "/v1/capture")
    assert [each["filter"] for each in told["captures"]] == ["tcp and rule web"]
    asker.packets.arrive(0, *(packet_block(b"x") for _ in range(3)))
    while asker.client.answering:
        said += asker.client.more()
    status, data = split(said)
    assert status == 200
    file = dechunk(data)
    assert len(packets(file)) == 2
    assert b"rule 3: tcp to any to the host (web)" in file


def test_a_capture_is_ended_by_another_client(asker: Asker) -> None:
    said = asker.client.receive(request("POST", "/v1/capture"))
    other = asker.beside()
    status, told = other.ask("DELETE", "/v1/capture?id=1")
    assert (status, [each["id"] for each in told["captures"]]) == (200, [1])
    while asker.client.answering:
        said += asker.client.more()
    assert packets(dechunk(split(said)[1])) == []
    assert other.ask("DELETE", "/v1/capture?id=1")[0] == 404
    assert other.ask("GET", "/v1/capture") == (200, {"captures": []})


def test_a_client_that_leaves_ends_its_capture(asker: Asker) -> None:
    asker.client.receive(request("POST", "/v1/capture"))
    asker.client.leave()
    assert asker.packets.running == {}


@pytest.mark.parametrize(
    "query", ["filter=tcp+blah", "side=here", "packets=0", "bytes=5", "snaplen=x"]
)
def test_what_cannot_be_captured_is_refused(asker: Asker, query: str) -> None:
    status, told = asker.ask("POST", f"/v1/capture?{query}")
    assert (status, told["error"]["field"]) == (400, query.partition("=")[0])
    assert asker.packets.running == {}
