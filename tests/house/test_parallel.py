# SPDX-License-Identifier: GPL-2.0-or-later
"""How tests are handed out to those that run them side by side."""

import pytest

from tests.conftest import ROOT
from tests.parallel import LONG, rank, together


@pytest.mark.parametrize("start", LONG)
def test_what_comes_first_is_there(start: str) -> None:
    assert (ROOT / start).exists()


def test_long_files_come_before_short_ones() -> None:
    names = ["tests/unit/test_log.py::a", "tests/netns/test_tcp.py::a", f"{LONG[0]}::a"]
    assert sorted(names, key=rank) == names[::-1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tests/netns/test_tcp.py::a[v4]", "tests/netns/test_tcp.py::b::c"),
        ("tests/qemu/test_x.py::a[stream]", "tests/qemu/test_y.py::b[stream-IPv4]"),
        (
            "tests/qemu/test_x.py::a[IPv4-vhost-user]",
            "tests/qemu/test_y.py::b[vhost-user]",
        ),
    ],
)
def test_who_shares_stays_together(one: str, other: str) -> None:
    assert together(one) == together(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tests/netns/test_tcp.py::a", "tests/netns/test_udp.py::a"),
        ("tests/netns/test_tcp.py::a[stream]", "tests/netns/test_udp.py::a[stream]"),
        ("tests/qemu/test_x.py::a[stream]", "tests/qemu/test_x.py::a[vhost-user]"),
        ("tests/qemu/test_x.py::a", "tests/qemu/test_y.py::a"),
    ],
)
def test_who_shares_nothing_goes_where_there_is_room(one: str, other: str) -> None:
    assert together(one) != together(other)
