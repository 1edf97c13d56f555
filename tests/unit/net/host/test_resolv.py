# SPDX-License-Identifier: GPL-2.0-or-later
"""Where resolv.conf may be replaced, and what it says."""

from ipaddress import IPv4Address
from pathlib import Path

from passtpy.net.host.resolv import places, read_resolver


def test_a_file_is_watched_where_it_is(tmp_path: Path) -> None:
    assert list(places(f"{tmp_path}/resolv.conf")) == [(str(tmp_path), "resolv.conf")]


def test_every_link_on_the_way_is_watched(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stub.conf").touch()
    (tmp_path / "run" / "current").symlink_to("stub.conf")
    (tmp_path / "resolv.conf").symlink_to("run/current")
    assert list(places(f"{tmp_path}/resolv.conf")) == [
        (str(tmp_path), "resolv.conf"),
        (f"{tmp_path}/run", "current"),
        (f"{tmp_path}/run", "stub.conf"),
    ]


def test_a_directory_that_is_missing_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").symlink_to(f"{tmp_path}/run/resolve/stub.conf")
    found = list(places(f"{tmp_path}/resolv.conf"))
    assert found == [(str(tmp_path), "resolv.conf"), (str(tmp_path), "run")]


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert len(list(places(f"{tmp_path}/a"))) == 16


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    assert read_resolver(str(path)) is None
    path.write_bytes(b"nameserver 192.0.2.53\nsearch \xff\n")
    found = read_resolver(str(path))
    assert found is not None
    assert found.nameservers == (IPv4Address("192.0.2.53"),)
