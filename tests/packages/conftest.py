# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of packages install what ours depend on, from wherever the machine gets it."""

import pytest


@pytest.fixture(autouse=True)
def _by_itself() -> None:
    """Leave them in the machine's network: a loopback alone reaches no registry."""
