# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of the lookout share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.net.host.looking import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()
