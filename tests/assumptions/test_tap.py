# SPDX-License-Identifier: GPL-2.0-or-later
"""What we rely on the kernel to do with tap devices and namespaces."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from passtpy import _native
from passtpy.net.kernel.dump import Dump
from passtpy.net.kernel.inotify import IN_DELETE
from passtpy.net.kernel.netlink import Netlink, open_socket
from passtpy.net.namespace import netns, tap
from tests.lab.ready import readable
from tests.netns.program import wait_for

pytestmark = pytest.mark.netns
Work = Callable[[], int]


@contextmanager
def child_in(flags: int, work: Work) -> Iterator[int]:
    """Run `work` in a child in new namespaces; yield a copy of the fd it returns.

    The child lives, and with it the namespaces, until the block ends.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            uid, gid = os.getuid(), os.getgid()
            ours.close()
            _native.unshare(flags)
            if flags & netns.CLONE_NEWUSER:
                netns.map_root(uid, gid)
            socket.send_fds(theirs, [b"x"], [work()])
            theirs.recv(1)
        finally:
            os._exit(0)
    theirs.close()
    try:
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        yield fds[0]
        os.close(fds[0])
    finally:
        ours.close()
        os.waitpid(pid, 0)


def open_and_up() -> int:
    device = tap.open_tap("t0")
    with_link = Netlink()
    with_link.set_up(with_link.link("t0"))
    return device.fd


def read_frame(fd: int) -> bytes:
    assert readable([fd], 30), "no frame came"
    return os.read(fd, 70000)


def test_a_tap_opened_inside_a_user_namespace_works_outside() -> None:
    """The daemon stays outside and only gets the descriptor."""
    with child_in(netns.CLONE_NEWUSER | netns.CLONE_NEWNET, open_and_up) as fd:
        frame = read_frame(fd)  # the kernel's own router solicitation or MLD report
        assert frame[tap.VNET_HEADER_LEN + 12 :][:2] == b"\x86\xdd"
        assert os.write(fd, frame) == len(frame)


def test_the_first_offload_choice_is_granted(tmp_path: Path) -> None:
    """Linux 6.2 and later; older kernels get the next choice."""
    found = tmp_path / "offloads"

    def work() -> int:
        device = tap.open_tap("t0")
        found.write_text(str(device.offloads))
        return device.fd

    with child_in(netns.CLONE_NEWNET, work):
        granted = int(found.read_text())
    release = tuple(int(n) for n in os.uname().release.split(".")[:2])
    if release >= (6, 2):
        assert granted == tap.ALL_OFFLOADS
    else:
        assert granted in tap.OFFLOAD_CHOICES


def test_the_queue_takes_as_many_frames_as_it_is_long() -> None:
    """Changing the length of the transmit queue resizes the ring behind the tap.

    Frames sent while nobody reads must all be there afterwards.
    """
    count = 3000  # more than the default of 500 or 1000

    def work() -> int:
        device = tap.open_tap("t0")
        netlink = Netlink()
        link = netlink.link("t0")
        netlink.configure_tap(link, None, 0, tap.QUEUE_FRAMES)
        netlink.no_automatic_link_local(link)
        netlink.set_up(link)
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        packet.bind(("t0", 0))
        packet.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        for _ in range(count):
            packet.send(b"\xff" * 12 + b"\x88\xb5" + bytes(50))
        return device.fd

    with child_in(netns.CLONE_NEWNET, work) as fd:
        frames = 0
        while frames < count:
            if b"\x88\xb5" in read_frame(fd)[:32]:
                frames += 1


def test_an_open_tap_keeps_its_namespace_alive() -> None:
    """So somebody has to watch for the end of the namespace: the tap will not tell."""
    with child_in(netns.CLONE_NEWNET, open_and_up) as fd:
        kept = os.dup(fd)
    read_frame(kept)
    time.sleep(0.2)
    with suppress(BlockingIOError):  # but no EBADFD: the interface is still there
        os.read(kept, 70000)
    os.close(kept)


def test_closing_a_tap_that_persists_does_not_wait() -> None:
    """Taking an interface down takes a grace period; the namespace does it later."""

    def closing_time(persist: bool) -> float:
        with child_in(netns.CLONE_NEWNET, open_and_up) as fd:
            kept = os.dup(fd)
        if persist:
            tap.leave_to_namespace(kept)
        begin = time.monotonic()
        os.close(kept)
        return time.monotonic() - begin

    def is_quicker() -> bool:
        slow = min(closing_time(False) for _ in range(3))
        return 10 * min(closing_time(True) for _ in range(3)) < slow

    wait_for(is_quicker, "much quicker")  # not each time: others may be in the way


def test_a_link_local_address_without_dad_is_usable_at_once(tmp_path: Path) -> None:
    found = tmp_path / "tentative"

    def work() -> int:
        from ipaddress import IPv6Interface

        from passtpy.net.kernel import rtnl

        device = tap.open_tap("t0")
        netlink = Netlink()
        link = netlink.link("t0")
        netlink.no_automatic_link_local(link)
        netlink.set_up(link)
        ip = IPv6Interface("fe80::5/64")
        address = rtnl.LinkAddress(link.index, ip, rtnl.RT_SCOPE_LINK, 0)
        netlink.ask(rtnl.add_address(link.index, address))
        dump = Dump(open_socket())
        list(dump.steps())
        own = [a for a in dump.addresses if a.index == link.index]
        found.write_text("\n".join(f"{a.address} {a.flags & 0x40}" for a in own))
        return device.fd

    with child_in(netns.CLONE_NEWNET, work):
        assert found.read_text() == "fe80::5/64 0"


def test_init_gets_signals_it_blocks_and_reads_from_signalfd() -> None:
    """The kernel drops signals for the first process of a namespace otherwise."""
    import signal

    ours, theirs = socket.socketpair()
    flags = netns.CLONE_NEWUSER | netns.CLONE_NEWPID
    pid = netns.clone(flags)
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
            fd = _native.signalfd((signal.SIGTERM,))
            os.set_blocking(fd, True)
            theirs.send(b"r")
            number = os.read(fd, 128)[0]
            theirs.send(bytes([number]))
        finally:
            os._exit(0)
    assert ours.recv(1) == b"r"
    os.kill(pid, signal.SIGTERM)
    assert ours.recv(1) == bytes([signal.SIGTERM])
    os.waitpid(pid, 0)
    ours.close()
    theirs.close()


def test_a_process_file_descriptor_is_readable_when_the_process_ends() -> None:
    import select

    wait, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(wait, 1)
        os._exit(0)
    fd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0) == []
    os.write(go, b"x")
    assert poll.poll(30_000)
    os.waitpid(pid, 0)
    for each in (fd, wait, go):
        os.close(each)


def test_removing_a_bound_namespace_file_is_seen_by_inotify(tmp_path: Path) -> None:
    name = tmp_path / "ns"
    name.touch()
    fd = _native.inotify_watch(str(tmp_path), IN_DELETE)
    name.unlink()
    wait_for(lambda: os.read(fd, 4096), "an event")
    os.close(fd)
