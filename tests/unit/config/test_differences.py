# SPDX-License-Identifier: GPL-2.0-or-later
"""The page that compares options with those of passt and pasta."""

import re
from itertools import groupby

import pytest

from passtpy.config.differences import NOTES, Verdict
from passtpy.config.options import OPTIONS, options_of

# All options of the passt and pasta of July 2026, by their long names
THEIRS = frozenset(
    re.findall(
        r"\S+",
        """
debug trace stats quiet foreground stderr log-file log-size runas pcap pid help version
chroot-fallback conf-path socket fd one-off vhost-user print-capabilities repair-path
migrate-exit migrate-no-linger mtu address netmask mac-addr gateway interface outbound
outbound-if4 outbound-if6 ipv4-only ipv6-only dns search hostname fqdn dhcp-dns
dhcp-search no-dhcp-dns no-dhcp-search map-host-loopback map-guest-addr no-map-gw
dns-forward dns-host no-tcp no-udp no-icmp no-dhcp no-dhcpv6 no-ndp no-ra freebind
tcp-ports udp-ports tcp-ns udp-ns host-lo-to-ns-lo no-splice splice-only netns userns
netns-only no-netns-quit config-net no-copy-routes no-copy-addrs ns-ifname ns-mac-addr
""",
    )
)


def test_what_they_do_not_have_is_new() -> None:
    new = {key for key, note in NOTES.items() if note.verdict is Verdict.NEW}
    ours = {option.key for option in OPTIONS}
    assert new == ours - THEIRS


def test_every_option_of_theirs_is_known() -> None:
    assert {option.key for option in OPTIONS} >= THEIRS


@pytest.mark.parametrize("program", ["pasta", "passt"])
def test_a_group_of_options_stands_together(program: str) -> None:
    groups = [name for name, _ in groupby(o.group for o in options_of(program))]
    assert len(groups) == len(set(groups))
