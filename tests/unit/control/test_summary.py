# SPDX-License-Identifier: GPL-2.0-or-later
"""What is printed when we start."""

from ipaddress import IPv4Address, IPv6Address

from passtpy.config.cli import parse_passt, parse_pasta
from passtpy.config.host import HostInfo
from passtpy.config.resolver import Resolver
from passtpy.config.view import View
from passtpy.control.summary import summary

HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    gateway4=IPv4Address("192.0.2.1"),
    guest6=IPv6Address("2001:db8::5"),
    gateway6=IPv6Address("fe80::1"),
    template4="eth0",
    template6="eth0",
)
RESOLVER = Resolver((IPv4Address("198.51.100.53"),), ("example.com",))

EVERYTHING = """\
Configuration socket: /run/x
Template interface: eth0 (IPv4), eth0 (IPv6)
Outbound interface: eth1 (IPv4)
Outbound IPv4 address: 203.0.113.9
Outbound IPv6 address: 2001:db8:3::9
Namespace interface: tap0
MAC:
    host: 9a:55:9a:55:9a:55
    NAT to host 127.0.0.1: 192.0.2.1
DHCP:
    assign: 192.0.2.5
    mask: 255.255.255.0
    router: 192.0.2.1
DNS:
    198.51.100.53
DNS search list:
    example.com
    NAT to host ::1: fe80::1
NDP/DHCPv6:
    assign: 2001:db8::5
    router: fe80::1
    our link-local: fe80::1
Inbound forwarding rules (HOST):
    TCP [*]:8080-8081  =>  80-81~
    TCP [192.0.2.7]%eth0:22  =>  22~
    UDP [*]:1-49151  =>  1-49151  (best effort) (auto-scan)
Outbound forwarding rules (SPLICE):
    UDP [*]%lo:53  =>  53~
"""


def shown(line: str, host: HostInfo = HOST) -> str:
    view = View.of(parse_pasta(line.split()), host, RESOLVER)
    return "".join(f"{each}\n" for each in summary(view, "tap0"))


def test_everything_is_told() -> None:
    line = "--dhcp-dns --dhcp-search -o 203.0.113.9 -o 2001:db8:3::9"
    line += " --outbound-if4 eth1 -c /run/x -T none -U 53"
    line += " -t 8080-8081:80-81 -t 192.0.2.7%eth0/22"
    # ~ stands for the blank at the end of a line
    assert shown(line) == EVERYTHING.replace("~", " ")


def test_what_is_off_is_not() -> None:
    text = shown("-4 --no-dhcp --no-map-gw -t none -u none -T none -U none")
    assert text == EVERYTHING[: EVERYTHING.index("Outbound")].replace(
        "Configuration socket: /run/x\nTemplate interface: eth0 (IPv4), eth0 (IPv6)\n",
        "Template interface: eth0 (IPv4), eth0 (IPv6)\nNamespace interface: tap0\n"
        "MAC:\n    host: 9a:55:9a:55:9a:55\n",
    )


def test_without_a_template_there_is_local_mode() -> None:
    host = HostInfo(guest4=IPv4Address("169.254.2.1"), ipv6=False)
    text = "IPv4: no external interface as template, use local mode"
    assert text in shown("-4", host).splitlines()


def test_without_a_tap_there_is_only_forwarding() -> None:
    assert shown("--splice-only -t 80 -u none -T none -U none") == (
        "Inbound forwarding rules (HOST):\n    TCP [*]:80  =>  80 \n"
    )


def test_a_machine_has_no_interface_of_ours_and_is_told_of_resolvers() -> None:
    config = parse_passt(["-t", "8080:80"])
    lines = list(summary(View.of(config, HOST, RESOLVER), ""))
    assert lines[:2] == ["Template interface: eth0 (IPv4), eth0 (IPv6)", "MAC:"]
    assert "    198.51.100.53" in lines
    assert lines[-2:] == [
        "Inbound forwarding rules (HOST):",
        "    TCP [*]:8080  =>  80 ",
    ]
