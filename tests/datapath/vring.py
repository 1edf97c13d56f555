# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine's network driver: rings and buffers in a memfd, driven by hand.

`Vring` is one queue as its driver sees it, honest unless a test writes into `ram`.
`VringLink` is a whole network card, and what is between a guest of the datapath tests
and its tap.
"""

import mmap
import os
import struct
from collections import deque
from contextlib import suppress

from passtpy import _native

RAM_BYTES = 64 << 20
GUEST_BASE = 1 << 32  # where the guest sees its memory
USER_BASE = 0x7F12 << 32  # where its front-end does
HEADER = 12  # virtio-net header with its number of buffers
PLAIN_HEADER = 10  # what frames of the other links have

TO_GUEST, FROM_GUEST = 0, 1

EVENT_IDX = 1 << 29
NEXT, WRITE = 1, 2
_DESC = struct.Struct("<QIHH")
_USED = struct.Struct("<II")
_U16 = struct.Struct("<H")
_U64 = struct.Struct("=Q")


def _signal(fd: int) -> None:
    os.write(fd, _U64.pack(1))


def heard(fd: int) -> int:
    """How often an eventfd was written since the last look."""
    with suppress(BlockingIOError):
        return int(_U64.unpack(os.read(fd, 8))[0])
    return 0


class Ram:
    """Memory of a guest, handed out piece by piece and never given back."""

    def __init__(self, size: int = RAM_BYTES) -> None:
        self.fd = os.memfd_create("ram", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.size = size
        self.bytes = mmap.mmap(self.fd, size)
        self._fill = 0

    def take(self, size: int) -> int:
        """Return the offset of fresh bytes, aligned to 64."""
        start = self._fill
        self._fill += -(-size // 64) * 64
        assert self._fill <= self.size, "out of memory"
        return start

    def region(self) -> tuple[int, int, int, int, int]:
        """The whole of it as the front-end describes it."""
        return (GUEST_BASE, self.size, USER_BASE, 0, self.fd)

    def close(self) -> None:
        """Unmap and close."""
        self.bytes.close()
        os.close(self.fd)


class Vring:
    """A split virtqueue; descriptors that came back are used again."""

    def __init__(self, ram: Ram, size: int, event_idx: bool = True) -> None:
        self.ram = ram
        self.size = size
        self.event_idx = event_idx
        self.desc = ram.take(16 * size)
        self.avail = ram.take(6 + 2 * size)
        self.used = ram.take(6 + 8 * size)
        self.kick_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.reset()

    def reset(self) -> None:
        """As a driver that was started anew."""
        self.ram.bytes[self.avail : self.avail + 6 + 2 * self.size] = bytes(
            6 + 2 * self.size
        )
        self.ram.bytes[self.used : self.used + 6 + 8 * self.size] = bytes(
            6 + 8 * self.size
        )
        self.free = deque(range(self.size))
        self.next_avail = 0
        self.seen = 0

    def start(self, dp: _native.Datapath, index: int, base: int = 0) -> None:
        """Start and enable it as that queue of a datapath."""
        kick_fd, call_fd = os.dup(self.kick_fd), os.dup(self.call_fd)
        try:
            dp.vhost_ring(
                index,
                size=self.size,
                desc=USER_BASE + self.desc,
                used=USER_BASE + self.used,
                avail=USER_BASE + self.avail,
                base=base,
                kick_fd=kick_fd,
                call_fd=call_fd,
            )
        except BaseException:
            os.close(kick_fd)
            os.close(call_fd)
            raise
        dp.vhost_enable(index, True)

    def get16(self, offset: int) -> int:
        """Read 16 bits of memory."""
        return int(_U16.unpack_from(self.ram.bytes, offset)[0])

    def put16(self, offset: int, value: int) -> None:
        """Write 16 bits of memory."""
        _U16.pack_into(self.ram.bytes, offset, value & 0xFFFF)

    def put_desc(self, i: int, addr: int, size: int, flags: int, link: int) -> None:
        """Write a descriptor; @addr is an offset in memory."""
        at = self.desc + 16 * i
        _DESC.pack_into(self.ram.bytes, at, GUEST_BASE + addr, size, flags, link)

    def offer(self, head: int) -> None:
        """Show a chain to the device, which is not kicked."""
        self.put16(self.avail + 4 + 2 * (self.next_avail % self.size), head)
        self.next_avail = (self.next_avail + 1) & 0xFFFF
        self.put16(self.avail + 2, self.next_avail)

    def add(self, addr: int, size: int, flags: int = 0) -> int:
        """Offer a buffer of one piece; return its descriptor."""
        head = self.free.popleft()
        self.put_desc(head, addr, size, flags, 0)
        self.offer(head)
        return head

    def kick(self, since: int) -> bool:
        """Kick for entries offered since that index, if the device wants it."""
        if self.event_idx:
            event = self.get16(self.used + 4 + 8 * self.size)
            new = (self.next_avail - event - 1) & 0xFFFF
            wanted = new < ((self.next_avail - since) & 0xFFFF)
        else:
            wanted = not self.get16(self.used) & 1
        if wanted:
            _signal(self.kick_fd)
        return wanted

    def take_used(self) -> tuple[int, int] | None:
        """Return the next descriptor that came back, and how much was written."""
        if self.get16(self.used + 2) == self.seen:
            return None
        at = self.used + 4 + 8 * (self.seen % self.size)
        head, size = _USED.unpack_from(self.ram.bytes, at)
        self.seen = (self.seen + 1) & 0xFFFF
        # Tell when one more is used
        self.put16(self.avail + 4 + 2 * self.size, self.seen)
        self.free.append(head)
        return head, size

    def close(self) -> None:
        """Close the eventfds."""
        os.close(self.kick_fd)
        os.close(self.call_fd)


class VringLink:
    """A network card of two rings, its receive ring full of buffers."""

    def __init__(
        self,
        features: int = _native.VHOST_FEATURES,
        rx_buffers: int = 1024,
        rx_bytes: int = 4096,
    ) -> None:
        self.features = features
        self.ram = Ram()
        event_idx = bool(features & EVENT_IDX)
        self.rx = Vring(self.ram, rx_buffers, event_idx)
        self.tx = Vring(self.ram, 256, event_idx)
        self.rx_bytes = rx_bytes
        self._rx_at = self.ram.take(rx_buffers * rx_bytes)
        self._tx_at = [self.ram.take(HEADER + (1 << 16)) for _ in range(256)]
        self._unsent: deque[bytes] = deque()

    def start(self, dp: _native.Datapath) -> None:
        """Be attached to a datapath, as a driver that has just started."""
        dp.vhost_features(self.features)
        dp.vhost_memory([self.ram.region()])
        for index, ring in ((TO_GUEST, self.rx), (FROM_GUEST, self.tx)):
            ring.reset()
            ring.start(dp, index)
        self.refill()

    def refill(self) -> None:
        """Offer every receive buffer that is not on offer."""
        since = self.rx.next_avail
        while self.rx.free:
            at = self._rx_at + self.rx.free[0] * self.rx_bytes
            self.rx.add(at, self.rx_bytes, WRITE)
        if self.rx.next_avail != since:
            self.rx.kick(since)

    def send(self, frame: bytes) -> None:
        """Send one frame with a header of ten bytes; it may wait for a descriptor."""
        self._unsent.append(frame[:PLAIN_HEADER] + b"\0\0" + frame[PLAIN_HEADER:])
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self.tx.take_used():
            pass
        since = self.tx.next_avail
        while self._unsent and self.tx.free:
            frame = self._unsent.popleft()
            at = self._tx_at[self.tx.free[0]]
            self.ram.bytes[at : at + len(frame)] = frame
            self.tx.add(at, len(frame))
        if self.tx.next_avail != since:
            self.tx.kick(since)

    def recv(self) -> bytes:
        """Return the next frame, its header cut to ten bytes; or BlockingIOError."""
        self._send_waiting()
        frame = self._take_buffer()
        count = _U16.unpack_from(frame, PLAIN_HEADER)[0]
        for _ in range(count - 1):
            frame += self._take_buffer()
        self.refill()
        return frame[:PLAIN_HEADER] + frame[HEADER:]

    def _take_buffer(self) -> bytes:
        used = self.rx.take_used()
        if used is None:
            heard(self.rx.call_fd)
            raise BlockingIOError
        head, size = used
        at = self._rx_at + head * self.rx_bytes
        return self.ram.bytes[at : at + size]

    def fileno(self) -> int:
        """What is readable when the datapath has called."""
        return self.rx.call_fd

    def close(self) -> None:
        """Unplug, once."""
        if self.ram.bytes.closed:
            return
        self.rx.close()
        self.tx.close()
        self.ram.close()
