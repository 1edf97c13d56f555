# SPDX-License-Identifier: GPL-2.0-or-later
"""Hands out tests to pytest-xdist's workers: what stays together, what comes first.

Tests of a file stay together, for they share what their module made. Files that take
long come first, so that none is left for one worker when all others are done.
"""

import re

import pytest

# What takes longest, by its beginning; all else is done in seconds.
LONG = (
    "tests/test_fuzz.py",
    "tests/packages/",
    "tests/soak/",
    "tests/qemu/",
    "tests/clients/",
    "tests/faults/",
    "tests/test_native.py",
    "tests/netns/test_units.py",
    "tests/netns/test_trying.py",
    "tests/netns/",
)

LINK = re.compile(r"(?<=[\[-])(stream|vhost-user)\b")


def together(nodeid: str) -> str:
    """Name the tests with which a test shares what was made for it."""
    file, _, name = nodeid.partition("::")
    link = LINK.search(name)
    if file.startswith("tests/qemu/") and link:  # each has one machine, booted once
        return f"tests/qemu {link[0]}"
    return file


def rank(nodeid: str) -> int:
    """Tell how early a test is to begin: 0 comes first."""
    found = (n for n, start in enumerate(LONG) if nodeid.startswith(start))
    return next(found, len(LONG))


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadScopeScheduling  # only where workers are wanted

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = together
    return scheduler
