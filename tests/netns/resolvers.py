# SPDX-License-Identifier: GPL-2.0-or-later
"""Pretended resolvers that answer with their name, and hosts with a resolv.conf."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from tests.lab import TRANSLATORS, Attached, Attachment, Lab, Namespace, wait_until
from tests.lab.namespace import family_of
from tests.lab.topology import READY_TIMEOUT

PORTS = (53, 853)
PATIENCE = 30.0
NEEDED = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "hosts")


@contextmanager
def resolver(where: Namespace, address: str, name: str) -> Iterator[None]:
    """Answer everything on the ports of DNS, TCP and UDP, with `name`."""

    def answer(sock: socket.socket) -> None:
        if sock.type == socket.SOCK_STREAM:
            with sock.accept()[0] as peer:
                peer.sendall(name.encode())
        else:
            sock.sendto(name.encode(), sock.recvfrom(2048)[1])

    with answering(where, address, PORTS, answer):
        yield


@contextmanager
def answering(
    where: Namespace,
    address: str,
    ports: Iterable[int],
    answer: Callable[[socket.socket], None],
) -> Iterator[None]:
    """Call `answer` for whatever comes to these ports, TCP and UDP, with its socket."""
    with ExitStack() as stack:
        selector = stack.enter_context(DefaultSelector())
        for port in ports:
            for sock in (where.listen(address, port), where.udp(address, port)):
                sock.setblocking(False)
                selector.register(stack.enter_context(sock), EVENT_READ)
        stop = threading.Event()
        thread = threading.Thread(target=_serve, args=(selector, answer, stop))
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        yield


def _serve(
    selector: DefaultSelector,
    answer: Callable[[socket.socket], None],
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        for key, _ in selector.select(0.05):
            assert isinstance(key.fileobj, socket.socket)
            with suppress(OSError, EOFError):
                answer(key.fileobj)


def ask(
    guest: Namespace,
    address: str,
    kind: str = "udp",
    port: int = 53,
    patience: float = PATIENCE,
) -> str | None:
    """The name of who answers the guest at this address; None: nobody."""
    tcp = kind == "tcp"
    sock = guest.new_socket(
        family_of(address), socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    )
    with sock, suppress(OSError):
        sock.settimeout(patience)
        sock.connect((address, port))
        if not tcp:
            sock.send(b"who?")
        return sock.recv(64).decode() or None
    return None


def etc(place: Path, *nameservers: str) -> Path:
    """Make an /etc that has little but a resolv.conf; return that file."""
    (place / "etc").mkdir(parents=True, exist_ok=True)
    for name in NEEDED:
        if Path("/etc", name).exists():
            shutil.copy(f"/etc/{name}", place / "etc")
    path = place / "etc" / "resolv.conf"
    path.unlink(missing_ok=True)
    path.write_text(content(*nameservers))
    return path


def content(*nameservers: str) -> str:
    return "".join(f"nameserver {each}\n" for each in nameservers)


def with_etc(place: Path, argv: Sequence[str], prepare: str = ":") -> list[str]:
    """The words that run `argv` where that is /etc; `prepare` is a shell line."""
    script = f'mount --bind "$0" /etc && {prepare} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(place / "etc"), *argv]


@contextmanager
def serving(lab: Lab, *extra: str, resolv: tuple[str, ...] = ()) -> Iterator[Attached]:
    """A guest, with these options, of a host with these resolvers."""
    place = lab.dir / "host"
    place.mkdir(exist_ok=True)
    etc(place, *resolv)
    guest = lab.guest()
    pid = lab.dir / f"{guest.name}.pid"  # written when it serves
    options = Attachment(extra=(*extra, "--pid", str(pid)))
    argv = with_etc(place, TRANSLATORS["passtpy"].attach_command(guest, options))
    attached = Attached(lab, guest, lab.start(lab.host, *argv))
    try:
        attached.wait_ready(options)
        wait_until(lambda: pid.exists() and pid.read_text(), READY_TIMEOUT, "it serves")
        yield attached
    finally:
        attached.close()
