# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest is told: by DHCP, by router advertisement, by DHCPv6, by DNS."""

from tests.lab import GATEWAY4, GATEWAY6, HOST4, HOST6
from tests.qemu.conftest import HOSTNAME, SEARCH
from tests.qemu.machine import VHOST_USER, Machine
from tests.qemu.nameserver import ADDRESS4, ADDRESS6, NAME

# 52:54:00:12:34:56 as RFC 4291, appendix A, makes an interface identifier of it
SLAAC = "2001:db8:2:0:5054:ff:fe12:3456/64"
MTU = 65520

CSUM, GUEST_CSUM = 0, 1
GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6 = 7, 8, 11, 12
MRG_RXBUF, VERSION_1 = 15, 32


def test_udhcpc_takes_a_lease(leased: Machine) -> None:
    told = leased.told("bound")
    assert (told["ip"], told["mask"]) == (HOST4, "24")
    assert (told["router"], told["serverid"]) == (GATEWAY4, GATEWAY4)
    assert told["dns"] == GATEWAY4  # the host's own is on its loopback
    assert told["mtu"] == str(MTU)


def test_udhcpc_learns_the_names(leased: Machine) -> None:
    told = leased.told("bound")
    assert told["hostname"] == HOSTNAME
    assert told["search"] == " ".join(SEARCH)


def test_kernel_makes_its_address_of_the_advertised_prefix(guest: Machine) -> None:
    assert SLAAC in guest.run("ip -6 addr show dev eth0 scope global")
    assert "default via fe80::" in guest.run("ip -6 route")


def test_dhclient_6_takes_a_lease(guest: Machine) -> None:
    files = "-sf /etc/configure -lf /run/leases -pf /run/dhclient.pid"
    guest.run("touch /run/leases")
    guest.run(f"dhclient -6 -1 -v -cf /dev/null {files} eth0")
    guest.run("kill $(cat /run/dhclient.pid)")
    assert guest.told("BOUND6")["new_ip6_address"] == HOST6
    assert f"{HOST6}/128" in guest.run("ip -6 addr show dev eth0")


def test_gateway_answers_pings(guest: Machine) -> None:
    guest.run(f"ping -c 3 -i 0.1 -w 30 {GATEWAY4}")
    guest.run(f"ping -c 3 -i 0.1 -w 30 {GATEWAY6}")


def test_names_are_resolved_by_the_host(leased: Machine) -> None:
    said = leased.run(f"nslookup {NAME}")
    assert f"Server:\t\t{GATEWAY4}" in said
    assert f"Address: {ADDRESS4}" in said
    assert f"Address: {ADDRESS6}" in said


def test_guest_takes_the_offloads_that_its_link_has(leased: Machine) -> None:
    bits = leased.run("cat /sys/class/net/eth0/device/features")
    offloads = {CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6}
    taken = {n for n in offloads if bits[n] == "1"}
    assert taken == (offloads if leased.link is VHOST_USER else set())
    assert bits[MRG_RXBUF] == bits[VERSION_1] == "1"
