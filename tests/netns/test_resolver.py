# SPDX-License-Identifier: GPL-2.0-or-later
"""Our own resolver (--dns-server), as a guest sees it."""

import socket

import dns.flags
import dns.message
import dns.rcode
import pytest

from passtpy.services.dns.stream import Messages
from tests.lab import REMOTE4, REMOTE6, Lab
from tests.netns.nameserver import NameServer, ask, told
from tests.netns.resolvers import serving

# Nobody is there: whom the guest asks does not matter
ANYBODY4, ANYBODY6 = "203.0.113.99", "2001:db8:99::53"
ZONE = (
    "www.example. 300 A 198.51.100.1",
    "www.example. 300 AAAA 2001:db8::1",
    "alias.example. 300 CNAME www.example.",
    "svc.example. 300 HTTPS 1 . alpn=h2 ipv4hint=198.51.100.1",
)


@pytest.mark.parametrize("server", [REMOTE4, REMOTE6])
@pytest.mark.parametrize("asked", [ANYBODY4, ANYBODY6])
def test_a_question_to_anybody_is_answered(lab: Lab, server: str, asked: str) -> None:
    names = NameServer(*ZONE)
    with (
        names.serving(lab.remote, server),
        serving(lab, "--dns-server", resolv=(server,)) as guest,
    ):
        assert told(ask(guest.guest, asked, "WWW.example.")) == {"198.51.100.1"}
        assert told(ask(guest.guest, asked, "www.example", "AAAA")) == {"2001:db8::1"}
        again = ask(guest.guest, asked, "www.EXAMPLE")
        assert told(again) == {"198.51.100.1"}
        assert names.asked == ["www.example."] * 2  # once for each type
        missing = ask(guest.guest, asked, "no.example")
        assert missing.rcode() == dns.rcode.NXDOMAIN
        hidden = ask(guest.guest, asked, "svc.example", "HTTPS")
        assert told(hidden) == {'1 . alpn="h2" ipv4hint="198.51.100.1"'}


@pytest.mark.parametrize("asked", [ANYBODY4, ANYBODY6])
def test_questions_over_tcp_are_answered_too(lab: Lab, asked: str) -> None:
    with (
        NameServer(*ZONE).serving(lab.remote, REMOTE4),
        serving(lab, "--dns-server", resolv=(REMOTE4,)) as guest,
    ):
        answer = ask(guest.guest, asked, "www.example", tcp=True)
        assert told(answer) == {"198.51.100.1"}


def test_a_stream_takes_many_questions_in_any_pieces(lab: Lab) -> None:
    """RFC 7766: one connection, several questions, cut anywhere; then a half-close."""
    query = dns.message.make_query("www.example", "A").to_wire()
    stream = (len(query).to_bytes(2, "big") + query) * 3
    with (
        NameServer(*ZONE).serving(lab.remote, REMOTE4),
        serving(lab, "--dns-server", resolv=(REMOTE4,)) as guest,
        guest.guest.connect(ANYBODY4, 53) as sock,
    ):
        sock.settimeout(30)
        for at in range(0, len(stream), 11):
            sock.sendall(stream[at : at + 11])
        sock.shutdown(socket.SHUT_WR)
        got = b"".join(iter(lambda: sock.recv(4096), b""))
        answers = list(Messages().feed(got))
        assert [a[:2] for a in answers] == [query[:2]] * 3


def test_an_alias_is_told_with_what_it_leads_to(lab: Lab) -> None:
    with (
        NameServer(*ZONE).serving(lab.remote, REMOTE4),
        serving(lab, "--dns-server", resolv=(REMOTE4,)) as guest,
    ):
        answer = ask(guest.guest, ANYBODY4, "alias.example")
        assert told(answer) == {"www.example.", "198.51.100.1"}


def test_a_long_answer_is_fetched_over_tcp(lab: Lab) -> None:
    names = NameServer("long.example. 60 A 198.51.100.1", truncate=True)
    with (
        names.serving(lab.remote, REMOTE4),
        serving(lab, "--dns-server", resolv=(REMOTE4,)) as guest,
    ):
        answer = ask(guest.guest, ANYBODY4, "long.example")
        assert names.over_tcp == 1
        assert told(answer) == {"198.51.100.1"}


def test_the_next_server_answers_for_one_that_is_silent(lab: Lab) -> None:
    names = NameServer(*ZONE)
    with (
        names.serving(lab.remote, REMOTE4),
        serving(lab, "--dns-server", resolv=("203.0.113.7", REMOTE4)) as guest,
    ):
        assert told(ask(guest.guest, ANYBODY4, "www.example")) == {"198.51.100.1"}


def test_records_of_ours_need_no_server(lab: Lab) -> None:
    records = (
        "db.test=192.0.2.7,2001:db8::7",
        "*.apps.test=192.0.2.8",
        r"/node[0-9]+\.test/=192.0.2.9",
        "www.test=db.test",
    )
    options = [word for each in records for word in ("--dns-record", each)]
    with serving(lab, *options) as guest:

        def asked(name: str, kind: str = "A") -> set[str]:
            return told(ask(guest.guest, ANYBODY4, name, kind))

        assert asked("db.test") == {"192.0.2.7"}
        assert asked("db.test", "AAAA") == {"2001:db8::7"}
        assert asked("a.b.apps.test") == {"192.0.2.8"}
        assert asked("node42.test") == {"192.0.2.9"}
        assert asked("www.test") == {"db.test.", "192.0.2.7"}
        other = ask(guest.guest, ANYBODY4, "other.test")
        assert other.rcode() == dns.rcode.SERVFAIL
        assert not other.flags & dns.flags.AD


def test_the_host_has_a_name(lab: Lab) -> None:
    with serving(lab, "--dns-server", "--map-host-loopback", "192.0.2.99") as guest:
        answer = ask(guest.guest, ANYBODY4, "host.internal")
        assert told(answer) == {"192.0.2.99"}


def test_without_it_questions_are_traffic(lab: Lab) -> None:
    names = NameServer(*ZONE)
    with (
        names.serving(lab.remote, REMOTE4),
        serving(lab, resolv=(REMOTE4,)) as guest,
    ):
        assert told(ask(guest.guest, REMOTE4, "www.example")) == {"198.51.100.1"}
        with pytest.raises(TimeoutError):
            ask(guest.guest, ANYBODY4, "www.example", patience=2)
