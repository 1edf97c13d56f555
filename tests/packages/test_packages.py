# SPDX-License-Identifier: GPL-2.0-or-later
"""What is installed from a package works by itself, in a root with nothing else."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from passtpy import __version__
from tests.lab import REMOTE4, Lab, tcp_echo
from tests.netns.rootless import PODMAN, missing
from tests.packages import profile

ROOT = Path(__file__).resolve().parents[2]
MIRROR = "http://deb.debian.org/debian"
RELEASE = "bookworm"  # whose Python and C library the package is built for
NAMES = ("pasta", "passt", "pesto", "slirp4netns")
PATIENCE = 600  # seconds: most of it is the network's

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE)]

# podman wants cgroups of the new form alone
CGROUPS = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup\n"
ASK = """\
import socket, sys
with socket.create_connection(sys.argv[1:3], 30) as sock:
    sock.sendall(b"who is there")
    print(sock.recv(64))
"""


def run(*argv: object, **env: str) -> str:
    """What a command says, on both its outputs; it must succeed."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # As where a package is made; a wheel that took notice would have no module.
    said = run(".packaging/wheel", folder, DESTDIR=str(folder / "package"))
    return Path(said.split()[-1])


def test_a_wheel_has_the_module_wherever_a_package_is_made(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "passtpy/_native.abi3.so" in archive.namelist()


def test_one_wheel_serves_every_python_from_3_11_on(wheel: Path) -> None:
    assert wheel.name.startswith(f"passtpy-{__version__}-cp311-abi3-linux_")


def test_an_installation_stands_alone(wheel: Path, tmp_path: Path) -> None:
    """Wherever it is put, with nothing of this tree or its environment."""
    python = os.path.realpath(sys.executable)
    where = {"DESTDIR": str(tmp_path), "PREFIX": "/opt/net", "WHEEL": str(wheel)}
    run("make", "install", f"PYTHON={python}", **where)
    top = tmp_path / "opt/net"
    alone = ("env", "-i")
    for name in NAMES:
        links = top / "bin" / f"passtpy-{name}", top / "libexec/passtpy" / name
        for link in links:
            assert __version__ in run(*alone, link, "--version")
    assert "Usage: passtpy" in run(*alone, top / "bin/passtpy", "--help")
    said = run(*alone, python, "-IS", "-c", f"""
import sys
sys.path.insert(0, {str(top / "lib/passtpy")!r})
import passtpy._native, uvloop
print(passtpy._native.__file__, uvloop.__file__, sep="\\n")
""")  # fmt: skip
    assert [Path(line).is_relative_to(top) for line in said.split()] == [True, True]

    unit = (top / "lib/systemd/system/passtpy-passt@.service").read_text()
    assert "ExecStart=/opt/net/bin/passtpy-passt" in unit
    for kind, folder in (("system", "systemd"), ("user", "systemd/user")):
        made = {path.name for path in (top / "lib/systemd" / kind).iterdir()}
        assert made == {path.name for path in (ROOT / folder).glob("passtpy-*")}
    shells = [
        path.name for path in (top / "share").rglob("*passtpy*") if path.is_file()
    ]
    assert {"passtpy", "_passtpy", "passtpy.fish", "passtpy.1"} <= set(shells)
    for name in NAMES:  # shells look for a file of the command's name
        for each in (f"passtpy-{name}", f"passtpy-{name}.fish", f"passtpy-{name}.1"):
            assert each in shells
    for conf in ("lib/sysusers.d/passtpy.conf", "lib/tmpfiles.d/passtpy.conf"):
        assert (top / conf).is_file()
    assert not any(str(ROOT) in path.read_text() for path in (top / "bin").iterdir())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of an installation where it is to be used."""
    top = tmp_path_factory.mktemp("prefix") / "net"
    run("make", "install", PYTHON="/usr/bin/python3", WHEEL=str(wheel), PREFIX=str(top))
    return top


@pytest.fixture(scope="module")
def parser() -> str:
    found = shutil.which("apparmor_parser", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("needs apparmor")
    return found


def test_the_profile_is_one_that_apparmor_takes(installed: Path, parser: str) -> None:
    path = installed / "etc/apparmor.d/passtpy"
    run(parser, "--skip-kernel-load", "--skip-cache", path)


def test_the_kernel_loads_the_profile(installed: Path, parser: str) -> None:
    if not Path("/sys/kernel/security/apparmor/.replace").exists():
        pytest.skip("this kernel has no AppArmor")
    path = installed / "etc/apparmor.d/passtpy"
    run(parser, "--replace", "--skip-cache", path)
    run(parser, "--remove", path)


@pytest.mark.netns
def test_the_profile_knows_every_file_of_a_start(
    installed: Path, lab: Lab, tmp_path: Path
) -> None:
    if shutil.which("strace") is None or not Path("/etc/apparmor.d/abi").exists():
        pytest.skip("needs strace and apparmor")
    found = profile.rules(installed / "etc/apparmor.d/passtpy")
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", "trace=open,openat,creat", "-o", str(trace))
    guest = (str(installed / "bin/passtpy-pasta"), "--config-net", "--", "true")
    lab.host.run(*strace, *guest, timeout=PATIENCE / 2)
    opened = re.findall(
        r'open(?:at)?\(.*?"(/.*?)", (\S+?)[,)].* = \d', trace.read_text()
    )
    assert len(opened) > 100
    for path, flags in opened:
        mode = "w" if "O_WRONLY" in flags or "O_RDWR" in flags else "r"
        place = path.replace("/proc/self/", "/proc/1/")
        assert profile.allows(found, place, mode), (path, flags)


@pytest.fixture(scope="module")
def package(wheel: Path) -> Path:
    if shutil.which("dpkg-buildpackage") is None:
        pytest.skip("needs dpkg-dev")
    said = run("make", "deb", WHEEL=str(wheel))
    return ROOT / said.split()[-1]


def test_lintian_finds_no_fault(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("needs lintian")
    run("lintian", "--allow-root", "--fail-on", "error", package)


@pytest.fixture(scope="module")
def clean_root(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian that has a Python, and our package."""
    if shutil.which("debootstrap") is None:
        pytest.skip("needs debootstrap")
    root = tmp_path_factory.mktemp("root") / "root"
    kind = ("--variant=minbase", "--include=python3")
    run("debootstrap", *kind, RELEASE, root, MIRROR)
    shutil.copy(package, root / "passtpy.deb")
    run("chroot", root, "dpkg", "--install", "/passtpy.deb")
    os.mknod(root / "dev/tun", 0o600 | 0o020000, os.makedev(10, 200))
    return root


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.mark.netns
def test_a_clean_debian_has_a_network_by_our_package(
    clean_root: Path, lab: Lab
) -> None:
    """By the names of what we stand in for, which are alternatives."""
    # Whoever is in a mere chroot may make no user namespace.
    enter = f"""
mount --bind {clean_root} {clean_root}
cd {clean_root}
mount -t proc proc proc
mkdir -p dev/net && mv dev/tun dev/net/
pivot_root . mnt
exec chroot . "$@"
"""
    guest = ("pasta", "--config-net", "--", "python3", "-c", ASK)
    with tcp_echo(lab.remote, REMOTE4) as server:
        words = (*guest, REMOTE4, str(server.port))
        said = lab.host.run(
            "unshare", "--mount", "sh", "-ec", enter, "sh", *words, timeout=90
        )
    assert said.stdout == "b'who is there'\n"
    for name in NAMES:
        assert __version__ in run("chroot", clean_root, name, "--version")


@pytest.mark.netns
def test_the_package_leaves_nothing_behind(clean_root: Path) -> None:
    run("chroot", clean_root, "dpkg", "--purge", "passtpy")
    bins = [path.name for path in (clean_root / "usr/bin").iterdir()]
    assert not {*bins} & {"passtpy", *NAMES}
    assert not (clean_root / "usr/lib/passtpy").exists()


@pytest.fixture
def storage() -> Iterator[Path]:
    """A short path, which podman needs."""
    made = Path(tempfile.mkdtemp(prefix="ptpy"))
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(missing() is not None, reason=f"{missing()} is not installed")
@pytest.mark.netns
def test_the_image_works_without_privileges(
    clean_root: Path, lab: Lab, storage: Path
) -> None:
    """Built on a Debian of our own, since no registry may be reached."""
    run("chroot", clean_root, "dpkg", "--purge", "passtpy")
    roots = f"--root={storage}/root", f"--runroot={storage}/run"
    podman = " ".join(["podman", *roots, *PODMAN[1:]])
    run("sh", "-ec", f"tar -C {clean_root} -c . | {podman} import -q - localhost/base")
    how = "--isolation=chroot --network=host --build-arg BASE=localhost/base -t image"
    build = f"{podman} build -q {how} -f .packaging/Containerfile ."
    run("unshare", "--mount", "sh", "-ec", CGROUPS + build)
    # As an ordinary user, and with nothing but the device
    options = "--rm --network host --cgroups disabled --user 1000 --device /dev/net/tun"
    limits = "--ulimit nofile=4096:4096 --ulimit nproc=4096:4096"
    with tcp_echo(lab.remote, REMOTE4) as server:
        command = f"pasta --config-net -- python3 -c '{ASK}' {REMOTE4} {server.port}"
        line = f"{CGROUPS}{podman} run {options} {limits} image {command}"
        said = lab.host.run("unshare", "--mount", "sh", "-ec", line, timeout=150)
    assert said.stdout == "b'who is there'\n"
