# SPDX-License-Identifier: GPL-2.0-or-later
"""A server on loopback for one client."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Serve = Callable[[socket.socket], None]


@contextmanager
def one_client(serve: Serve) -> Iterator[int]:
    """Do this with the client that comes to the port, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError), server.accept()[0] as sock:
                serve(sock)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join()
