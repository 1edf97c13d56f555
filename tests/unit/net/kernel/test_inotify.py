# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of inotify, as the kernel packs them."""

from sys import byteorder

from passtpy.net.kernel.inotify import IN_DELETE, IN_DELETE_SELF, inotify_events


def inotify(mask: int, name: bytes) -> bytes:
    padded = name + bytes(-len(name) % 16)
    head = [n.to_bytes(4, byteorder) for n in (1, mask, 0, len(padded))]
    return b"".join(head) + padded


def test_inotify_events_are_read_one_by_one() -> None:
    data = inotify(IN_DELETE, b"a") + inotify(IN_DELETE_SELF, b"")
    assert inotify_events(data) == [
        (IN_DELETE, b"a"),
        (IN_DELETE_SELF, b""),
    ]


def test_half_an_inotify_event_is_no_event() -> None:
    assert inotify_events(inotify(IN_DELETE, b"a")[:10]) == []
