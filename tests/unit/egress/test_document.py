# SPDX-License-Identifier: GPL-2.0-or-later
"""A policy file: what it says, and where it is wrong."""

import os
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from passtpy.addr import inany
from passtpy.config.limit import Limit
from passtpy.egress.document import MOST_LIMITS, parse_policy, with_words
from passtpy.egress.model import Effect, Mode, Policy, Ports, Sets, Span
from passtpy.egress.source import PolicySource
from passtpy.egress.target import TargetFault, read_span
from passtpy.errors import PolicyError
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP

WHOLE = """\
version = 1
default = "drop"
mode = "observe"
dns_refusal = "refused"
ask_timeout = 5
limit.rate_out = "1.5M"
limit.new_flows = 50

[sets]
mirrors = ["mirror.example", "198.51.100.0/24"]
ads = { include = "ads.txt", to = "ads.example" }

[[rule]]
name = "code hosting"
to = ["GitHub.com.", "*.githubusercontent.com", "2001:db8::1-2001:db8::9"]
ports = [22, 443, "8000-8010"]
proto = ["tcp", "udp"]
quic = "pin"
limit = { rate_in = "20 MB/s", total_out = "5 MB", flows = 10 }
action = "allow"

[[rule]]
to = ["@mirrors", "@ads", "@private"]
action = "ask"

[[rule]]
action = "reject"
"""


def _parse(text: str, files: Mapping[str, str] | None = None) -> Policy:
    def read(name: str) -> str:
        if files is None or name not in files:
            raise FileNotFoundError(2, os.strerror(2))
        return files[name]

    return parse_policy(text, "p.toml", read)


def _wrong(text: str, files: Mapping[str, str] | None = None) -> str:
    with pytest.raises(PolicyError) as caught:
        _parse(text, files)
    return str(caught.value)


def test_a_whole_file_is_understood() -> None:
    policy = _parse(WHOLE, {"ads.txt": "# ads\nevil.example # x\n\n203.0.113.7\n"})
    assert (policy.default, policy.mode) == (Effect.DROP, Mode.OBSERVE)
    assert (policy.dns_refusal, policy.ask_s) == ("refused", 5)
    code, sets, rest = policy.rules
    assert code.name == "code hosting"
    assert code.targets.names == ("github.com", "*.githubusercontent.com")
    assert code.targets.spans == (read_span("2001:db8::1-2001:db8::9"),)
    assert code.ports == (Ports(22, 22), Ports(443, 443), Ports(8000, 8010))
    assert code.protos == {IPPROTO_TCP, IPPROTO_UDP}
    assert code.quic == "pin"
    assert sets.targets.names == ("mirror.example", "evil.example", "ads.example")
    assert sets.targets.sets == {Sets.PRIVATE}
    assert (sets.effect, rest.effect) == (Effect.ASK, Effect.REJECT)
    assert code.limit == Limit(rate_in=20_000_000, total_out=5_000_000, flows=10)
    assert policy.limit == Limit(rate_out=187_500, new_flows=50)
    assert policy.places == ("p.toml:13", "p.toml:22", "p.toml:26")
    assert policy.has_names


def test_a_rule_whose_line_is_not_seen_has_its_number() -> None:
    text = 'version = 1\n[["rule"]]\naction = "allow"\n[[rule]]\naction = "drop"\n'
    assert _parse(text).places == ("p.toml, rule 1", "p.toml, rule 2")


RULE = 'version = 1\n[[rule]]\naction = "allow"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.toml:1:1: expected the key 'version'"),
        ("version = 2", "p.toml:1:11: expected 1,"),
        ("version = true", "p.toml:1:11: expected 1,"),
        ("version = 1\ncolour = 3\n", "p.toml:2:1: unknown key 'colour'; expected one"),
        ("version = 1\ndefault = 'no'", "p.toml:2:11: expected one of allow, reject,"),
        ("version = 1\nmode = 7", "p.toml:2:8: expected one of enforce, observe"),
        ("version = 1\nrule = 7", "p.toml:2:8: expected [[rule]]"),
        ("version = 1\n[rule]\n", "p.toml:2:2: expected [[rule]]"),
        ("version = 1\nask_timeout = 0", "p.toml:2:15: expected 1 to 3600 seconds"),
        ("version = 1\n[[rule]]\n", "p.toml:2:3: expected the key 'action'"),
        (RULE + "limits = 1", "p.toml:4:1: unknown key 'limits'; expected one of name"),
        (RULE + "to = []", "p.toml:4:6: expected at least one"),
        (RULE + "to = [1]", "p.toml:4:7: expected a text"),
        (RULE + "to = ['a', 'b c']", "p.toml:4:12: 'b c': expected a name, a network"),
        (RULE + "to = 'a.*.b'", "p.toml:4:6: 'a.*.b': a star stands for the front"),
        (RULE + "to = '*'", "p.toml:4:6: '*': a star stands for the front"),
        (RULE + "to = '10.0.0.1/8'", "p.toml:4:6: '10.0.0.1/8': expected a name"),
        (RULE + "to = '10.0.0.300'", "p.toml:4:6: '10.0.0.300': expected a name"),
        (RULE + "to = '10.0.0.9-10.0.0.1'", "p.toml:4:6: '10.0.0.9-10.0.0.1': a range"),
        (RULE + "to = '10.0.0.9-::1'", "p.toml:4:6: '10.0.0.9-::1': a range is of one"),
        (RULE + "to = '::ffff:10.0.0.1'", "p.toml:4:6: '::ffff:10.0.0.1': write 10."),
        (RULE + "to = 'fe80::1%eth0'", "p.toml:4:6: 'fe80::1%eth0': an address stands"),
        (RULE + "to = '@there'", "p.toml:4:6: '@there': there is no such set; there"),
        (RULE + "ports = [0]", "p.toml:4:10: expected ports from 1"),
        (RULE + "ports = ['80-22']", "p.toml:4:10: expected ports from 1"),
        (RULE + "ports = [true]", "p.toml:4:10: expected a port"),
        (RULE + "ports = 70000", "p.toml:4:9: expected ports from 1"),
        (RULE + "proto = 'sctp'", "p.toml:4:9: expected one of tcp, udp, icmp"),
        (RULE + "proto = 'icmp'\nports = 1", "p.toml:5:9: ICMP has no ports"),
        (RULE + "limit = 1", "p.toml:4:9: expected a table"),
        (RULE + "limit = {}", "p.toml:4:9: expected at least one of rate_in"),
        (RULE + "limit.rate = 1", "p.toml:4:1: unknown key 'rate'; expected one of"),
        (RULE + "limit.rate_in = 8", "p.toml:4:17: expected a speed of 8 kbit/s"),
        (RULE + "limit.rate_in = '1k'", "p.toml:4:17: expected a speed of 8 kbit/s"),
        (RULE + "limit = { total_in = '1 bit' }", "p.toml:4:22: expected an amount"),
        (RULE + "limit = { flows = 0 }", "p.toml:4:19: expected 1 to 1000000 flows"),
        (RULE + "limit = { new_flows = '5/s' }", "p.toml:4:23: expected a number of"),
        (
            "version = 1\n[[rule]]\naction = 'drop'\nlimit = { flows = 1 }",
            "p.toml:4:9: a rule that refuses has nothing to limit",
        ),
        (RULE + "name = ''", "p.toml:4:8: expected a text"),
        (RULE + 'name = "a\\u001b"', "p.toml:4:8: expected a text"),
        ("version = ", "p.toml:1:11: invalid value"),
        ("version = 1\nversion = 1", "p.toml:2:12: cannot overwrite a value"),
        ("a = " + "[" * 2000, "p.toml:1:1: nested too deeply"),
        ("version = 1\n[sets]\n'a b' = []", "p.toml:3:1: a set is named by"),
        ("version = 1\n[sets]\na = { file = 'x' }", "p.toml:3:7: unknown key 'file'"),
        ("version = 1\n[sets]\na = ['@b']", "p.toml:3:6: '@b': there is no such set"),
        ("version = 1\n[sets]\na.include = 'x'", "p.toml:3:13: cannot read x: No such"),
    ],
)
def test_a_wrong_file_is_told_with_line_and_column(text: str, message: str) -> None:
    assert _wrong(text).startswith(message)


def test_limits_have_a_limit() -> None:
    rule = "[[rule]]\naction = 'allow'\nlimit.flows = 1\n"
    text = "version = 1\n" + rule * (MOST_LIMITS + 1)
    line = 1 + 3 * (MOST_LIMITS + 1)
    said = f"p.toml:{line}:1: at most {MOST_LIMITS} rules may have limits"
    assert _wrong(text).partition(":1: ")[2] == said.partition(":1: ")[2]


def test_a_wrong_line_of_an_included_file_is_told_by_its_own_place() -> None:
    text = "version = 1\n[sets]\na.include = ['good', 'bad']\n"
    files = {"good": "a.example\n", "bad": "# x\n\n  a..b\n"}
    assert _wrong(text, files).startswith("bad:3:3: 'a..b': expected a name")
    files["bad"] = "@private"
    assert _wrong(text, files) == "bad:1:1: a set has no sets in it"


def test_sets_are_bounded() -> None:
    lines = "".join(f"h{n}.example\n" for n in range(100_001))
    text = "version = 1\n[sets]\na.include = 'x'\nb.include = 'x'\n"
    assert (
        _wrong(text, {"x": lines}) == "p.toml:4:13: at most 200000 targets in all sets"
    )


def _words(*words: tuple[str, str]) -> Policy:
    return with_words(None, words, None)


@pytest.mark.parametrize(
    ("word", "to", "ports", "protos"),
    [
        ("github.com", "github.com", (), set()),
        ("github.com:443", "github.com", ((443, 443),), set()),
        ("*.pypi.org:80,443/tcp", "*.pypi.org", ((80, 80), (443, 443)), {6}),
        ("198.51.100.0/24", "198.51.100.0/24", (), set()),
        ("198.51.100.0/24:1-9/udp", "198.51.100.0/24", ((1, 9),), {17}),
        ("2001:db8::/32", "2001:db8::/32", (), set()),
        ("2001:db8::1", "2001:db8::1", (), set()),
        ("[2001:db8::/32]:22", "2001:db8::/32", ((22, 22),), set()),
        ("[2001:db8::1]", "2001:db8::1", (), set()),
        ("@private:53/udp", "@private", ((53, 53),), {17}),
        ("198.51.100.1/icmp", "198.51.100.1", (), {1, 58}),
    ],
)
def test_a_word_of_the_command_line_is_a_rule(
    word: str, to: str, ports: tuple[tuple[int, int], ...], protos: set[int]
) -> None:
    (rule,) = _words(("allow", word)).rules
    assert (rule.to, rule.protos) == ((to,), frozenset(protos))
    assert rule.ports == tuple(Ports(*each) for each in ports)
    assert rule.effect is Effect.ALLOW


@pytest.mark.parametrize(
    "word",
    ["", "a b", "a:", "a:x", "a:1-", "[::1", "[::1]x", "@no", "a/icmp:1", "a:1/icmp"],
)
def test_a_word_that_is_no_rule_is_told(word: str) -> None:
    with pytest.raises(PolicyError, match="--deny: "):
        _words(("deny", word))


def test_words_come_first_in_their_order_and_know_the_sets_of_the_file() -> None:
    policy = _parse(
        "version = 1\n[sets]\nm = '198.51.100.1'\n" + RULE.split("\n", 1)[1]
    )
    both = with_words(policy, [("deny", "@m"), ("allow", "b.example")], "observe")
    address = inany(IPv4Address("198.51.100.1"))
    assert [rule.effect for rule in both.rules] == ["reject", "allow", "allow"]
    assert both.rules[0].targets.spans == (Span(address, address),)
    assert both.places[:2] == ("--deny @m", "--allow b.example")
    assert both.mode is Mode.OBSERVE


def test_who_only_denies_allows_the_rest() -> None:
    assert _words(("deny", "ads.example")).default is Effect.ALLOW
    assert _words(("allow", "a.example"), ("deny", "b.example")).default == "reject"
    assert _words().default is Effect.REJECT


def _source(tmp_path: Path, text: str | bytes) -> PolicySource:
    file = tmp_path / "policy.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return PolicySource(str(file), (), None)


def test_included_files_are_beside_the_policy(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "names").write_text("a.example\n")
    text = "version = 1\n[sets]\na.include = 'more/names'\n" + RULE.split("\n", 1)[1]
    source = _source(tmp_path, text + 'to = "@a"\n')
    assert source.load().rules[0].targets.names == ("a.example",)
    (tmp_path / "more" / "names").write_text("b.example\n")
    assert source.load().rules[0].targets.names == ("b.example",)
    source.close()


def test_a_folder_that_is_closed_to_us_later_is_still_read(tmp_path: Path) -> None:
    source = _source(tmp_path, "version = 1\n")
    source.load()
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    (moved / "policy.toml").write_text("version = 1\ndefault = 'drop'\n")
    assert source.load().default is Effect.DROP
    source.close()


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"version = 1\n")
    os.close(write_end)
    source = PolicySource(f"/proc/self/fd/{read_end}", (), None)
    assert source.load().rules == ()
    with pytest.raises(PolicyError, match="used up"):
        source.load()
    source.close()
    os.close(read_end)


def test_bytes_that_are_no_text_have_a_place(tmp_path: Path) -> None:
    source = _source(tmp_path, b"version = 1\nx = '\xff'\n")
    with pytest.raises(PolicyError, match=r"policy\.toml:2:6: expected UTF-8"):
        source.load()
    source.close()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    source = PolicySource(str(tmp_path / "no.toml"), (), None)
    with pytest.raises(PolicyError, match=r"no\.toml: No such file"):
        source.load()
    source.close()


def test_a_policy_may_be_sent_with_what_it_includes() -> None:
    source = PolicySource(None, [("allow", "c.example")], None)
    text = "version = 1\n[sets]\na.include = 'x'\n" + RULE.split("\n", 1)[1]
    policy = source.load_sent(text + 'to = "@a"\n', {"x": "a.example"})
    assert [rule.targets.names for rule in policy.rules] == [
        ("c.example",),
        ("a.example",),
    ]
    with pytest.raises(PolicyError, match="policy:3:13: cannot read x: it was not"):
        source.load_sent(text, {})


@pytest.mark.parametrize("length", range(33))
def test_a_network_is_read_as_the_library_reads_it(length: int) -> None:
    for address in ("203.0.113.77", "255.255.255.255", "128.0.0.1"):
        network = ip_network(f"{address}/{length}", strict=False)
        span = Span(inany(network[0]), inany(network[-1]))
        assert read_span(str(network)) == span
        if length < 32:
            with pytest.raises(TargetFault, match="host bits set"):
                read_span(f"{address}/{length}")


@pytest.mark.parametrize(
    "text", ["1.2.3/8", "1.02.3.4/32", "1.2.3.4.5/32", "1.2.3.4/33"]
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(TargetFault, match="expected a name, a network"):
        read_span(text)
