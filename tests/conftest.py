# SPDX-License-Identifier: GPL-2.0-or-later
"""What every test shares: which build is under test, and who may run what.

Tests that load the datapath into their own process get the checked build
(build/debug: invariants after each step) if there is one. Whole-daemon tests
start the product's console scripts, and so the product's own build; those that
want faults on the tap start it with `checked_env`.
"""

import fcntl
import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
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
# Packets that wait for a processor, of all namespaces. More are lost, and a test that
# floods should not lose what another one sends once.
BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")
ROOM = 20_000
# Held by every run of tests; has what was there before the first of them
HOLD = Path("/run/passtpytests")
HELD = pytest.StashKey[int]()

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


def pytest_sessionstart(session: pytest.Session) -> None:
    if not _is_worker(session.config) and os.geteuid() == 0:
        session.config.stash[HELD] = hold(HOLD)
        _make_room()


def pytest_sessionfinish(session: pytest.Session) -> None:
    held = session.config.stash.get(HELD, None)
    if held is not None:
        let_go(held)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def hold(path: Path) -> int:
    """Note what tests change of the machine, if no other run has done so yet."""
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with suppress(BlockingIOError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(held, 0)
        os.pwrite(held, json.dumps([_tun_mode(), _backlog()]).encode(), 0)
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def let_go(held: int) -> None:
    """Leave the machine as it was, unless another run goes on."""
    with suppress(BlockingIOError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tun_mode, backlog = json.loads(os.pread(held, 100, 0))
        if tun_mode not in (None, _tun_mode()):
            TUN.chmod(tun_mode)
        if backlog not in (None, _backlog()):
            BACKLOG.write_text(backlog)
    os.close(held)


def _tun_mode() -> int | None:
    return stat.S_IMODE(TUN.stat().st_mode) if TUN.exists() else None


def _backlog() -> str | None:
    return BACKLOG.read_text() if os.access(BACKLOG, os.W_OK) else None


def _make_room() -> None:
    """Let more packets wait."""
    if int(_backlog() or ROOM) < ROOM:
        BACKLOG.write_text(f"{ROOM}\n")


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
