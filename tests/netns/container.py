# SPDX-License-Identifier: GPL-2.0-or-later
"""A container whose first process is a real systemd, with our units installed.

Its files are the machine's, under an overlay that takes what is changed; processes,
mounts, cgroups and networks are its own. It does what a script says, as a unit that is
started last, and ends with it.
"""

import shutil
import subprocess
from pathlib import Path

from tests.lab.translators import ROOT

SYSTEMD = Path("/lib/systemd/systemd")
TIMEOUT_S = 240

# Somebody whose manager runs, without a login: `as_somebody systemctl --user …`
SOMEBODY = """
mkdir -p /run/systemd/unit-root
mknod -m 0666 /run/tun c 10 200
mount --bind /run/tun /dev/net/tun
useradd --uid 4000 --create-home somebody
install -d -o somebody -g somebody -m 0700 /run/user/4000
systemd-run --quiet -p Type=notify -p User=somebody -p Delegate=yes \
    -E XDG_RUNTIME_DIR=/run/user/4000 /lib/systemd/systemd --user
as_somebody() {
    setpriv --reuid somebody --regid somebody --clear-groups \
        env HOME=/home/somebody XDG_RUNTIME_DIR=/run/user/4000 "$@"
}
"""

# Whatever fails says why
_TELL = "trap 'journalctl --sync; journalctl -n 30 -o cat --no-pager' ERR\n"

# Runs as root in fresh namespaces; $1: an empty folder, $2: the project
_BOOT = """
set -eu
mount --make-rprivate /
mount -t tmpfs none "$1"
mkdir "$1/up" "$1/work" "$1/root" "$1/machine"
mount --bind / "$1/machine"
mount -t overlay none -o "lowerdir=$1/machine,upperdir=$1/up,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p "./$2"
mount --bind "$2" "./$2"
mount -o remount,bind,ro "./$2"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs none run
mount --rbind /dev dev
ip link set lo up
ip link add eth0 type veth peer name wire
ip address add 192.0.2.1/24 dev eth0
ip link set wire up
ip link set eth0 up
ip route add default via 192.0.2.254
cp "$2"/systemd/*.service "$2"/systemd/*.socket etc/systemd/system/
cp "$2"/systemd/user/*.service etc/systemd/user/
cp "$2"/systemd/passtpy.tmpfiles.conf etc/tmpfiles.d/passtpy.conf
for program in passtpy passtpy-pasta passtpy-passt; do
    ln -sf "$2/.venv/bin/$program" usr/bin/
done
# An interpreter in somebody's home, or a project in /tmp, is out of reach for our units
chmod o+x root home
for program in passtpy-pasta passtpy-passt; do
    mkdir "etc/systemd/system/$program@.service.d"
    printf '[Service]\nProtectHome=no\nBindReadOnlyPaths=%s\n' "$2" \
        >"etc/systemd/system/$program@.service.d/test.conf"
    mkdir "etc/systemd/user/$program@.service.d"
    printf '[Service]\nProtectHome=no\nPrivateTmp=no\n' \
        >"etc/systemd/user/$program@.service.d/test.conf"
done
mkdir -p etc/passtpy
cp "$1.script" script
cat >etc/systemd/system/script.service <<END
[Unit]
Wants=systemd-journald.service
After=systemd-journald.service
[Service]
Type=oneshot
ExecStart=/bin/bash -eux /script
ExecStopPost=/bin/sh -c 'systemctl exit \\$EXIT_STATUS'
StandardOutput=file:/output
StandardError=file:/output
END
touch output
mount --bind "$1.output" output
# Who is in a chroot may make no namespace of users
mkdir old
pivot_root . old
umount --lazy old
exec chroot . /usr/bin/env -i container=passtpy \\
    PATH=/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8 \\
    /lib/systemd/systemd --system --unit=script.service --show-status=no
"""


def why_missing() -> str | None:
    """Why there can be no such container here, or None."""
    return None if SYSTEMD.exists() else "systemd is not installed"


def boot(folder: Path, script: str) -> str:
    """Run a script as the last unit; return its output. AssertionError if it fails."""
    place = folder / "container"
    place.mkdir()
    output = folder / "container.output"
    output.touch()
    (folder / "container.script").write_text(_TELL + script)
    unshare = shutil.which("unshare")
    assert unshare
    new = ("--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup")
    done = subprocess.run(
        [unshare, *new, "--net", "bash", "-c", _BOOT, "boot", str(place), str(ROOT)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    told = output.read_text(errors="replace")
    assert done.returncode == 0, f"{done.stdout}\n{told}"
    return told
