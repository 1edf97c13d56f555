# SPDX-License-Identifier: GPL-2.0-or-later
"""What the numbers were measured on: results without it mean nothing."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.served import CONTENDERS


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _sysctl(name: str) -> str:
    return Path("/proc/sys", *name.split(".")).read_text().strip()


def describe(peers: Sequence[str], command: str) -> dict[str, str]:
    """Facts about this machine and the programs compared."""
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} × {_cpu_model()}",
        "load at start": " ".join(f"{x:.2f}" for x in os.getloadavg()),
        "congestion control": _sysctl("net.ipv4.tcp_congestion_control"),
        "python": platform.python_version(),
    }
    for name in peers:
        translator = CONTENDERS[name]
        facts[name] = translator.why_missing() or translator.version()
    return facts
