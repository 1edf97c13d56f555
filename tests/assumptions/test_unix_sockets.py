# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel tells about whoever connects a UNIX socket."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

SO_NETNS_COOKIE = 71


@pytest.mark.root
def test_an_accepted_socket_is_of_the_network_namespace_of_its_client(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "sock")
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
    cookies = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        own = listening.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        for words in ([], ["unshare", "--net"]):
            subprocess.run([*words, sys.executable, "-c", code], check=True)
            accepted, _ = listening.accept()
            with accepted:
                cookies.append(
                    accepted.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
                )
    assert cookies[0] == own
    assert cookies[1] != own
