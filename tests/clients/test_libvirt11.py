# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt 11 in an ordinary user's session starts our passt, or a script around it."""

import pytest

from tests.clients.conftest import OTHER, PORT
from tests.lab import HOST4, REMOTE4, Lab, exchange
from tests.netns.program import wait_for
from tests.netns.rootless import RootlessUser
from tests.qemu import image as images
from tests.qemu.image import Image
from tests.qemu.virsh import SHARED, Domain

ADDRESS = "198.51.100.9"
INTERFACE = """
<interface type='{kind}'>
  <backend type='passt' logFile='{home}/run/passt.log'/>
  <mac address='52:54:00:12:34:56'/>
  <source dev='eth0'/>
  <ip family='ipv4' address='{address}' prefix='24'/>
  <model type='virtio'/>
  <portForward proto='tcp'><range start='2222' to='22'/></portForward>
</interface>
"""
# As KubeVirt describes it, but for the log's place
KUBEVIRT = """
<interface type='{kind}'>
  <alias name='ua-default'/>
  <model type='virtio-non-transitional'/>
  <source dev='eth0'/>
  <backend type='passt' logFile='{home}/run/passt.log'/>
  <portForward proto='tcp'><range start='15001' exclude='yes'/><range start='2222'/>
  </portForward>
  <portForward proto='udp'/>
</interface>
"""
ECHO = f"echo outside | nc {REMOTE4} {{}}"
KINDS = pytest.mark.parametrize(
    ("kind", "memory"),
    [("user", ""), ("vhostuser", SHARED)],
    ids=["user", "vhostuser"],
)


@pytest.fixture(scope="module")
def image() -> Image:
    reason = images.why_missing()
    if reason is not None:
        pytest.skip(reason)
    return images.build()


@KINDS
@pytest.mark.parametrize("form", [INTERFACE, KUBEVIRT], ids=["libvirt", "kubevirt"])
def test_a_machine_has_its_network(
    lab: Lab, user: RootlessUser, image: Image, kind: str, memory: str, form: str
) -> None:
    user.offer("passt")
    interface = form.format(kind=kind, home=user.home, address=ADDRESS)
    domain = Domain(user, image, interface, memory=memory)
    domain.boot()
    domain.take_lease()
    address = ADDRESS if form == INTERFACE else HOST4
    assert f"inet {address}/24" in domain.run("ip addr show eth0")
    assert domain.run(ECHO.format(PORT)) == "outside"
    inside = 22 if form == INTERFACE else 2222
    domain.background(f"nc -l -p {inside} -e cat")
    domain.wait_bound("tcp", inside)
    with lab.remote.connect(HOST4, 2222) as sock:
        assert exchange(sock, b"published") == b"published"
    call = user.calls.read_text()
    assert call.startswith("--vhost-user --one-off" if memory else "--one-off")
    assert domain.destroy().returncode == 0
    domain.close()
    wait_for(lambda: not lab.host.is_bound("tcp", 2222), "--one-off ends it")


@KINDS
def test_a_script_of_this_name_adds_a_policy(
    user: RootlessUser, image: Image, kind: str, memory: str
) -> None:
    user.offer("passt", "--policy", str(user.home / "policy.toml"))
    interface = INTERFACE.format(kind=kind, home=user.home, address=ADDRESS)
    domain = Domain(user, image, interface, memory=memory)
    domain.boot()
    domain.take_lease()
    assert domain.run(ECHO.format(PORT)) == "outside"
    assert not domain.succeeds(ECHO.format(OTHER))
    domain.destroy()
    domain.close()
