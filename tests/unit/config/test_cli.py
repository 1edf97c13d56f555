# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of pasta as a table."""

import re
import shlex
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from passtpy.config.cli import parse_pasta, usage
from passtpy.config.differences import NOTES, differences
from passtpy.config.document import document
from passtpy.config.manpage import manpage
from passtpy.config.model import (
    AttachPath,
    AttachPid,
    Config,
    RunAs,
    SpawnCommand,
    UdpFilter,
)
from passtpy.config.options import OPTIONS, options_of
from passtpy.config.portrule import PortRule
from passtpy.errors import ConfigError, InformationRequest, UsageError
from passtpy.log import LogFormat, LogLevel
from passtpy.record import names_of

V4 = IPv4Address("192.0.2.9")
V6 = IPv6Address("2001:db8::9")
MAC = bytes.fromhex("020000000001")
OTHER = IPv4Address("198.51.100.7")
HOSTNAME = "my_guest.example"
MANY_RESOLVERS = "-D 192.0.2.1 -D 192.0.2.2 -D 192.0.2.3 -D 192.0.2.4"
FOUR_RESOLVERS = (V4, IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), V6)


def parse(line: str) -> Config:
    return parse_pasta(shlex.split(line), "pasta")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--netns /run/x", {"target": AttachPath("/run/x"), "netns_only": True}),
        ("--netns name", {"target": AttachPath("/run/netns/name")}),
        (
            "--netns /x --userns /u",
            {"target": AttachPath("/x"), "userns": "/u", "netns_only": False},
        ),
        ("--userns /u --netns-only 12", {"userns": None, "netns_only": True}),
        ("--netns-only --userns /u 12", {"userns": "/u", "netns_only": False}),
        ("1234", {"target": AttachPid(1234), "foreground": False}),
        ("ls -l", {"target": SpawnCommand(("ls", "-l")), "foreground": True}),
        ("-- 12 34", {"target": SpawnCommand(("12", "34"))}),
        ("", {"target": SpawnCommand(())}),
        ("--config-net 1", {"config_net": True}),
        ("--no-netns-quit 1", {"netns_quit": False}),
        ("-f 1", {"foreground": True}),
        ("-p x.pcap -P y.pid 1", {"pcap": "x.pcap", "pid_file": "y.pid"}),
        ("--runas 0x10 1", {"runas": RunAs(16, 16)}),
        ("--runas 1000:010 1", {"runas": RunAs(1000, 8)}),
        ("--runas 0 1", {"runas": RunAs(0, 0)}),
        ("1", {"log_level": LogLevel.INFO}),
        ("true", {"log_level": LogLevel.QUIET}),
        ("-d true", {"log_level": LogLevel.DEBUG}),
        ("-q 1", {"log_level": LogLevel.QUIET}),
        ("-q -d 1", {"log_level": LogLevel.DEBUG}),
        ("-d -q 1", {"log_level": LogLevel.QUIET}),
        ("--trace -d 1", {"log_level": LogLevel.TRACE}),
        ("--trace -q -d 1", {"log_level": LogLevel.DEBUG}),
        (
            "-l f --log-size 0x10000 --log-format=json 1",
            {"log_file": "f", "log_size": 65536, "log_format": LogFormat.JSON},
        ),
        ("1", {"udp_filter": UdpFilter.ADDRESS}),
        ("--udp-filter endpoint 1", {"udp_filter": UdpFilter.ENDPOINT}),
        ("--udp-filter=address 1", {"udp_filter": UdpFilter.ADDRESS}),
        ("-4 1", {"ipv4": True, "ipv6": False}),
        ("-4 -6 1", {"ipv4": False, "ipv6": True}),
        ("--no-tcp --no-udp 1", {"tcp": False, "udp": False, "icmp": True}),
        ("--no-icmp 1", {"icmp": False, "ndp": False}),
        ("--no-ndp --no-ra 1", {"ndp": False, "ra": False, "icmp": True}),
        ("-i eth0 -I tap0 1", {"interface": "eth0", "ns_ifname": "tap0"}),
        ("-m 1500 1", {"mtu": 1500}),
        ("-m 0x5dc 1", {"mtu": 1500}),
        ("1", {"mtu": 65520}),
        ("-m 65521 1", {"mtu": 65521}),
        (
            "-M 02:00:00:00:00:01 --ns-mac-addr 02:00:00:00:00:01 1",
            {"our_mac": MAC, "ns_mac": MAC},
        ),
        ("-a 192.0.2.9 1", {"address4": V4, "prefix4": 24}),
        ("-a 10.0.0.1 1", {"prefix4": 8}),
        ("-a 172.16.0.1 1", {"prefix4": 16}),
        ("-a 240.0.0.1 1", {"prefix4": 32}),
        ("-a 192.0.2.9/28 1", {"prefix4": 28}),
        ("-a 192.0.2.9 -n 255.255.255.128 1", {"prefix4": 25}),
        ("-n 20 1", {"address4": None, "prefix4": 20}),
        ("-n 0.0.0.0 1", {"prefix4": 0}),
        ("-a 2001:db8::9 1", {"address6": V6, "prefix6": None}),
        ("-a 2001:db8::9/48 1", {"address6": V6, "prefix6": 48}),
        ("-a [2001:db8::9]/48 1", {"address6": V6, "prefix6": 48}),
        ("-a [192.0.2.9] 1", {"address4": V4, "prefix4": 24}),
        ("-a ::ffff:192.0.2.9/124 1", {"address4": V4, "prefix4": 28}),
        ("-a ::ffff:192.0.2.9 1", {"address4": V4, "address6": None}),
        ("-a 192.0.2.9 -a 2001:db8::9 1", {"address4": V4, "address6": V6}),
        ("-a 198.51.100.7 -a 192.0.2.9 1", {"address4": V4}),
        ("-g 192.0.2.9 -g fe80::1 1", {"gateway4": V4}),
        ("-o 192.0.2.9 -o 2001:db8::9 1", {"outbound4": V4, "outbound6": V6}),
        ("--outbound-if4 a --outbound-if6 b 1", {"outbound_if4": "a"}),
        ("--no-map-gw 1", {"map_gateway": False}),
        ("--map-host-loopback 192.0.2.9 1", {"map_host_loopback4": V4}),
        (
            "--map-host-loopback 192.0.2.9 --map-host-loopback none 1",
            {"map_host_loopback4": None, "map_gateway": False},
        ),
        (
            "--map-host-loopback none --map-host-loopback 192.0.2.9 1",
            {"map_host_loopback4": V4, "map_gateway": False},
        ),
        (
            "--map-guest-addr 192.0.2.9 --map-guest-addr 2001:db8::9 1",
            {"map_guest_addr4": V4, "map_guest_addr6": V6},
        ),
        ("--map-guest-addr 192.0.2.9 --map-g none 1", {"map_guest_addr4": None}),
        ("--no-dhcp --no-dhcpv6 1", {"dhcp": False, "dhcpv6": False, "ndp": True}),
        ("1", {"dns": None, "search": None, "announce_dns": False}),
        ("--dhcp-dns --dhcp-s 1", {"announce_dns": True, "announce_search": True}),
        ("-D 192.0.2.9 --dns 2001:db8::9 1", {"dns": (V4, V6)}),
        ("-D none 1", {"dns": (), "dns_enabled": False}),
        ("--dns-forward 192.0.2.9 1", {"dns_forward4": V4, "dns_enabled": True}),
        ("--dns-forward 192.0.2.9 -D none 1", {"dns_forward4": None}),
        ("-D none --dns-forward 192.0.2.9 1", {"dns_forward4": V4}),
        ("--dns-host 127.0.0.1 1", {"dns_host4": IPv4Address("127.0.0.1")}),
        ("-f --stats 0x10 1", {"stats": 16}),
        ("--stats 1 -f 1", {"stats": 1}),
        ("--stats 1 true", {"stats": 1, "foreground": True}),
        ("--config-net --no-copy-addrs 1", {"copy_addrs": False}),
        ("-D 198.51.100.7 -D none -D 192.0.2.9 1", {"dns": (V4,)}),
        ("-D 192.0.2.9 -D none 1", {"dns": ()}),
        ("-D 127.0.0.1 1", {"dns": (IPv4Address("127.0.0.1"),)}),
        (f"-D 192.0.2.9 {MANY_RESOLVERS} -D 2001:db8::9 1", {"dns": FOUR_RESOLVERS}),
        ("-S a.example -S b.example. 1", {"search": ("a.example", "b.example")}),
        ("-S 'a.example b.example' 1", {"search": ("a.example", "b.example")}),
        ("-S none 1", {"search": ()}),
        ("-S a -S none --search b 1", {"search": ("b",)}),
        ("-H my_guest.example --fqdn guest.example. 1", {"hostname": HOSTNAME}),
        ("--fqdn guest.example. 1", {"fqdn": "guest.example"}),
        ("-t none -u none -T none -U none 1", {"host_ports": (), "ns_ports": ()}),
        (
            "-t 80:8080 -u none -t 22 -T none -U none 1",
            {
                "host_ports": (
                    PortRule(6, None, None, 80, 80, 8000),
                    PortRule(6, None, None, 22, 22),
                )
            },
        ),
        (
            "-T 80:81 -U 53 1",
            {
                "ns_ports": (
                    PortRule(6, None, "lo", 80, 80, 1),
                    PortRule(17, None, "lo", 53, 53),
                ),
            },
        ),
        ("--no-splice --freebind 1", {"splice": False, "freebind": True}),
        (
            "--splice-only --preserve-source 1",
            {"host_lo_to_ns_lo": True, "icmp": False, "preserve_source": True},
        ),
        ("--host-lo-to-ns-lo 1", {"host_lo_to_ns_lo": True, "splice": True}),
    ],
)
def test_options_say_what_they_say(line: str, expected: dict[str, object]) -> None:
    config = parse(line)
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--netns /x ls", "Both --netns and PID or command given"),
        ("--netns /x 12", "Both --netns and PID or command given"),
        ("2147483648", "Invalid PID 2147483648"),
        ("0", "Invalid PID 0"),
        ("-m ''", "Invalid MTU: "),
        ("-m x", "Invalid MTU: x"),
        ("-m 1500x", "Invalid MTU: 1500x"),
        ("-m -1", "Invalid MTU: -1"),
        ("-m 08", "Invalid MTU: 08"),
        ("-m 65522", "MTU 65522 too large (max 65521)"),
        (
            "-m 67",
            "MTU 67 too small (min 68 for IPv4, 1280 for IPv6; max 65521)",
        ),
        ("-6 -m 1", "MTU 1 too small (min 68 for IPv4, 1280 for IPv6; max 65521)"),
        *(
            (f"-a {text}", f"Invalid guest address: {text}")
            for text in (
                "0.0.0.0",
                "127.0.0.1",
                "224.0.0.1",
                "255.255.255.255",
                "::1",
                "::",
                "::192.0.2.1",
                "::ffff:127.0.0.1",
                "[192.0.2.9",
                "[192.0.2.9/24]",
                "x",
                "/24",
            )
        ),
        ("-a ''", "Invalid guest address: "),
        *(
            (f"-a {text}", f"Invalid prefix length: {text}")
            for text in (
                "192.0.2.9/33",
                "192.0.2.9/",
                "192.0.2.9/24x",
                "192.0.2.9/000000000000000000000099",
                "2001:db8::9/129",
                "::ffff:192.0.2.9/95",
                "::ffff:192.0.2.9/129",
            )
        ),
        ("-a 192.0.2.9/24 -n 24", "Redundant prefix length specification"),
        ("-n 24 -a 192.0.2.9/24", "Redundant prefix length specification"),
        ("-n 00000000099", "Invalid prefix length: 00000000099"),
        ("-n 33", "Invalid prefix length: 33"),
        ("-n 255.0.255.0", "Invalid prefix length: 255.0.255.0"),
        ("-n x", "Invalid prefix length: x"),
        ("-n 24x", "Invalid prefix length: 24x"),
        ("-M 02:00", "Invalid MAC address: 02:00"),
        ("--ns-mac-addr x", "Invalid MAC address: x"),
        ("-g 255.255.255.255", "Invalid gateway address: 255.255.255.255"),
        ("-g ::", "Invalid gateway address: ::"),
        ("-g 127.0.0.1", "Invalid gateway address: 127.0.0.1"),
        ("-o 0.0.0.0", "Invalid or redundant outbound address: 0.0.0.0"),
        ("-o ::1", "Invalid or redundant outbound address: ::1"),
        ("-o eth0", "Invalid or redundant outbound address: eth0"),
        ("-I sixteen-letterss", "Invalid interface name: sixteen-letterss"),
        ("-I ''", "Invalid interface name: "),
        ("--outbound-if4 ''", "Invalid interface name: "),
        ("--map-host-loopback ::1", "Invalid address to remap to host: ::1"),
        ("--map-guest-addr 0.0.0.0", "Invalid address to remap to host: 0.0.0.0"),
        ("--map-guest-addr ff02::1", "Invalid address to remap to host: ff02::1"),
        ("-D x", "Cannot use DNS address x"),
        ("-D 0.0.0.0", "Cannot use DNS address 0.0.0.0"),
        ("-D ff02::fb", "Cannot use DNS address ff02::fb"),
        ("-D 192.0.2.9 -D 255.255.255.255", "Cannot use DNS address 255.255.255.255"),
        ("-S ''", "Cannot use DNS search domain "),
        ("-S a..b", "Cannot use DNS search domain a..b"),
        ("-S 'a b c d e f g'", "Cannot use DNS search domain g"),
        (f"-S {'x' * 64}", f"Cannot use DNS search domain {'x' * 64}"),
        ("-H ''", "Invalid hostname: "),
        ("-H 'a b'", "Invalid hostname: a b"),
        (f"-H {'x' * 254}", f"Invalid hostname: {'x' * 254}"),
        ("--fqdn a..b", "Invalid FQDN: a..b"),
        (f"--fqdn {'x.' * 128}", f"Invalid FQDN: {'x.' * 128}"),
        ("--no-dhcp-dns", "--no-dhcp-dns is for passt mode only"),
        ("--no-dhcp-s", "--no-dhcp-search is for passt mode only"),
        ("--log-size 40959", "Invalid --log-size: 40959"),
        ("--log-size 50000k", "Invalid --log-size: 50000k"),
        ("--log-format xml", "Invalid --log-format: xml"),
        ("--udp-filter port", "Invalid --udp-filter: port"),
        ("--runas no-such-user", "Invalid --runas option: no-such-user"),
        ("--runas root", "Invalid --runas option: root"),
        ("--runas 1:no-such-group", "Invalid --runas option: 1:no-such-group"),
        (
            "-t 80 --no-tcp",
            (
                "Can't add TCP forwarding rule, TCP not enabled"
                "|Unable to add rule TCP [*]:80  =>  80 "
            ),
        ),
        (
            "--no-udp -u 80",
            (
                "Can't add UDP forwarding rule, UDP not enabled"
                "|Unable to add rule UDP [*]:80  =>  80 "
            ),
        ),
        ("-t x", "Invalid port specifier 'x'"),
        (
            "-4 -t ::1/80",
            (
                "IPv6 forward, but IPv6 not enabled"
                "|Unable to add rule TCP [::1]:80  =>  80 "
            ),
        ),
        ("-T ::1/80", "Listening address not allowed for -T ::1/80"),
        ("-U %lo/80", "Listening address not allowed for -U %lo/80"),
        (
            "-T 0",
            (
                "Forwarding rule attempts to map from port 0"
                "|Unable to add rule TCP [*]%lo:0  =>  0 "
            ),
        ),
        (
            "-T 80 -T 70-90",
            (
                "Forwarding configuration conflict: TCP [*]%lo:70-90  =>  70-90 "
                " versus TCP [*]%lo:80  =>  80 "
                "|Unable to add rule TCP [*]%lo:70-90  =>  70-90 "
            ),
        ),
        ("--no-copy-routes", "--no-copy-routes needs --config-net"),
        ("--no-copy-addrs", "--no-copy-addrs needs --config-net"),
        ("--stats x -f", "Invalid --stats: x"),
        ("--stats 0 -f", "Invalid --stats: 0"),
        ("--stats 1 7", "Can't display statistics if not running in foreground"),
        ("-s /x", "-s is for passt / vhost-user mode only"),
        ("--socket=/x", "-s is for passt / vhost-user mode only"),
        ("-1", "--one-off is for passt mode only"),
        ("--repair-p x", "--repair-path is for vhost-user mode only"),
        ("--dns-forward ::1", "Invalid DNS forwarding address: ::1"),
        ("--dns-forward 0.0.0.0", "Invalid DNS forwarding address: 0.0.0.0"),
        ("--dns-host x", "Invalid host nameserver address: x"),
        # Of several mistakes, the one that pasta meets first.
        ("-T x -t z -D y", "Cannot use DNS address y"),
        ("-D y -a z", "Cannot use DNS address y"),
        ("-D 192.0.2.1 -T x -t z", "Invalid port specifier 'x'"),
        ("-t x -a y", "Invalid guest address: y"),
        ("--splice-only --no-splice", "--splice-only is incompatible with --no-splice"),
        (
            "--no-splice --host-lo-to-ns-lo",
            "--host-lo-to-ns-lo is incompatible with --no-splice",
        ),
        ("-t auto -t none", "-t none conflicts with previous options"),
    ],
)
def test_bad_values_are_one_known_line(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(line)
    assert str(caught.value) == message.replace("|", "\n")
    assert not isinstance(caught.value, UsageError)


def test_a_kernel_without_ipv6_leaves_ipv4() -> None:
    config = parse_pasta(["-t", "80", "1"], knows_ipv6=lambda: False)
    assert (config.ipv4, config.ipv6) == (True, False)
    assert config.host_ports[0].addr == IPv4Address(0)


def test_a_kernel_without_ipv6_cannot_do_ipv6_alone() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pasta(["-6", "-t", "x"], knows_ipv6=lambda: False)
    assert str(caught.value) == "IPv6 not available but --ipv6-only given"


def test_nobody_asks_for_ipv6_that_is_switched_off() -> None:
    def never() -> bool:
        raise AssertionError

    assert not parse_pasta(["-4", "1"], knows_ipv6=never).ipv6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--map-guest-addrs x", "unrecognized option '--map-guest-addrs'"),
        ("--conf-pathology x", "unrecognized option '--conf-pathology'"),
        ("-Z", "invalid option -- 'Z'"),
        ("-t", "option requires an argument -- 't'"),
    ],
)
def test_malformed_line_brings_the_usage(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert str(caught.value) == f"pasta: {message}"
    assert caught.value.usage.startswith("Usage: pasta [OPTION]...")


def test_a_bad_option_wins_over_a_bad_port_before_it() -> None:
    with pytest.raises(UsageError):
        parse("-t x --nope")


def test_an_error_before_help_wins() -> None:
    with pytest.raises(ConfigError):
        parse("-m x --help")


def test_an_error_behind_help_is_never_seen() -> None:
    with pytest.raises(InformationRequest) as caught:
        parse("-t x -h -m x")
    assert caught.value.text == usage("pasta", "pasta")


def test_version_names_program_and_licence() -> None:
    with pytest.raises(InformationRequest) as caught:
        parse("--version")
    assert caught.value.text.startswith("pasta ")
    assert "GNU General Public License" in caught.value.text


def test_stderr_is_accepted_with_a_warning() -> None:
    assert parse("--stderr -e 1").warnings[0].startswith("option --stderr")


@pytest.mark.parametrize(
    ("line", "count"), [("-m 68 1", 1), ("-m 1279 1", 1), ("-4 -m 1000 1", 0)]
)
def test_tiny_mtu_is_warned_about(line: str, count: int) -> None:
    assert len(parse(line).warnings) == count


def test_ephemeral_range_is_spared() -> None:
    config = parse_pasta(["-t", "~9000", "1"], "pasta", (100, 65535))
    spans = [(r.first, r.last) for r in config.host_ports if not r.scan]
    assert spans == [(1, 99)]


def test_nothing_said_is_the_model_of_a_spawned_shell() -> None:
    spawned = {"foreground": True, "log_level": LogLevel.QUIET}
    expected = Config(**spawned)  # type: ignore[arg-type]
    for name in names_of(Config):
        if not name.endswith("_ports"):  # those are automatic
            assert getattr(parse(""), name) == getattr(expected, name)


def test_option_names_are_unique() -> None:
    names = [name for option in OPTIONS for name in option.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("program", ["pasta", "passt"])
def test_help_names_every_option_of_the_program(program: str) -> None:
    words = re.split(r"[\s,\[]+", usage(program, program))
    for option in OPTIONS:
        for name in option.names:
            if len(name) > 2:  # of others, prose may speak
                assert (name in words) == (option in options_of(program)), name


@pytest.mark.parametrize("program", ["pasta", "passt"])
def test_help_fits_a_terminal(program: str) -> None:
    assert max(map(len, usage(program, program).splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "page", "maker"),
    [
        ("options.md", document, "document"),
        ("compatibility.md", differences, "differences"),
        ("passtpy-pasta.1", lambda: manpage("pasta"), "manpage"),
        ("passtpy-passt.1", lambda: manpage("passt"), "manpage passt"),
    ],
)
def test_pages_are_those_of_the_table(
    name: str, page: Callable[[], str], maker: str
) -> None:
    path = Path(__file__).resolve().parents[3] / "docs" / name
    assert path.read_text() == page(), f"python -m passtpy.config.{maker} >docs/{name}"


def test_notes_are_about_options_that_exist() -> None:
    assert set(NOTES) <= {option.key for option in OPTIONS}


@pytest.mark.parametrize(
    ("words", "groups"),
    [
        ([], ()),
        (
            ["--multicast-relay"],
            (
                "224.0.0.251/5353",
                "ff02::fb/5353",
                "239.255.255.250/1900",
                "ff02::c/1900",
                "255.255.255.255",
            ),
        ),
        (["--multicast-relay=239.1.2.3,ff05::2/99"], ("239.1.2.3", "ff05::2/99")),
    ],
)
def test_groups_to_relay(words: list[str], groups: tuple[str, ...]) -> None:
    config = parse_pasta([*words, "ls"])
    assert tuple(map(str, config.multicast_relay)) == groups
    assert config.target == SpawnCommand(("ls",))


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "x", "224.0.0.1/0", "224.0.0.1/65536", ","]
)
def test_bad_group_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Invalid multicast group"):
        parse_pasta([f"--multicast-relay={text}"])


@pytest.mark.parametrize(
    ("line", "scanned"),
    [
        ("1", ["TCP", "UDP", "TCP%lo", "UDP%lo"]),
        ("-t auto -u none -T none 1", ["TCP", "UDP%lo"]),
        ("--no-tcp -u 53 1", ["UDP%lo"]),
        ("-t none -t 80 1", ["UDP", "TCP%lo", "UDP%lo"]),
    ],
)
def test_what_is_not_said_is_automatic(line: str, scanned: list[str]) -> None:
    config = parse(line)
    found = {
        f"{'TCP' if r.proto == 6 else 'UDP'}{f'%{r.ifname}' if r.ifname else ''}": r
        for r in (*config.host_ports, *config.ns_ports)
        if r.scan
    }
    assert sorted(found) == sorted(scanned)
    assert all(rule.weak for rule in found.values())
