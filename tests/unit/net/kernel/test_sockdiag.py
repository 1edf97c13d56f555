# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of /proc/net/tcp and its like become what was found."""

import socket
from ipaddress import ip_address
from sys import byteorder

import pytest

from passtpy.addr import inany
from passtpy.net.forwarding.listeners import show_ports
from passtpy.net.kernel.sockdiag import parse_proc_line
from passtpy.policy.auto import Heard

TCP, UDP = 6, 17
V4, V6 = socket.AF_INET, socket.AF_INET6
TAIL = "00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100"

pytestmark = pytest.mark.skipif(
    byteorder == "big", reason="the lines are of little-endian machines"
)


@pytest.mark.parametrize(
    ("local", "state", "proto", "family", "expected"),
    [
        ("0100007F:1F90", "0A", TCP, V4, Heard(8080, b"127.0.0.1", False)),
        ("00000000:0016", "0A", TCP, V4, Heard(22, b"0.0.0.0", False)),
        ("00000000:0016", "01", TCP, V4, None),
        ("00000000:0044", "07", UDP, V4, Heard(68, b"0.0.0.0", False)),
        ("00000000:0044", "01", UDP, V4, None),
        ("0" * 32 + ":0050", "0A", TCP, V6, Heard(80, b"::", True)),
        ("0" * 24 + "01000000:0050", "0A", TCP, V6, Heard(80, b"::1", True)),
        (
            "0000000000000000FFFF00000100007F:0050",
            "0A",
            TCP,
            V6,
            Heard(80, b"::ffff:127.0.0.1", True),
        ),
        (
            "B80D0120000000000000000005000000:0050",
            "0A",
            TCP,
            V6,
            Heard(80, b"2001:db8::5", True),
        ),
    ],
)
def test_a_line_is_a_socket(
    local: str, state: str, proto: int, family: int, expected: Heard | None
) -> None:
    line = f"   0: {local} 00000000:0000 {state} {TAIL}\n"
    found = parse_proc_line(line, proto, family)
    if expected is not None:
        address = inany(ip_address(expected.address.decode()))
        expected = expected._replace(address=address)
    assert found == expected


@pytest.mark.parametrize("line", ["", "sl  local_address rem_address   st tx_queue\n"])
def test_other_lines_are_none(line: str) -> None:
    assert parse_proc_line(line, TCP, V4) is None


def test_ports_are_shown_as_spans() -> None:
    assert show_ports([80, 22, 81, 82, 90]) == "22,80-82,90"
    assert show_ports([]) == ""
