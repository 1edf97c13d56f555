# SPDX-License-Identifier: GPL-2.0-or-later
"""A real client of TLS, as far as its first message."""

import ssl
from contextlib import suppress


def hello(name: str | None) -> bytes:
    """What OpenSSL says first to a server of this name; None: it names none."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    if name is None:
        context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()
