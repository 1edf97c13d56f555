# SPDX-License-Identifier: GPL-2.0-or-later
"""slirp4netns' command line, as podman and rootlesskit write it."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from passtpy.config.model import AttachPath, AttachPid
from passtpy.config.slirp import USAGE, parse_slirp
from passtpy.errors import ConfigError, UsageError

PODMAN = [
    *("--disable-host-loopback", "--mtu=65520", "--enable-sandbox", "--enable-seccomp"),
    *("--enable-ipv6", "-c", "-r", "3", "-e", "4", "--netns-type=path"),
    *("--api-socket", "/tmp/s", "/run/netns/x", "tap0"),
]
ROOTLESSKIT = [
    *("--mtu", "65520", "-r", "3", "--disable-host-loopback", "--enable-sandbox"),
    *("--enable-seccomp", "--userns-path=/proc/7/ns/user", "--cidr", "10.0.5.0/24"),
    *("1234", "tap0"),
]


def test_as_podman_calls_it() -> None:
    line = parse_slirp(PODMAN)
    config = line.config
    assert config.target == AttachPath("/run/netns/x")
    assert (config.ns_ifname, config.mtu, config.config_net) == ("tap0", 65520, True)
    assert (line.ready_fd, line.exit_fd, config.api_socket) == (3, 4, "/tmp/s")
    assert config.foreground
    assert config.address4 == IPv4Address("10.0.2.100")
    assert config.gateway4 == IPv4Address("10.0.2.2")
    assert config.dns_forward4 == IPv4Address("10.0.2.3")
    assert config.address6 == IPv6Address("fd00::100")
    assert config.map_host_loopback4 is None
    assert not config.map_gateway


def test_as_rootlesskit_calls_it() -> None:
    line = parse_slirp(ROOTLESSKIT)
    assert line.config.target == AttachPid(1234)
    assert line.config.userns == "/proc/7/ns/user"
    assert not line.config.config_net
    assert line.config.gateway4 == IPv4Address("10.0.5.2")
    assert not line.config.ipv6


def test_options_may_follow_the_names() -> None:
    line = parse_slirp(["1", "-c", "tap1", "--disable-dns", "--mtu", "1400"])
    assert line.config.ns_ifname == "tap1"
    assert (line.config.mtu, line.config.config_net) == (1400, True)
    assert not line.config.dns_enabled
    assert line.config.map_host_loopback4 == IPv4Address("10.0.2.2")


def test_what_it_says_first() -> None:
    assert parse_slirp(["1", "tap0"]).banner() == (
        "Starting slirp\n"
        "* MTU:             1500\n"
        "* Network:         10.0.2.0\n"
        "* Netmask:         255.255.255.0\n"
        "* Gateway:         10.0.2.2\n"
        "* DNS:             10.0.2.3\n"
        "* DHCP begin:      10.0.2.15\n"
        "* DHCP end:        10.0.2.30\n"
        "* Recommended IP:  10.0.2.100\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--cidr=10.0.2.0 1 tap0", "invalid CIDR: 10.0.2.0"),
        ("--cidr=10.0.2.0/26 1 tap0", "prefix length needs to be 1-25"),
        ("--cidr=10.0.2.5/24 1 tap0", "CIDR needs to be a network address"),
        ("-m 0 1 tap0", r"MTU must be a positive integer \(< 65522\)"),
        ("-m 65522 1 tap0", r"MTU must be a positive integer \(< 65522\)"),
        ("-m x 1 tap0", r"MTU must be a positive integer \(< 65522\)"),
        ("-m 67 1 tap0", "RFC 791"),
        ("-r x 1 tap0", "ready-fd must be a non-negative integer"),
        ("-e -1 1 tap0", "exit-fd must be a non-negative integer"),
        ("x tap0", "PID must be a positive integer"),
        ("--netns-type=foo 1 tap0", "--netns-type must be"),
        ("--target-type=x 1 tap0", '--target-type must be either "netns" or "bess"'),
        ("--target-type=bess /x tap0", "bess is not supported"),
        ("--macaddress=02:00:00:00:00:01 1 tap0", "--macaddr cannot be specified"),
        ("-c --macaddress=xx 1 tap0", '"xx" is an invalid MAC address.'),
        (f"--api-socket=/{'x' * 107} 1 tap0", "Invalid socket path"),
        ("--outbound-addr=no/name 1 tap0", "valid ipv4 address or interface name"),
    ],
)
def test_wrong_values(words: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_slirp(words.split())


@pytest.mark.parametrize("words", ["", "1", "--foo 1 tap0", "-r", "-c=1 1 tap0"])
def test_wrong_lines(words: str) -> None:
    with pytest.raises((UsageError, ConfigError)):
        parse_slirp(words.split())


def test_callers_look_for_what_there_is() -> None:
    """podman 4 reads --help for each of these before it uses it."""
    for option in (
        *("--disable-host-loopback", "--mtu", "--enable-sandbox", "--enable-seccomp"),
        *("--cidr", "--outbound-addr", "--enable-ipv6", "--netns-type", "--api-socket"),
    ):
        assert option in USAGE


def test_where_the_outside_is() -> None:
    line = parse_slirp(["--outbound-addr=192.0.2.1", "--outbound-addr6=eth0", "1", "t"])
    assert line.config.outbound4 == IPv4Address("192.0.2.1")
    assert line.config.outbound_if6 == "eth0"
