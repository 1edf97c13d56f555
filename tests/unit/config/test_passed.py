# SPDX-License-Identifier: GPL-2.0-or-later
"""Sockets that whoever starts us has opened, as the command line names them."""

import pytest

from passtpy.config.cli import parse_pasta
from passtpy.config.passed import Wanted
from passtpy.errors import ConfigError
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP


def test_names_and_ports_are_read() -> None:
    config = parse_pasta(["-t", "fd:web:80", "-t", "22", "-u", "fd:web"])
    assert config.wanted_sockets == (
        Wanted("-t", IPPROTO_TCP, "web", 80),
        Wanted("-u", IPPROTO_UDP, "web", None),
    )
    assert [rule.first for rule in config.host_ports] == [22]


@pytest.mark.parametrize(
    "text", ["fd:", "fd::80", "fd:web:", "fd:web:0", "fd:web:x", "fd:web:65536"]
)
def test_what_is_no_name_or_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Invalid port specifier 'fd:"):
        parse_pasta(["-t", text])


def test_sockets_of_the_namespace_cannot_be_passed() -> None:
    with pytest.raises(ConfigError, match="Invalid port specifier"):
        parse_pasta(["-T", "fd:web"])


def test_none_and_a_passed_socket_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="-t none conflicts"):
        parse_pasta(["-t", "fd:web", "-t", "none"])
