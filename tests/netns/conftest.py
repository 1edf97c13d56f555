# SPDX-License-Identifier: GPL-2.0-or-later
"""What most modules of namespace tests begin with."""

from collections.abc import Iterator

import pytest

from tests.lab import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab as it is; modules that need another, or one for each test, make theirs."""
    with Lab() as made:
        yield made
