# SPDX-License-Identifier: GPL-2.0-or-later
"""What every test shares: which build is under test, and who may run what.

Tests that load the datapath into their own process get the checked build
(build/debug: invariants after each step) if there is one. Whole-daemon tests
start the product's console scripts, and so the product's own build; those that
want faults on the tap start it with `checked_env`.
"""

import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.lab.descriptors import Opened
    from tests.lab.namespace import Namespace

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ROOT / "build" / "debug"
CLIENTS = ROOT / "tests" / "clients"
TUN = Path("/dev/net/tun")
TUN_MODE = pytest.StashKey[int | None]()
# Packets that wait for a processor, of all namespaces. More are lost, and a test that
# floods should not lose what another one sends once.
BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")
ROOM = 20_000
BACKLOG_BEFORE = pytest.StashKey[str | None]()

HAVE_CHECKED = any((CHECKED / "passtpy").glob("_native.*.so"))

if HAVE_CHECKED:
    sys.path.insert(0, str(CHECKED))
sys.path.append(str(ROOT))

pytest_plugins = ["tests.parallel"]

# What a shell starts in the background ignores Ctrl-C, what nohup starts the end of a
# terminal, and all that they start as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says more about the machine than about the code. Which ones
# are tried follows from the test: a change fails for what it brings. Others are tried
# by --hypothesis-profile=search, each time.
_CLOCKLESS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("passtpy", _CLOCKLESS, derandomize=True, database=None)
settings.register_profile("search", _CLOCKLESS, derandomize=False, max_examples=2000)
settings.load_profile("passtpy")


def _stale_builds() -> list[str]:
    """Modules older than the sources they were made from."""
    sources = [p.stat().st_mtime for p in (ROOT / "native").rglob("*.[ch]")]
    modules = [*(ROOT / "passtpy").glob("_native.*.so")]
    modules += (CHECKED / "passtpy").glob("_native.*.so")
    newest = max(sources, default=0.0)
    return [str(m.relative_to(ROOT)) for m in modules if m.stat().st_mtime < newest]


def _why_no_machine() -> str | None:
    from tests.qemu import image  # only now is the root on the path

    return image.why_missing()


def pytest_report_header() -> list[str]:
    build = "build/debug" if HAVE_CHECKED else "the tree's own"
    no_machine = _why_no_machine()
    return [
        f"passtpy: {build} build in this process",
        *([f"tests/qemu: {no_machine}"] if no_machine else []),
        *(
            f"WARNING: {m} is older than native/, see make build"
            for m in _stale_builds()
        ),
    ]


def _why_not(item: pytest.Item) -> str | None:
    """Reason to skip a test on this machine, None to run it."""
    if item.path.is_relative_to(CLIENTS) and "PASSTPY_CLIENTS" not in os.environ:
        return "needs a Debian 13: make clients"
    wants_netns = item.get_closest_marker("netns") is not None
    wants_root = wants_netns or item.get_closest_marker("root") is not None
    if wants_root and os.geteuid() != 0:
        return "needs root"
    # Where everything must run, what is missing is a failure, not an excuse.
    if "CI" in os.environ:
        return None
    if wants_netns and not TUN.exists():
        return f"needs {TUN}"
    if item.get_closest_marker("qemu") is not None:
        return _why_no_machine()
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folders = item.path.relative_to(ROOT).parts
        if {"netns", "qemu", "clients"} & {*folders}:
            item.add_marker(pytest.mark.netns)
        if "qemu" in folders:
            item.add_marker(pytest.mark.qemu)
        reason = _why_not(item)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def tun_for_everybody() -> None:
    """Let ordinary users open the tun device, as distributions do.

    Workers that end first leave that to the others: the session's end undoes it.
    """
    TUN.chmod(0o666)


def _tun_mode() -> int | None:
    return stat.S_IMODE(TUN.stat().st_mode) if TUN.exists() else None


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[TUN_MODE] = _tun_mode()
    session.config.stash[BACKLOG_BEFORE] = _make_room(session.config)


def pytest_sessionfinish(session: pytest.Session) -> None:
    before = session.config.stash[TUN_MODE]
    if before is not None and before != _tun_mode() and not _is_worker(session.config):
        TUN.chmod(before)
    backlog = session.config.stash[BACKLOG_BEFORE]
    if backlog is not None:
        BACKLOG.write_text(backlog)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _make_room(config: pytest.Config) -> str | None:
    """Let more packets wait; return how many might before, None: nothing is changed."""
    if _is_worker(config) or not os.access(BACKLOG, os.W_OK):
        return None
    before = BACKLOG.read_text()
    if int(before) >= ROOM:
        return None
    BACKLOG.write_text(f"{ROOM}\n")
    return before


@pytest.fixture(autouse=True)
def _tun_ready(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("netns") is not None:
        request.getfixturevalue("tun_for_everybody")


@pytest.fixture
def checked_env() -> dict[str, str]:
    """Environment that makes a started passtpy use the checked build."""
    if not HAVE_CHECKED:
        pytest.skip("needs make native-debug")
    # Safe path: the folder we stand in must not come first and bring the product.
    return {**os.environ, "PYTHONPATH": str(CHECKED), "PYTHONSAFEPATH": "1"}


@pytest.fixture(scope="session")
def lonely() -> "Namespace | None":
    """A loopback that no other process has, where we may make one."""
    from tests.lab.loopback import lonely_network  # only now is the root on the path

    return lonely_network()


@pytest.fixture(scope="session")
def _what_libuv_keeps() -> None:
    """Its pipe for signals: the first loop of a process opens it, for good."""
    import uvloop

    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def _by_itself(request: pytest.FixtureRequest) -> "Iterator[Opened | None]":
    """Tests within this process meet nobody; others have namespaces and daemons for it.

    They close what they open, and nobody takes a port that they have, had, or ask for.
    """
    if request.node.get_closest_marker("netns") is not None:
        yield None
        return
    from tests.lab.descriptors import none_left  # only now is the root on the path

    request.getfixturevalue("_what_libuv_keeps")
    lonely: Namespace | None = request.getfixturevalue("lonely")
    with none_left() as opened, lonely.entered() if lonely else nullcontext():
        yield opened


@pytest.fixture
def opened(_by_itself: "Opened") -> "Opened":
    """Descriptors that a test within this process has opened: `opened()` of them."""
    return _by_itself
