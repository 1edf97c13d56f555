# SPDX-License-Identifier: GPL-2.0-or-later
"""UNIX sockets in port specifications: what they make, and what is refused."""

from typing import Any

import pytest

from passtpy.config.cli import parse_pasta
from passtpy.config.portrule import PortRule, Side
from passtpy.config.ports import PortContext, read_ports
from passtpy.config.unixend import place_of
from passtpy.errors import ConfigError
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP

NAMESPACE: dict[str, Any] = {"option": "-T", "side": Side.SPLICE}


def read(spec: str, **context: Any) -> PortRule:
    settings: dict[str, Any] = {"option": "-t", "proto": IPPROTO_TCP} | context
    (rule,) = read_ports(spec, PortContext(**settings))
    return rule


def listener(path: str, port: int, **more: Any) -> PortRule:
    return PortRule(IPPROTO_TCP, None, None, port, port, path=path, **more)


@pytest.mark.parametrize(
    ("spec", "rule", "text"),
    [
        ("unix:/run/x.sock:80", listener("/run/x.sock", 80),
         "TCP unix:/run/x.sock  =>  80 "),
        ("unix:/a:b:80", listener("/a:b", 80), "TCP unix:/a:b  =>  80 "),
        ("unix:/x:80,mode=0660", listener("/x", 80, mode=0o660),
         "TCP unix:/x  =>  80  (mode 660)"),
        ("unix:/x:80,mode=666,proxy=v2", listener("/x", 80, mode=0o666, proxy=2),
         "TCP unix:/x  =>  80  (mode 666) (PROXY v2)"),
    ],
)  # fmt: skip
def test_what_listens_at_a_path(spec: str, rule: PortRule, text: str) -> None:
    assert read(spec) == rule
    assert str(rule) == text
    assert not rule.is_plain


def test_what_leads_to_a_path() -> None:
    rule = read("8080:unix:/run/x.sock,proxy=v1", **NAMESPACE)
    at = IPPROTO_TCP, None, "lo", 8080, 8080
    assert rule == PortRule(*at, to_path="/run/x.sock", proxy=1)
    assert str(rule) == "TCP [*]%lo:8080  =>  unix:/run/x.sock  (PROXY v1)"
    assert not rule.is_plain
    assert str(read("1:unix:/x", **NAMESPACE, ipv6=False).addr) == "0.0.0.0"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("unix:/x", "Invalid port specifier 'unix:/x'"),
        ("unix:/x:0", "Invalid port specifier 'unix:/x:0'"),
        ("unix:/x:65536", "Invalid port specifier 'unix:/x:65536'"),
        ("unix:/x:80-81", "Invalid port specifier 'unix:/x:80-81'"),
        ("unix:/x:80,mode=8", "Invalid port specifier 'unix:/x:80,mode=8'"),
        ("unix:/x:80,mode=1777", "Invalid port specifier 'unix:/x:80,mode=1777'"),
        ("unix:/x:80,22", "Invalid port specifier 'unix:/x:80,22'"),
        ("unix::80", "Invalid socket path '': not the absolute path of a socket"),
        ("unix:x:80", "Invalid socket path 'x': not the absolute path of a socket"),
        ("unix:/x/:80", "Invalid socket path '/x/': not the absolute path of a socket"),
        ("unix:@x:80", "Invalid socket path '@x': an abstract name has no permissions"),
        ("unix:/\n:80", "Invalid socket path '/\n': control characters"),
        (f"unix:/{'a' * 107}:80",
         f"Invalid socket path '/{'a' * 107}': 108 bytes, more than 107"),
        ("8080:unix:/x", "Only -T leads to a UNIX socket: -t 8080:unix:/x"),
    ],
)  # fmt: skip
def test_what_is_no_listener(spec: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(spec)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("unix:/x:80", "Only -t listens at a UNIX socket: -T unix:/x:80"),
        ("80-81:unix:/x", "Invalid port specifier '80-81:unix:/x'"),
        ("80:unix:x", "Invalid socket path 'x': not the absolute path of a socket"),
        ("80:unix:/x,mode=600", "Invalid port specifier '80:unix:/x,mode=600'"),
    ],
)
def test_what_is_no_target(spec: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(spec, **NAMESPACE)
    assert str(caught.value) == message


def test_datagrams_have_no_unix_sockets() -> None:
    with pytest.raises(ConfigError, match="UNIX sockets are for TCP: -u unix:/x:80"):
        read("unix:/x:80", option="-u", proto=IPPROTO_UDP)


def test_the_longest_path_is_taken() -> None:
    assert read(f"unix:/{'a' * 106}:80").path == f"/{'a' * 106}"


@pytest.mark.parametrize(
    ("line", "clash"),
    [
        ("-t unix:/x:80 -t unix:/x:81", True),
        ("-t unix:/x:80 -t unix:/y:80", False),
        ("-t unix:/x:80 -t 80", False),
        ("-T 80:unix:/x -T 81:unix:/x", False),
        ("-T 80:unix:/x -T 80", True),
        ("-4 -t unix:/x:80", False),
    ],
)
def test_which_of_them_conflict(line: str, clash: bool) -> None:
    if clash:
        with pytest.raises(ConfigError, match="Forwarding configuration conflict: "):
            parse_pasta(line.split())
    else:
        parse_pasta(line.split())


def test_folders_for_later_sockets_add_up() -> None:
    words = [f"--unix-folder={each}" for each in ("/run/a", "/b/", "/run/a")]
    assert parse_pasta(words).unix_folders == ("/run/a", "/b")
    assert parse_pasta([]).unix_folders == ()


@pytest.mark.parametrize("folder", ["a", ".", "/", "", "/a/../b", "/a/./b", "/a//b"])
def test_a_folder_is_written_as_paths_in_it_are(folder: str) -> None:
    with pytest.raises(ConfigError, match="no absolute path without"):
        parse_pasta(["--unix-folder", folder])


FOLDERS = ("/run/a", "/b")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/run/a/x.sock", (0, "x.sock")),
        ("/b/@x", (1, "@x")),
        ("/b/..x", (1, "..x")),
        ("/b/..", None),
        ("/b/.", None),
        ("/b/", None),
        ("/b", None),
        ("/b/c/x", None),
        ("/b/../x", None),
        ("/bx", None),
        ("/run/x", None),
        ("b/x", None),
        ("/b/a\0b", None),
        ("/b/a\nb", None),
        ("/b/" + "x" * 106, (1, "x" * 106)),
        ("/b/" + "x" * 107, None),
    ],
)
def test_a_socket_is_directly_in_a_folder(
    path: str, place: tuple[int, str] | None
) -> None:
    assert place_of(path, FOLDERS) == place
