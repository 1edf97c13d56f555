# SPDX-License-Identifier: GPL-2.0-or-later
"""passt at work, and guests behind its socket: a namespace, or single frames.

A `Cable` joins the socket to a tap device in a namespace, so that a real kernel is the
guest: its TCP, its neighbour discovery, its DHCP clients. Its frames go over the
socket, or with `--vhost-user` through rings and with offloads. A `Plug` is the bare
socket, for frames that no kernel would send.
"""

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path
from typing import Any, Protocol, Self

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from tests.lab import GATEWAY4, HOST4, Lab, Namespace, wait_until
from tests.lab.ethernet import unpadded
from tests.lab.process import Process
from tests.lab.ready import readable
from tests.lab.translators import Passtpy
from tests.lab.vhost_frontend import OFFLOADS, RX, VNET, Frontend, Vnet
from tests.netns.resolvers import with_etc

IFNAME = "eth9"
GUEST_MAC = "02:00:00:00:00:02"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
OUR_MAC = "9a:55:9a:55:9a:55"
PATIENCE = 30.0
READY = "machine.awaited"

_PREFIX = struct.Struct("!I")
_CHUNK = 1 << 18
_TUNSETIFF = 0x400454CA
_TUNSETVNETHDRSZ = 0x400454D8
_TUNSETOFFLOAD = 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6 = 1, 2, 4
_LONGEST = 12 + 14 + 65535


def program() -> str:
    """The path of passtpy-passt, beside that of passtpy-pasta."""
    return str(Path(Passtpy().program).with_name("passtpy-passt"))


class Daemon:
    """A passt that runs in the lab's host, in the foreground, and says all it does."""

    def __init__(self, lab: Lab, process: Process, path: Path, rings: bool) -> None:
        self.lab = lab
        self.process = process
        self.path = path
        self._rings = rings

    def log(self) -> str:
        return self.process.stderr()

    def wait_log(self, text: str, count: int = 1) -> None:
        """Wait until it has said something so many times."""

        def said() -> bool:
            return self.log().count(text) >= count

        wait_until(said, PATIENCE, f"{text} in the log")

    def plug(self) -> "Plug":
        """Connect as a machine does."""
        return Plug(connect(self.path))

    def channel(self) -> "Channel":
        """Connect as a machine does whose frames are many."""
        sock = connect(self.path)
        return Rings(sock) if self._rings else Framing(sock)

    @contextmanager
    def cable(self) -> Iterator["Cable"]:
        """A new namespace behind the socket, its link up and nothing else."""
        with Cable(self.lab.guest(), self.channel()) as cable:
            yield cable


@contextmanager
def passt(
    lab: Lab,
    *words: str,
    path: Path | None = None,
    dies: bool = False,
    place: Path | None = None,
) -> Iterator[Daemon]:
    """Run passt and wait until it is ready; `dies`: it may have ended afterwards.

    `place` has the /etc that it sees: resolvers.etc().
    """
    folder = lab.dir / "sockets"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)  # also for nobody
    path = path or folder / f"{time.monotonic_ns()}.socket"
    argv = [program(), "-f", "-d", "-s", str(path), *words]
    if place is not None:
        argv = with_etc(place, argv)
    process = lab.start(lab.host, *argv)
    daemon = Daemon(lab, process, path, "--vhost-user" in words)
    try:
        wait_ready(process)
        yield daemon
        assert dies or process.running(), process.complaint()
    finally:
        process.stop()


def wait_ready(process: Process) -> None:
    """Wait until a passt in the foreground says that it waits for machines."""

    def ready() -> bool:
        assert process.running(), process.complaint()
        return READY in process.stderr()

    wait_until(ready, PATIENCE, "passt is ready")


def arp(address: str = GATEWAY4) -> Packet:
    """Ask who has an address."""
    question = ARP(op=1, hwsrc=GUEST_MAC, psrc=HOST4, pdst=address)
    return Ether(src=GUEST_MAC, dst=BROADCAST_MAC) / question


def dhcp(kind: str, *options: Any) -> Packet:
    """Say something of this kind to a DHCP server."""
    layer = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
    bootp = BOOTP(chaddr=bytes.fromhex(GUEST_MAC.replace(":", "")), xid=7, op=1)
    wanted = ("param_req_list", [1, 3, 6, 12, 26, 119])
    said = DHCP(options=[("message-type", kind), wanted, *options, "end"])
    return Ether(src=GUEST_MAC, dst=BROADCAST_MAC) / layer / bootp / said


def told(packet: Packet) -> dict[str, Any]:
    """What a DHCP server said: options by name."""
    options = [o for o in packet[DHCP].options if isinstance(o, tuple)]
    return {o[0]: o[1] if len(o) == 2 else o[1:] for o in options}


def wait_gone(path: Path) -> None:
    """Wait until a socket has no name: a daemon waits a second for who removes it."""
    wait_until(lambda: not path.exists(), PATIENCE, f"{path} is removed")


def connect(path: Path | str) -> socket.socket:
    """A stream connected to the socket with this name."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect(str(path))  # waits for room, as a time-out would not let it
        made.settimeout(PATIENCE)
    except BaseException:
        made.close()
        raise
    return made


class Channel(Protocol):
    """Where frames go to passt and come from it."""

    header: int  # bytes of virtio-net header before each, as a tap has it

    def fileno(self) -> int:
        """What is readable when there may be frames."""

    def close(self) -> None:
        """Hang up."""

    def send(self, *frames: bytes) -> None:
        """Send frames in one piece."""

    def receive(self) -> bool:
        """See what has come; False when the other end is closed."""

    def take(self) -> Iterator[bytes]:
        """Yield the frames that are complete."""


class Framing:
    """Frames on a stream: four bytes of length, most significant first, before each."""

    header = 0

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fileno = sock.fileno
        self.close = sock.close
        self._data = bytearray()

    def send(self, *frames: bytes) -> None:
        """Send frames in one piece."""
        self.sock.sendall(b"".join(_PREFIX.pack(len(f)) + f for f in frames))

    def receive(self) -> bool:
        """Wait for more bytes; False when the other end is closed."""
        with suppress(ConnectionResetError):
            got = self.sock.recv(_CHUNK)
            self._data += got
            return bool(got)
        return False

    def take(self) -> Iterator[bytes]:
        """Yield the frames that are complete."""
        start, size = 0, len(self._data)
        view = bytes(self._data)
        while size - start >= _PREFIX.size:
            (length,) = _PREFIX.unpack_from(view, start)
            end = start + _PREFIX.size + length
            if end > size:
                break
            yield view[start + _PREFIX.size : end]
            start = end
        del self._data[:start]


class Rings:
    """Frames in rings, whose offloads are those of a tap with a virtio-net header."""

    header = VNET.size

    def __init__(self, sock: socket.socket) -> None:
        self._frontend = Frontend(sock, OFFLOADS)
        self._frontend.start()
        self.close = self._frontend.close

    def fileno(self) -> int:
        """What is readable when the guest is called."""
        return self._frontend.rings[RX].call

    def send(self, *frames: bytes) -> None:
        """Send frames, their headers first."""
        for data in frames:
            head = Vnet(*VNET.unpack_from(data))
            self._frontend.send_frame(data[VNET.size :], head)

    def receive(self) -> bool:
        """Hear the call."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.fileno())
        return True

    def take(self) -> Iterator[bytes]:
        """Yield the frames that are there, their headers first."""
        while (got := self._frontend.next_frame()) is not None:
            head, frame = got
            yield bytes(replace(head, num_buffers=0)) + frame


class Plug:
    """A machine that sends and receives single frames."""

    def __init__(self, sock: socket.socket) -> None:
        self.framing = Framing(sock)
        self.sock = sock
        self._frames: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, *packets: Packet) -> None:
        """Send Ethernet frames, in one piece."""
        self.framing.send(*map(bytes, packets))

    def recv(self, wanted: Callable[[Packet], Any], seconds: float = PATIENCE) -> Any:
        """The next frame that is wanted; others are thrown away."""
        deadline = time.monotonic() + seconds
        while True:
            while self._frames:
                packet = Ether(unpadded(self._frames.pop(0)))
                if wanted(packet):
                    return packet
            left = deadline - time.monotonic()
            assert readable([self.sock], max(left, 0)), "no such frame came"
            assert self.framing.receive(), "the socket was closed"
            self._frames += self.framing.take()

    def is_closed(self) -> bool:
        """Wait for the other end to close; what it sends before is thrown away."""
        while self.framing.receive():
            pass
        return True


class Cable:
    """A tap device in a namespace, and a thread that carries frames to passt."""

    def __init__(self, guest: Namespace, channel: Channel) -> None:
        self.guest = guest
        self._channel = channel
        self._stop, self._stopped = os.pipe()
        self._tap = self._open_tap()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.unplug()
        for fd in (self._tap, self._stop, self._stopped):
            os.close(fd)

    def unplug(self) -> None:
        """Hang up; the namespace goes on and finds its link dead."""
        if self._thread is not None:
            os.write(self._stopped, b"x")
            self._thread.join()
            os.read(self._stop, 1)
            self._thread = None
        self._channel.close()

    def plug(self, channel: Channel) -> None:
        """Go on with another connection."""
        self._channel = channel
        self._start()

    def configure4(self, address: str, gateway: str) -> None:
        """Give the guest an address that nobody told it."""
        self.guest.ip("addr", "add", address, "dev", IFNAME)
        self.guest.ip("route", "add", gateway, "dev", IFNAME)
        self.guest.ip("route", "add", "default", "via", gateway)

    def configure6(self, address: str, gateway: str) -> None:
        """Likewise."""
        self.guest.ip("addr", "add", address, "dev", IFNAME, "nodad")
        self.guest.ip("route", "add", "::/0", "via", gateway, "dev", IFNAME)

    def _open_tap(self) -> int:
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if self._channel.header else 0)
        request = struct.pack("16sH22x", IFNAME.encode(), flags)
        with self.guest.entered():
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            ioctl(fd, _TUNSETIFF, request)
            if self._channel.header:
                ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", self._channel.header))
                ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
        self.guest.sysctl("net.ipv6.conf.all.accept_ra", "1")
        self.guest.ip("link", "set", IFNAME, "address", GUEST_MAC, "up")
        return fd

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        channel, poll = self._channel, select.poll()
        for fd in (self._stop, self._tap, channel.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop in ready:
                return
            if channel.fileno() in ready:
                if not channel.receive():
                    poll.unregister(channel.fileno())
                for frame in channel.take():
                    with suppress(OSError):  # its link is down
                        os.write(self._tap, frame)
            if self._tap in ready:
                self._from_tap()

    def _from_tap(self) -> None:
        frames: list[bytes] = []
        with suppress(BlockingIOError):
            while len(frames) < 64:
                frames.append(os.read(self._tap, _LONGEST))
        with suppress(OSError):  # nobody is at the other end
            self._channel.send(*frames)
