# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the control sockets of daemons are, and what names they may have."""

import os
import re
from ipaddress import ip_address

from passtpy.addr import Address
from passtpy.errors import ConfigError

SUFFIX = ".sock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def runtime_folder() -> str | None:
    """Return the folder of this user's control sockets; None: it has none."""
    if os.geteuid() == 0:
        return "/run/passtpy"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return os.path.join(runtime, "passtpy") if runtime else None


def read_name(text: str) -> str:
    """Read --name."""
    if _NAME.fullmatch(text) is None:
        raise ConfigError(f"Invalid instance name: {text}")
    return text


def read_metrics(text: str) -> tuple[Address, int]:
    """Read --metrics: a port of the loopback, or ADDR:PORT."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(bare) if host else ip_address("127.0.0.1")
        if (address.version == 6) is not (bare != host):
            raise ValueError("brackets are for IPv6")
        number = int(port) if port.isascii() and port.isdigit() else 0
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise ConfigError(f"Invalid address for metrics: {text}")
    return address, number
