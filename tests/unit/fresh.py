# SPDX-License-Identifier: GPL-2.0-or-later
"""A Python that has imported nothing of ours yet."""

import subprocess
import sys


def said(code: str) -> str:
    """Run it there, to its end, without an error; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
