# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the host from the first request of an HTTP client (RFC 9112, RFC 9110).

What servers understand differently is refused: two hosts, a host in the request line
that is another one than in the header, lines that are folded, bare CR. A client of
HTTP/2 without TLS says no host in words that can be read here, and is refused too.
"""

import re
from typing import Final

from passtpy.errors import WireError

MAX_HEAD: Final = 16384  # bytes; what servers take is a half of it
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_LINE: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~]+) HTTP/1\.([01])"
)
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)")
_AUTHORITY: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/?#]*)(?::([0-9]{0,5}))?")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(?:[/?#].*)?")


def is_http(data: bytes) -> bool:
    """Tell whether a stream may begin with a request."""
    word, space, _ = data[:40].partition(b" ")
    return bool(_METHOD.fullmatch(word)) and (bool(space) or len(data) <= 32)


def read_host(data: bytes) -> str | None:
    """Read the beginning of a stream; None: more bytes are needed.

    Returns the host without its port, as it was sent; "" if the request names none.
    WireError for what is no request, or could be read in two ways.
    """
    data = data.lstrip(b"\r\n")  # RFC 9112 section 2.2
    head, end, _ = data.partition(b"\r\n\r\n")
    first, whole, rest = head.partition(b"\r\n")
    line = None
    if whole or end:  # not before: it may come a byte at a time
        line = _LINE.fullmatch(first)
        if line is None:
            raise WireError("http: no request")
    if line is None or not end:
        if data and not is_http(data):
            raise WireError("http: no request")
        if len(data) >= MAX_HEAD:
            raise WireError("http: too long")
        return None
    if len(head) > MAX_HEAD:
        raise WireError("http: too long")
    fields = rest.split(b"\r\n") if whole else []
    hosts = [value for name, value in map(_field, fields) if name == b"host"]
    if len(hosts) > 1:
        raise WireError("http: two hosts")
    target = _host_of_target(line[1], line[2])
    said = _host(hosts[0]) if hosts else None
    if target is not None and said is not None and target.lower() != said.lower():
        raise WireError("http: two hosts")
    return target if target is not None else said or ""


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None or b"\r" in line or b"\n" in line or b"\0" in line:
        raise WireError("http: bad field")
    # Not by the pattern: it would look at each blank within as often as there are some
    return match[1].lower(), match[2].strip(b" \t")


def _host_of_target(method: bytes, target: bytes) -> str | None:
    """Return the host that the request line names (RFC 9112 3.2.2, 3.2.3)."""
    if method == b"CONNECT":
        return _host(target)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        return _host(absolute[1])
    if not target.startswith(b"/") and target != b"*":
        raise WireError("http: bad target")
    return None


def _host(authority: bytes) -> str:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise WireError("http: bad host")
    try:
        return match[1].decode("ascii")
    except UnicodeDecodeError:
        raise WireError("http: host is not ASCII") from None
