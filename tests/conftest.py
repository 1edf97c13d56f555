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
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ROOT / "build" / "debug"
TUN = Path("/dev/net/tun")

HAVE_CHECKED = any((CHECKED / "passtpy").glob("_native.*.so"))

if HAVE_CHECKED:
    sys.path.insert(0, str(CHECKED))
sys.path.append(str(ROOT))

# What a shell starts in the background ignores Ctrl-C, what nohup starts the end of a
# terminal, and all that they start as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("passtpy", deadline=None)
hypothesis.settings.load_profile("passtpy")


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
        if "netns" in folders or "qemu" in folders:
            item.add_marker(pytest.mark.netns)
        if "qemu" in folders:
            item.add_marker(pytest.mark.qemu)
        reason = _why_not(item)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def tun_for_everybody() -> Iterator[None]:
    """Let ordinary users open the tun device, as distributions do."""
    before = stat.S_IMODE(TUN.stat().st_mode)
    TUN.chmod(0o666)
    yield
    TUN.chmod(before)


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
def _what_libuv_keeps() -> None:
    """Its pipe for signals: the first loop of a process opens it, for good."""
    import uvloop

    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def _no_descriptor_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests within this process close what they open; others have a daemon for it."""
    if request.node.get_closest_marker("netns") is not None:
        yield
        return
    from tests.lab.descriptors import none_left  # only now is the root on the path

    request.getfixturevalue("_what_libuv_keeps")
    with none_left():
        yield
