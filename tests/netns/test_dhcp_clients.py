# SPDX-License-Identifier: GPL-2.0-or-later
"""Real clients configure a guest that we did not: ISC dhclient, udhcpc, the kernel.

Each test has a guest of its own and a client whose script applies what it was told,
writes it down, and so lets the guest talk to the remote.
"""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.lab import (
    GATEWAY4,
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    Lab,
    Namespace,
    Process,
    exchange,
    tcp_echo,
    wait_until,
)
from tests.lab.translators import Passtpy

IFNAME = "tap0"
OUR_LINK_LOCAL = "fe80::9855:9aff:fe55:9a55"
FREE4, FREE6 = "198.51.100.77", "2001:db8:2::77"
DNS4, DNS6 = "192.0.2.53", "2001:db8:1::53"
SEARCH = ("lab.example.com", "example.com")
TOLD = [
    *("--dhcp-dns", "--dns", DNS4, "--dns", DNS6),
    *("--dhcp-search", "--search", " ".join(SEARCH)),
    *("--hostname", "guest", "--fqdn", "guest.example.com"),
]
PATIENCE = 60.0
INFINITE = str(0xFFFFFFFF)

# Applies what the client was told, whatever the client calls it, and notes it.
SCRIPT = """\
#!/bin/sh
event=${1:-$reason}
set -e
case $event in
bound|renew)
	new_ip_address=$ip new_prefix=$mask new_routers=$router ;;
BOUND|RENEW|REBIND|REBOOT)
	new_prefix=$new_subnet_mask ;;
esac
if [ -n "$new_ip_address" ]; then
	ip addr replace "$new_ip_address/$new_prefix" dev "$interface"
	ip route replace "$new_routers" dev "$interface"
	ip route replace default via "$new_routers" dev "$interface"
fi
if [ -n "$new_ip6_address" ]; then
	ip addr replace "$new_ip6_address/$new_ip6_prefixlen" dev "$interface"
fi
env > "$NOTES/.$event"
mv "$NOTES/.$event" "$NOTES/$event"
"""

CONFIG = """\
initial-delay 0;
send dhcp-client-identifier "the guest";
send fqdn.fqdn "guest";
send fqdn.encoded on;
request subnet-mask, routers, domain-name-servers, domain-search, host-name,
	interface-mtu, dhcp-renewal-time, dhcp-rebinding-time, fqdn.fqdn,
	dhcp6.name-servers, dhcp6.domain-search, dhcp6.fqdn;
"""

OLD_LEASE = f"""\
lease {{
  interface "{IFNAME}";
  fixed-address {FREE4};
  option subnet-mask 255.255.255.0;
  option dhcp-server-identifier {GATEWAY4};
  renew 4 2037/01/01 00:00:00;
  rebind 4 2037/01/01 00:00:00;
  expire 4 2037/01/01 00:00:00;
}}
"""


class Client:
    """A guest with a link and nothing else, and a place for what its clients note."""

    def __init__(self, lab: Lab, guest: Namespace, folder: Path) -> None:
        self.lab = lab
        self.guest = guest
        self.folder = folder
        self.lease = folder / "leases"
        self.script = folder / "script"
        self.script.write_text(SCRIPT)
        self.script.chmod(0o755)
        self.config = folder / "dhclient.conf"
        self.config.write_text(CONFIG)
        self.lease.touch()

    def start(self, *argv: str) -> Process:
        env = {"NOTES": str(self.folder)}
        return self.lab.start(self.guest, *argv, env=env)

    def dhclient(self, *options: str) -> Process:
        files = ["-sf", str(self.script), "-lf", str(self.lease)]
        files += ["-cf", str(self.config), "-pf", str(self.folder / "pid")]
        files += ["-e", f"NOTES={self.folder}", "-e", "PATH=/usr/sbin:/usr/bin:/sbin"]
        return self.start("dhclient", *options, "-d", *files, IFNAME)

    def udhcpc(self, *options: str) -> Process:
        script = ["-s", str(self.script), "-i", IFNAME]
        return self.start("busybox", "udhcpc", "-f", "-n", *script, *options)

    def told(self, event: str) -> Mapping[str, str]:
        """What a client's script was told when this happened."""
        path = self.folder / event
        wait_until(path.exists, PATIENCE, event)
        lines = path.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def wait_kept(self) -> None:
        """Wait until dhclient has written its lease, after the script was told."""
        kept = lambda: self.lease.read_text().endswith("}\n")  # noqa: E731
        wait_until(kept, PATIENCE, "a lease in its file")

    def wait_link_local(self) -> None:
        def usable() -> bool:
            shown = self.guest.ip("-6", "addr", "show", "dev", IFNAME, "scope", "link")
            return "fe80::" in shown and "tentative" not in shown

        wait_until(usable, PATIENCE, "a link-local address")

    def talks_to(self, remote: str) -> bool:
        with (
            tcp_echo(self.lab.remote, remote) as server,
            self.guest.connect(remote, server.port) as sock,
        ):
            return exchange(sock, b"hello") == b"hello"


@contextmanager
def serving(lab: Lab, folder: Path, *extra: str) -> Iterator[Client]:
    """A guest with the daemon behind its link, which nobody has configured."""
    guest = lab.guest()
    argv = [Passtpy().program, "-f", "-d", "--netns", str(guest.path), "-I", IFNAME]
    for option in ("-t", "-u", "-T", "-U"):
        argv += [option, "none"]
    process = lab.start(lab.host, *argv, *extra)

    def ready() -> bool:
        assert process.running(), process.complaint()
        return "namespace.ready" in process.stderr()

    wait_until(ready, PATIENCE, "the daemon")
    guest.ip("link", "set", IFNAME, "up")
    try:
        yield Client(lab, guest, folder)
        assert process.running(), process.complaint()
    finally:
        process.stop()


def test_dhclient_takes_a_lease_and_uses_it(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path, "-m", "1400", *TOLD) as client:
        client.dhclient("-4", "-1")
        told = client.told("BOUND")
        assert told["new_ip_address"] == HOST4
        assert told["new_subnet_mask"] == "255.255.255.0"
        assert told["new_routers"] == GATEWAY4
        assert told["new_dhcp_server_identifier"] == GATEWAY4
        assert told["new_domain_name_servers"] == DNS4
        assert told["new_domain_search"].split() == [f"{name}." for name in SEARCH]
        assert told["new_host_name"] == "guest"
        assert told["new_interface_mtu"] == "1400"
        assert told["new_dhcp_lease_time"] == INFINITE
        assert told["new_dhcp_renewal_time"] == "300"
        assert told["new_fqdn_fqdn"].rstrip(".") == "guest.example.com"
        assert client.talks_to(REMOTE4)


def test_dhclient_that_remembers_another_address_is_refused(
    lab: Lab, tmp_path: Path
) -> None:
    with serving(lab, tmp_path) as client:
        client.lease.write_text(OLD_LEASE)
        process = client.dhclient("-4", "-1", "-v")
        assert client.told("BOUND")["new_ip_address"] == HOST4
        assert "DHCPNAK" in process.stderr()


def test_dhclient_releases_and_asks_again(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path) as client:
        first = client.dhclient("-4", "-1")
        client.told("BOUND")
        client.wait_kept()
        first.stop()
        client.dhclient("-4", "-r").wait(PATIENCE)
        client.told("RELEASE")
        (tmp_path / "BOUND").unlink()
        client.dhclient("-4", "-1")
        assert client.told("BOUND")["new_ip_address"] == HOST4


def test_dhclient_reboots_into_its_lease(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path) as client:
        first = client.dhclient("-4", "-1")
        client.told("BOUND")
        client.wait_kept()
        first.stop()
        client.dhclient("-4", "-1")
        assert client.told("REBOOT")["new_ip_address"] == HOST4


def test_udhcpc_takes_a_lease_and_uses_it(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path, *TOLD) as client:
        client.udhcpc("-q", "-O", "search", "-O", "mtu", "-F", "guest")
        told = client.told("bound")
        assert (told["ip"], told["mask"]) == (HOST4, "24")
        assert (told["router"], told["serverid"]) == (GATEWAY4, GATEWAY4)
        assert (told["dns"], told["search"]) == (DNS4, " ".join(SEARCH))
        assert (told["hostname"], told["lease"]) == ("guest", INFINITE)
        assert client.talks_to(REMOTE4)


def test_udhcpc_finds_the_address_free_before_it_takes_it(
    lab: Lab, tmp_path: Path
) -> None:
    with serving(lab, tmp_path) as client:
        client.udhcpc("-q", "-a")  # probes by ARP; declines when there is an answer
        assert client.told("bound")["ip"] == HOST4


def test_udhcpc_is_told_of_a_gateway_beyond_its_network(
    lab: Lab, tmp_path: Path
) -> None:
    far = "203.0.113.1"
    with serving(lab, tmp_path, "-g", far, "-a", HOST4, "-n", "32") as client:
        client.udhcpc("-q", "-O", "staticroutes")
        told = client.told("bound")
        assert told["staticroutes"] == f"{far}/32 0.0.0.0 0.0.0.0/0 {far}"
        assert client.talks_to(REMOTE4)


def test_udhcpc_renews_and_releases(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path) as client:
        process = client.udhcpc("-R")
        client.told("bound")
        (udhcpc,) = [pid for pid in process.tree() if _runs(pid, "busybox")]
        client.guest.run("kill", "-USR1", str(udhcpc))
        assert client.told("renew")["ip"] == HOST4
        (tmp_path / "deconfig").unlink()  # of the beginning
        client.guest.run("kill", "-USR2", str(udhcpc))
        client.told("deconfig")


def _runs(pid: int, name: str) -> bool:
    with suppress(OSError):  # it has ended, as scripts do
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    return False


def test_guest_that_was_configured_may_ask_all_the_same(
    lab: Lab, tmp_path: Path
) -> None:
    with serving(lab, tmp_path, "--config-net") as client:
        client.udhcpc("-q")
        assert client.told("bound")["ip"] == HOST4


def test_no_dhcp_means_none(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path, "--no-dhcp") as client:
        assert client.udhcpc("-q", "-t", "2", "-T", "1").wait(PATIENCE) == 1


def test_dhclient_6_takes_a_lease_and_uses_it(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path, *TOLD) as client:
        client.wait_link_local()
        client.dhclient("-6", "-1")
        told = client.told("BOUND6")
        assert told["new_ip6_address"] == HOST6
        assert told["new_dhcp6_name_servers"] == DNS6
        assert told["new_dhcp6_domain_search"].split() == [f"{n}." for n in SEARCH]
        assert told["new_max_life"] == told["new_preferred_life"] == INFINITE
        wait_until(
            client.guest.has_route6, PATIENCE, "a way out by router advertisement"
        )
        assert client.talks_to(REMOTE6)


def test_dhclient_6_commits_rapidly(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path) as client:
        client.wait_link_local()
        client.config.write_text(CONFIG + "send dhcp6.rapid-commit;\n")
        process = client.dhclient("-6", "-1", "-v")
        assert client.told("BOUND6")["new_ip6_address"] == HOST6
        assert "XMT: Request" not in process.stderr()


def test_dhclient_6_confirms_and_releases(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path) as client:
        client.wait_link_local()
        first = client.dhclient("-6", "-1")
        client.told("BOUND6")
        client.wait_kept()
        first.stop()
        (tmp_path / "BOUND6").unlink()
        second = client.dhclient("-6", "-1", "-v")
        client.told("BOUND6")
        assert "XMT: Confirm" in second.stderr()
        second.stop()
        third = client.dhclient("-6", "-r", "-v")
        third.wait(PATIENCE)
        assert "XMT: Release" in third.stderr()


def test_dhclient_6_asks_for_information_only(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path, *TOLD) as client:
        client.wait_link_local()
        client.dhclient("-6", "-S", "-1")
        told = client.told("RENEW6")
        assert told["new_dhcp6_name_servers"] == DNS6
        assert "new_ip6_address" not in told


def test_kernel_configures_itself_by_router_advertisement(
    lab: Lab, tmp_path: Path
) -> None:
    with serving(lab, tmp_path, "-m", "1400") as client:
        guest = client.guest
        wait_until(guest.has_route6, PATIENCE, "stateless configuration")
        assert f"default via {OUR_LINK_LOCAL}" in guest.ip("-6", "route")
        assert "2001:db8:2:0:" in guest.ip("-6", "addr", "show", "dev", IFNAME)
        with guest.entered():
            mtu = Path(f"/proc/sys/net/ipv6/conf/{IFNAME}/mtu").read_text()
        assert mtu.strip() == "1400"
        assert client.talks_to(REMOTE6)


def test_router_advertisement_brings_resolvers(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path, *TOLD) as client:
        client.wait_link_local()
        shown = client.guest.run("rdisc6", "-1", "-w", "10000", IFNAME).stdout
        assert f"Recursive DNS server     : {DNS6}" in shown
        assert f"DNS search list          : {' '.join(SEARCH)}" in shown
        assert "Stateful address conf.    :          Yes" in shown


def test_kernel_finds_free_addresses_free_and_ours_taken(
    lab: Lab, tmp_path: Path
) -> None:
    with serving(lab, tmp_path) as client:
        guest = client.guest
        client.wait_link_local()
        for addr, times in ((FREE6, "1"), (OUR_LINK_LOCAL, "30")):
            # Each is a second in which to answer, which ends it
            guest.sysctl(f"net.ipv6.conf.{IFNAME}.dad_transmits", times)
            guest.ip("addr", "add", f"{addr}/64", "dev", IFNAME)
        show = ("-6", "addr", "show", "dev", IFNAME)

        def settled() -> bool:
            lines = guest.ip(*show).splitlines()
            return not any("tentative" in ln and "failed" not in ln for ln in lines)

        wait_until(settled, PATIENCE, "the end of address detection")
        failed = [line for line in guest.ip(*show).splitlines() if "dadfailed" in line]
        assert [shlex.split(line)[1] for line in failed] == [f"{OUR_LINK_LOCAL}/64"]


@pytest.mark.parametrize(
    ("addr", "times", "status"), [(FREE4, "2", 0), (GATEWAY4, "30", 1)]
)
def test_arping_finds_free_addresses_free_and_ours_taken(
    lab: Lab, tmp_path: Path, addr: str, times: str, status: int
) -> None:
    """It asks once a second, and an answer ends it."""
    with serving(lab, tmp_path) as client:
        often = ("-c", times, "-w", times)
        argv = ("busybox", "arping", "-D", *often, "-I", IFNAME, addr)
        assert client.guest.run(*argv, check=False).returncode == status
