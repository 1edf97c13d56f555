# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that runs the commands of a test, whoever has started its machine."""

from collections.abc import Mapping

from tests.lab import LabError, wait_until
from tests.qemu.console import Console

COMMAND_TIMEOUT = 120.0
POLL_TIMEOUT = 60.0
COUNTERS = "/sys/class/net/eth0/statistics/rx_dropped"
COUNTERS += " /sys/class/net/eth0/statistics/rx_errors"
COMPLAINTS = "csum|bad gso|WARNING|BUG|unexpected"


class Guest:
    """Commands and questions to the guest behind a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._faults: set[str] = set()

    def ask(self, command: str, timeout: float) -> tuple[int, str]:
        """Exit status and output of a shell command; ``OSError`` if none comes."""
        return self._console.run(command, timeout)

    def run(self, command: str, timeout: float = COMMAND_TIMEOUT) -> str:
        """What a shell command in the guest says; ``LabError`` if it fails."""
        status, said = self.ask(command, timeout)
        if status != 0:
            raise LabError(f"guest: {command}: {status}: {said.strip()}")
        return said.strip()

    def succeeds(self, command: str) -> bool:
        """Whether a shell command in the guest ends with 0."""
        return self.ask(command, COMMAND_TIMEOUT)[0] == 0

    def new_faults(self) -> set[str]:
        """What the guest's kernel counted or said, since last asked, and should not."""
        shown = self.run(
            f"cat {COUNTERS} /proc/net/snmp; dmesg | grep -E '{COMPLAINTS}' || true"
        )
        dropped, wrong, *lines = shown.splitlines()
        found = {f"rx_dropped {dropped}", f"rx_errors {wrong}"}
        rows = [line.split() for line in lines if line.startswith(("Tcp:", "Udp:"))]
        for names, values in zip(rows[::2], rows[1::2], strict=True):
            checksums = values[names.index("InCsumErrors")]
            found.add(f"wrong checksums, {names[0]} {checksums}")
        found |= {line for line in lines if line.startswith("[")}
        found = {fault for fault in found if not fault.endswith(" 0")}
        new, self._faults = found - self._faults, found
        return new

    def forget_faults(self) -> None:
        """It boots, and counts from nothing."""
        self._faults = set()

    def background(self, command: str) -> None:
        """Start something in the guest that stays."""
        self.run(f"{command} >/dev/null 2>&1 &")

    def wait(self, command: str, what: str) -> None:
        """Wait until a shell command in the guest ends with 0."""
        wait_until(lambda: self.succeeds(command), POLL_TIMEOUT, what)

    def wait_bound(self, kind: str, port: int) -> None:
        """Wait until something in the guest has this ``tcp`` or ``udp`` port."""
        rows = f"cat /proc/net/{kind} /proc/net/{kind}6"
        self.wait(f"{rows} | grep -q ':{port:04X} 0.*:0000 '", f"{kind} {port}")

    def told(self, event: str) -> Mapping[str, str]:
        """What a DHCP client's script was told when this happened."""
        lines = self.run(f"cat /run/notes/{event}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def take_lease(self) -> None:
        """Let the guest configure itself for IPv4."""
        self.run("udhcpc -i eth0 -n -q -t 20 -s /etc/configure -O search -O mtu")

    def wait_address6(self) -> None:
        """Wait until the guest's kernel has configured itself for IPv6."""
        shown = "ip -6 addr show dev eth0 scope global"
        self.wait(f"{shown} | grep inet6 && ! {shown} | grep tentative", "IPv6")
