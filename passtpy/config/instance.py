# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the control sockets of daemons are, and what names they may have."""

import os
import re

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
