# SPDX-License-Identifier: GPL-2.0-or-later
"""Where resolv.conf may be replaced, and what it says."""

import os
from errno import EMFILE
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from passtpy.net.host.resolv import UnusableError, places, read_resolver


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


@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "link to a fifo"])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "resolv.conf"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "directory":
            path.mkdir()
        case _:
            os.mkfifo(tmp_path / "fifo")
            path.symlink_to("fifo")
    with pytest.raises(UnusableError, match="no regular file"):
        read_resolver(str(path))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(UnusableError, match="longer than 65536 bytes"):
        read_resolver(str(path))


def test_a_file_that_cannot_be_read_just_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.53\n")

    def no_descriptor(*_args: object) -> int:
        raise OSError(EMFILE, os.strerror(EMFILE))

    monkeypatch.setattr("passtpy.net.host.resolv.os.open", no_descriptor)
    with pytest.raises(OSError, match="Too many open files"):
        read_resolver(str(path))
