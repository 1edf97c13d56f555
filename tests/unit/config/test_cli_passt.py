# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of passt as a table; what it shares with pasta is in test_cli.py."""

import json
import shlex
from ipaddress import IPv4Address

import pytest

from passtpy.config.cli import parse_passt, parse_pasta, usage, wants_vhost_user
from passtpy.config.model import Config, RunAs, ServeFd, ServeSocket
from passtpy.config.portrule import PortRule
from passtpy.errors import ConfigError, InformationRequest, UsageError
from passtpy.log import LogLevel
from passtpy.record import names_of

PATH_MAX = "/" + "x" * 106


def parse(line: str) -> Config:
    return parse_passt(shlex.split(line), "passt")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"target": ServeSocket(None), "one_off": False, "vhost_user": False}),
        ("-s /run/x", {"target": ServeSocket("/run/x")}),
        ("--socket=/run/x", {"target": ServeSocket("/run/x")}),
        ("--socket-path /run/x", {"target": ServeSocket("/run/x")}),
        ("--socket-p x -s y", {"target": ServeSocket("y")}),
        (f"-s {PATH_MAX}", {"target": ServeSocket(PATH_MAX)}),
        ("-F 5", {"target": ServeFd(5), "one_off": True}),
        ("--fd 0", {"target": ServeFd(0), "one_off": True}),
        ("--fd 0x10", {"target": ServeFd(16)}),
        ("--fd 010", {"target": ServeFd(8)}),
        ("--fd 5 -s /x", {"target": ServeSocket("/x"), "one_off": False}),
        ("-s /x --fd 5", {"target": ServeFd(5), "one_off": True}),
        ("-1", {"one_off": True}),
        ("--one-off -s /x", {"one_off": True, "target": ServeSocket("/x")}),
        ("--vhost-user", {"vhost_user": True, "target": ServeSocket(None)}),
        ("-f --vhost-u --fd 7", {"vhost_user": True, "target": ServeFd(7)}),
        ("--repair-path none", {"warnings": ()}),
        ("--vhost-user --repair-path none", {"warnings": ()}),
        ("", {"foreground": False, "log_level": LogLevel.INFO}),
        ("-f", {"foreground": True, "log_level": LogLevel.INFO}),
        ("-q", {"log_level": LogLevel.QUIET}),
        ("-f --stats 1", {"stats": 1}),
        ("--runas 1000:010", {"runas": RunAs(1000, 8)}),
        # What is so without being said
        ("", {"splice": False, "splice_only": False, "config_net": False}),
        ("", {"announce_dns": True, "announce_search": True, "ra": True}),
        ("--no-dhcp-dns", {"announce_dns": False, "announce_search": True}),
        ("--no-dhcp-search", {"announce_dns": True, "announce_search": False}),
        ("-D none", {"dns": (), "dns_enabled": False}),
        ("-D 192.0.2.1", {"dns": (IPv4Address("192.0.2.1"),)}),
        ("-H vm --fqdn vm.example", {"hostname": "vm", "fqdn": "vm.example"}),
        ("--mac-addr 02:00:00:00:00:01", {"our_mac": b"\2\0\0\0\0\1"}),
        ("-a 192.0.2.9 -n 28", {"address4": IPv4Address("192.0.2.9"), "prefix4": 28}),
        ("", {"host_ports": (), "ns_ports": ()}),
        ("-t 8080:80", {"host_ports": (PortRule(6, None, None, 8080, 8080, -8000),)}),
        ("-u 53 -t none", {"host_ports": (PortRule(17, None, None, 53, 53),)}),
        ("--no-tcp -t none", {"host_ports": (), "tcp": False}),
    ],
)
def test_options_say_what_they_say(line: str, expected: dict[str, object]) -> None:
    config = parse(line)
    assert {name: getattr(config, name) for name in expected} == expected
    assert (config.program, config.for_machine) == ("passt", True)


def test_all_is_every_port_that_is_not_ephemeral_and_weak() -> None:
    config = parse_passt(["-t", "all", "-u", "all"], ephemeral=(100, 65000))
    spans = [(1, 99), (65001, 65535)]
    assert [(rule.first, rule.last) for rule in config.host_ports] == spans * 2
    assert all(rule.weak for rule in config.host_ports)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x", "Extra non-option argument: x"),
        ("-s /x -- 1234 5", "Extra non-option argument: 1234"),
        ("--vhost-user x", "Extra non-option argument: x"),
        ("-s ''", "Invalid socket path: "),
        (f"-s {PATH_MAX}x", f"Invalid socket path: {PATH_MAX}x"),
        ("--fd 1", "Invalid --fd: 1"),
        ("--fd 2", "Invalid --fd: 2"),
        ("--fd -1", "Invalid --fd: -1"),
        ("--fd 3x", "Invalid --fd: 3x"),
        ("--fd ''", "Invalid --fd: "),
        ("--fd 2147483648", "Invalid --fd: 2147483648"),
        ("--repair-path /x", "--repair-path is for vhost-user mode only"),
        ("--migrate-exit", "--migrate-exit is for vhost-user mode only"),
        ("--migrate-no-linger", "--migrate-no-linger is for vhost-user mode only"),
        ("--netns x", "--netns is for pasta mode only"),
        ("--userns x", "--userns is for pasta mode only"),
        ("--netns-only", "--netns-only is for pasta mode only"),
        ("--config-net", "--config-net is for pasta mode only"),
        ("--no-copy-routes", "--no-copy-routes is for pasta mode only"),
        ("--no-copy-addrs", "--no-copy-addrs is for pasta mode only"),
        ("--no-netns-quit", "--no-netns-quit is for pasta mode only"),
        ("--ns-ifname x", "-I is for pasta mode only"),
        ("--ns-mac-addr x", "--ns-mac-addr is for pasta mode only"),
        ("--dhcp-dns", "--dhcp-dns is for pasta mode only"),
        ("--dhcp-search", "--dhcp-search is for pasta mode only"),
        ("-T 22", "-T is for pasta mode only"),
        ("--udp-ns 22", "-U is for pasta mode only"),
        ("--host-lo-to-ns-lo", "--host-lo-to-ns-lo is for pasta mode only"),
        ("--no-splice", "--no-splice is for pasta mode only"),
        ("--splice-only", "--splice-only is for pasta mode only"),
        ("--preserve-source", "--preserve-source is for pasta mode only"),
        ("-t auto", "'auto' port forwarding is only allowed for pasta"),
        ("-u auto", "'auto' port forwarding is only allowed for pasta"),
        ("-t all -t none", "-t none conflicts with previous options"),
        (
            "-t 22 -t 22",
            (
                "Forwarding configuration conflict: TCP [*]:22  =>  22 "
                " versus TCP [*]:22  =>  22 |Unable to add rule TCP [*]:22  =>  22 "
            ),
        ),
        ("--stats 1", "Can't display statistics if not running in foreground"),
    ],
)
def test_bad_lines_are_one_known_line(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(line)
    assert str(caught.value) == message.replace("|", "\n")
    assert not isinstance(caught.value, UsageError)


def test_malformed_line_brings_the_usage() -> None:
    with pytest.raises(UsageError) as caught:
        parse("--conf-pathology /x")
    assert str(caught.value) == "passt: unrecognized option '--conf-pathology'"
    assert caught.value.usage.startswith("Usage: passt [OPTION]...")


@pytest.mark.parametrize(
    "line", ["--print-capabilities", "--vhost-user --print-cap", "-s /x --print-c"]
)
def test_capabilities_are_those_of_a_network_device(line: str) -> None:
    with pytest.raises(InformationRequest) as caught:
        parse(line)
    assert json.loads(caught.value.text) == {"type": "net"}


def test_version_and_help_are_those_of_passt() -> None:
    with pytest.raises(InformationRequest) as caught:
        parse("--version")
    assert caught.value.text.startswith("passt ")
    with pytest.raises(InformationRequest) as caught:
        parse("--help")
    assert caught.value.text == usage("passt", "passt")


@pytest.mark.parametrize(
    "option", ["--repair-path /x", "--migrate-exit", "--migrate-no-linger"]
)
def test_what_is_for_migration_is_accepted_and_warned_about(option: str) -> None:
    """libvirt says it to whoever serves vhost-user."""
    name = option.split()[0]
    (warning,) = parse(f"{option} --vhost-user").warnings
    assert warning == f"option {name} has no effect: flows do not migrate"


@pytest.mark.parametrize(
    ("line", "wants"),
    [
        ("--vhost-user", True),
        ("-s /x --vhost-user -f", True),
        ("--vhost-u", True),
        ("-s --vhost-user", False),  # the name of a socket
        ("ls --vhost-user", False),  # a command's own
        ("-- --vhost-user", False),
        ("--nope --vhost-user", False),  # an error before it wins
        ("", False),
    ],
)
def test_vhost_user_is_looked_for_everywhere(line: str, wants: bool) -> None:
    assert wants_vhost_user(shlex.split(line)) is wants


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-F 5", "--fd is for passt mode only"),
        ("-1", "--one-off is for passt mode only"),
        ("-s x", "-s is for passt / vhost-user mode only"),
        ("--print-capabilities", "--print-capabilities is for vhost-user mode only"),
        ("--migrate-exit", "--migrate-exit is for vhost-user mode only"),
    ],
)
def test_pasta_refuses_what_is_for_machines(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pasta(shlex.split(line))
    assert str(caught.value) == message.replace("|", "\n")


def test_nothing_said_is_the_model_but_for_these() -> None:
    said = parse("")
    model = Config(target=ServeSocket())
    different = {
        name for name in names_of(Config) if getattr(said, name) != getattr(model, name)
    }
    assert different == {"splice", "announce_dns", "announce_search"}


def test_the_words_of_libvirt() -> None:
    line = (
        "--one-off --socket /run/libvirt/qemu/passt/1-vm-net0.socket"
        " --pid /run/libvirt/qemu/passt/1-vm-net0-passt.pid"
        " --log-file /var/log/vm.log --mac-addr 52:54:00:12:34:56 --interface eth0"
        " --address 192.0.2.9 --netmask 24 --tcp-ports 2222:22 --udp-ports ~53"
    )
    config = parse(line)
    assert config.one_off
    assert config.target == ServeSocket("/run/libvirt/qemu/passt/1-vm-net0.socket")
    assert config.pid_file == "/run/libvirt/qemu/passt/1-vm-net0-passt.pid"
    assert config.prefix4 == 24
