# SPDX-License-Identifier: GPL-2.0-or-later
"""One lab for all virtual machines, and one machine for each link, booted once."""

from collections.abc import Iterator

import pytest

from tests.lab import Lab
from tests.netns.resolvers import etc, with_etc
from tests.qemu import image as images
from tests.qemu.image import Image
from tests.qemu.machine import LINKS, Link, Machine, machine, passt
from tests.qemu.nameserver import nameserver

LOOPBACK4 = "127.0.0.1"
HOSTNAME = "vm"
SEARCH = ("lab.example.com", "example.com")
FORWARDED = "5000-5099"  # TCP and UDP, for whatever service a test starts
OPTIONS = (
    *("-t", FORWARDED, "-u", FORWARDED),
    *("--hostname", HOSTNAME, "--search", " ".join(SEARCH)),
)


@pytest.fixture(scope="session")
def image() -> Image:
    reason = images.why_missing()
    if reason is not None:  # and we are where everything must run
        pytest.fail(reason)
    return images.build()


@pytest.fixture(scope="session")
def lab(image: Image) -> Iterator[Lab]:
    with Lab() as made, nameserver(made.host, LOOPBACK4):
        yield made


@pytest.fixture(scope="session", params=LINKS, ids=lambda link: link.name)
def link(request: pytest.FixtureRequest) -> Link:
    chosen: Link = request.param
    return chosen


@pytest.fixture(scope="session")
def program(lab: Lab) -> list[str]:
    """The translator under test, on a host whose name server is on its loopback."""
    etc(lab.dir, LOOPBACK4)
    return with_etc(lab.dir, passt())


@pytest.fixture(scope="session")
def shared(lab: Lab, image: Image, link: Link, program: list[str]) -> Iterator[Machine]:
    with machine(lab, image, link, [*program, *OPTIONS]) as made:
        yield made


@pytest.fixture
def leased(shared: Machine) -> Iterator[Machine]:
    """The machine, on, with its lease; a test may do with it what it likes."""
    if not shared.running:
        shared.start()
    if not shared.succeeds("[ -e /run/notes/bound ]"):
        shared.take_lease()
    yield shared
    shared.check_served()
    if shared.running:
        assert shared.new_faults() == set()


@pytest.fixture
def guest(leased: Machine) -> Machine:
    """The machine, with an IPv6 address as well (which takes it some seconds)."""
    leased.wait_address6()
    return leased
