# SPDX-License-Identifier: GPL-2.0-or-later
"""Our units, under a real systemd that is the first process of a container."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.lab.translators import ROOT
from tests.netns.container import SOMEBODY, boot, why_missing
from tests.netns.program import has_landlock

MISSING = why_missing()
pytestmark = pytest.mark.skipif(
    MISSING is not None and "CI" not in os.environ, reason=str(MISSING)
)

# Whether a unit keeps the daemon from shutting its doors, or from saying so
DOORS = """
journalctl --sync
doors() { journalctl -q -o cat PASSTPY_EVENT=$1; }
echo "open doors: $(doors landlock.missing)$(doors root.kept)$(doors seccomp.missing)."
"""

PASTA = """
ip netns add one
echo 'OPTIONS=-I net0 -a 192.0.2.9/24 -t 8080' >/etc/passtpy/one.conf
systemctl start passtpy-pasta@one
ip netns exec one ip -brief address show net0
systemctl show -P StatusText passtpy-pasta@one
systemctl reload passtpy-pasta@one
systemctl is-active passtpy-pasta@one
unit=passtpy-pasta@one.service
until journalctl -u $unit PASSTPY_EVENT=reloaded -o cat | grep reloaded; do
    sleep 0.1
done
journalctl -u $unit PASSTPY_EVENT=namespace.ready -o json
systemctl stop passtpy-pasta@one
systemctl show -P Result passtpy-pasta@one
! ip netns exec one ip link show net0
"""

PASST = """
systemctl start passtpy-passt@machine
test -S /run/passtpy/machine/socket
systemctl show -P StatusText passtpy-passt@machine
grep CapEff /proc/$(systemctl show -P MainPID passtpy-passt@machine)/status
systemctl stop passtpy-passt@machine
systemctl show -P Result passtpy-passt@machine
"""

# systemd opens a low port for a daemon that has no right to; a client starts it
ACTIVATED = """
ip netns add two
mkdir /run/systemd/system/passtpy-pasta@two.socket.d
cat >/run/systemd/system/passtpy-pasta@two.socket.d/ports.conf <<END
[Socket]
ListenStream=443
ListenDatagram=443
END
ports='-t fd:ports:8443 -u fd:ports:8443'
echo "OPTIONS=-I net0 -a 192.0.2.9/24 $ports" >/etc/passtpy/two.conf
systemctl daemon-reload
systemctl start passtpy-pasta@two.socket
systemctl show -P ActiveState passtpy-pasta@two
ip netns exec two ip link set lo up
ip netns exec two python3 -c '
import socket
server = socket.create_server(("", 8443))
print("asked:", server.accept()[0].recv(99).decode())
' &
# 8443, which listens
until ip netns exec two cat /proc/net/tcp | grep -q ':20FB .* 0A '; do sleep 0.1; done
python3 -c '
import socket
socket.create_connection(("127.0.0.1", 443)).sendall(b"early")
'
wait %1
systemctl show -P ActiveState passtpy-pasta@two
systemctl stop passtpy-pasta@two.socket passtpy-pasta@two
systemctl show -P Result passtpy-pasta@two
"""

# A daemon that hangs is killed and started again; one that does not is left alone, if
# it was given its turn in time: on a busy machine not every time
WATCHDOG = """
mkdir /run/systemd/system/passtpy-passt@.service.d
cat >/run/systemd/system/passtpy-passt@.service.d/short.conf <<END
[Service]
WatchdogSec=3
RestartSec=100ms
END
systemctl daemon-reload
systemctl start passtpy-passt@machine
show() { systemctl show -P $1 passtpy-passt@machine; }
for try in $(seq 10); do
    before=$(show NRestarts)
    sleep 4
    [ $(show NRestarts) != $before ] || { echo left alone; break; }
done
until [ $(show ActiveState) = active ]; do sleep 0.1; done
before=$(show NRestarts)
kill -STOP $(show MainPID)
for try in $(seq 300); do
    [ $(show NRestarts) = $before ] || { echo started again; break; }
    sleep 0.1
done
"""


USERS_PASST = """
as_somebody systemctl --user start passtpy-passt@machine
test -S /run/user/4000/passtpy/machine/socket
stat -c 'folder %a %U' /run/user/4000/passtpy/machine
show() { as_somebody systemctl --user show -P $1 passtpy-passt@machine; }
show StatusText
grep CapEff /proc/$(show MainPID)/status
as_somebody systemctl --user reload passtpy-passt@machine
as_somebody systemctl --user stop passtpy-passt@machine
show Result
"""

USERS_PASTA = """
as_somebody sh -c 'unshare --user --map-root-user --net sleep infinity & echo $! >~/pid'
pid=$(cat /home/somebody/pid)
# Its namespaces are there, and its ids
until [ $(cat /proc/$pid/comm) = sleep ]; do sleep 0.1; done
as_somebody mkdir -p /home/somebody/.config/passtpy
echo 'OPTIONS=-I net0 -a 192.0.2.9/24' >/home/somebody/.config/passtpy/pasta.conf
as_somebody systemctl --user start passtpy-pasta@$pid
as_somebody nsenter -U -n --preserve-credentials -t $pid ip -brief address show net0
show() { as_somebody systemctl --user show -P $1 passtpy-pasta@$pid; }
show StatusText
as_somebody systemctl --user reload passtpy-pasta@$pid
kill $pid
for try in $(seq 300); do
    [ $(show ActiveState) != inactive ] || break
    sleep 0.1
done
show ActiveState
show Result
"""


def test_a_namespace_is_served_by_a_unit(tmp_path: Path) -> None:
    told = boot(tmp_path, PASTA + DOORS)
    assert re.search(r"^net0 .* 192\.0\.2\.9/24", told, re.MULTILINE)
    assert "serving net0\n" in told
    assert "\nactive\n" in told
    assert "\nreloaded\n" in told
    assert '"PASSTPY_INTERFACE":"net0"' in told
    assert "\nsuccess\n" in told
    assert "\nopen doors: .\n" in told or not has_landlock()


def test_a_machine_is_served_by_a_unit(tmp_path: Path) -> None:
    told = boot(tmp_path, PASST + DOORS)
    assert "serving virtual machines\n" in told
    assert "CapEff:\t0000000000000000\n" in told
    assert "\nsuccess\n" in told
    assert "\nopen doors: .\n" in told or not has_landlock()


def test_a_users_machine_is_served_by_a_unit_of_the_user(tmp_path: Path) -> None:
    told = boot(tmp_path, SOMEBODY + USERS_PASST + DOORS)
    assert "folder 700 somebody\n" in told
    assert "serving virtual machines\n" in told
    assert "CapEff:\t0000000000000000\n" in told
    assert "\nsuccess\n" in told
    assert "\nopen doors: .\n" in told or not has_landlock()


def test_a_users_process_is_served_by_a_unit_of_the_user(tmp_path: Path) -> None:
    told = boot(tmp_path, SOMEBODY + USERS_PASTA + DOORS)
    assert re.search(r"^net0 .* 192\.0\.2\.9/24", told, re.MULTILINE)
    assert "serving net0\n" in told
    assert "\ninactive\n" in told
    assert "\nsuccess\n" in told
    assert "\nopen doors: .\n" in told or not has_landlock()


def test_a_client_of_a_port_that_systemd_opened_starts_the_daemon(
    tmp_path: Path,
) -> None:
    told = boot(tmp_path, ACTIVATED)
    assert "\ninactive\n" in told
    assert "\nasked: early\n" in told
    assert "\nactive\n" in told
    assert "\nsuccess\n" in told


def test_a_daemon_that_hangs_is_started_again(tmp_path: Path) -> None:
    told = boot(tmp_path, WATCHDOG)
    assert "\nleft alone\n" in told
    assert "\nstarted again\n" in told


# Nothing that takes namespaces can be asked for where the daemon joins another one; and
# every unit of a user counts as one of root
@pytest.mark.parametrize(
    ("unit", "most"),
    [
        ("passtpy-passt@.service", 1.9),
        ("passtpy-pasta@.service", 4.9),
        ("user/passtpy-passt@.service", 2.2),
        ("user/passtpy-pasta@.service", 7.0),
    ],
)
def test_units_expose_little(unit: str, most: float) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", ROOT / "systemd" / unit],
        capture_output=True,
        text=True,
        check=True,
    )
    level = re.search(r"exposure level for .*: ([0-9.]+) ", done.stdout)
    assert level is not None
    assert float(level[1]) <= most
