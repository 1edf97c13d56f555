# SPDX-License-Identifier: GPL-2.0-or-later
"""What container runtimes say to the CNI plugin, and what becomes of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from passtpy.config import cni
from passtpy.config.cni import Attachment, CniError, read_attachment, read_network

POD = Attachment("pod1", "eth0", "/run/netns/pod1")
BASE = {"cniVersion": "1.1.0", "name": "lan", "type": "passtpy-cni"}
ENVIRONMENT = {"CNI_CONTAINERID": "pod1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/"}


def words(args: str = "", /, **more: Any) -> list[str]:
    return read_network(json.dumps({**BASE, **more})).words(POD, args)


def refused(text: str) -> CniError:
    with pytest.raises(CniError) as caught:
        read_network(text).words(POD, "")
    return caught.value


def test_a_pod_has_a_network_and_no_ports_of_its_own() -> None:
    said = words()
    assert said[:6] == [
        *("--config-net", "--netns", "/run/netns/pod1"),
        *("--ns-ifname", "eth0", "--name"),
    ]
    assert said[6:] == [
        "cni-pod1-eth0",
        *("-T", "none", "-U", "none"),
        *("--tcp-ports", "none", "--udp-ports", "none"),
    ]


def test_ports_of_the_runtime_are_forwarded() -> None:
    mappings = [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "::1"},
        {"hostPort": 443, "containerPort": 443},
    ]
    said = words(runtimeConfig={"portMappings": mappings})
    assert said[11:] == [
        *("--tcp-ports", "8080:80"),
        *("--udp-ports", "::1/53:5353"),
        *("--tcp-ports", "443:443"),
    ]


def test_names_of_a_mapping_are_written_large_or_small() -> None:
    """containerd has no names of its own for JSON, so that Go makes them of its own."""
    mapping = {"HostPort": 80, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": ""}
    said = words(runtimeConfig={"portMappings": [mapping]})
    assert said[11:13] == ["--tcp-ports", "80:8080"]


@pytest.mark.parametrize("nothing", [None, []])
def test_what_go_writes_for_nothing_is_nothing(nothing: Any) -> None:
    said = words(runtimeConfig={"portMappings": nothing}, dns=None, options=nothing)
    assert said == words()


def test_options_follow_and_may_not_lose_the_daemon() -> None:
    assert words(options=["--dns-forward", "192.0.2.53"])[-1] == "192.0.2.53"
    for option in ("--pid=/tmp/x", "-P", "--netns", "-f", "--name"):
        error = refused(json.dumps({**BASE, "options": [option]}))
        assert (error.code, option in str(error)) == (cni.BAD_CONFIG, True)


def test_a_pod_names_its_policy_only_where_it_may(tmp_path: Path) -> None:
    (tmp_path / "web.toml").write_text("")
    (tmp_path / "strict.toml").write_text("")
    strict = str(tmp_path / "strict.toml")
    asked = {cni.ANNOTATIONS: {cni.POLICY_ANNOTATION: "web"}}
    chosen: dict[str, Any] = {"policy": strict, "runtimeConfig": asked}
    assert words(**chosen)[-2:] == ["--policy", strict]
    chosen["policies"] = str(tmp_path)
    assert words(**chosen)[-2:] == ["--policy", str(tmp_path / "web.toml")]
    args = "IgnoreUnknown=1;PASSTPY_POLICY=strict"
    assert words(args, **chosen)[-2:] == ["--policy", strict]
    assert words(policies=str(tmp_path), policy=strict)[-1] == strict


@pytest.mark.parametrize("name", ["../../etc/shadow", "a/b", "", ".hidden", "x" * 200])
def test_a_policy_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    asked = {cni.ANNOTATIONS: {cni.POLICY_ANNOTATION: name}}
    document = {**BASE, "policies": str(tmp_path), "runtimeConfig": asked}
    assert refused(json.dumps(document)).code == cni.BAD_CONFIG


def test_a_policy_that_is_not_there_attaches_nothing() -> None:
    document = {**BASE, "policy": "/nonexistent/policy.toml"}
    assert "there is no such file" in str(refused(json.dumps(document)))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", cni.UNDECODABLE),
        ("[1]", cni.UNDECODABLE),
        ("{}", cni.INCOMPATIBLE),
        ('{"cniVersion": "0.1.0", "name": "lan"}', cni.INCOMPATIBLE),
        ('{"cniVersion": "1.1.0"}', cni.BAD_CONFIG),
        ('{"cniVersion": "1.1.0", "name": "../x"}', cni.BAD_CONFIG),
        (json.dumps({**BASE, "ipam": {"type": "host-local"}}), cni.UNSUPPORTED),
        (json.dumps({**BASE, "options": "--debug"}), cni.BAD_CONFIG),
        (json.dumps({**BASE, "options": [1]}), cni.BAD_CONFIG),
        (json.dumps({**BASE, "runtimeConfig": []}), cni.BAD_CONFIG),
        (
            json.dumps({**BASE, "runtimeConfig": {"portMappings": [{"hostPort": 1}]}}),
            cni.BAD_CONFIG,
        ),
        (
            json.dumps({**BASE, "runtimeConfig": {"portMappings": ["80:80"]}}),
            cni.BAD_CONFIG,
        ),
    ],
)
def test_what_is_wrong_has_a_code(text: str, code: int) -> None:
    assert refused(text).code == code


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "../pod"),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "x" * 16),
        ("CNI_NETNS", "/nonexistent"),
    ],
)
def test_names_become_paths_and_are_checked(key: str, value: str) -> None:
    with pytest.raises(CniError) as caught:
        read_attachment({**ENVIRONMENT, key: value}, netns=True)
    assert caught.value.code == cni.BAD_ENVIRONMENT
    assert key in str(caught.value)


def test_dashes_in_names_confuse_nobody() -> None:
    one, other = Attachment("a-b", "c", ""), Attachment("a", "b-c", "")
    assert one.name != other.name
    assert [Attachment.called(each.name) for each in (one, other)] == [one, other]


def test_an_end_needs_no_namespace() -> None:
    gone = {**ENVIRONMENT, "CNI_NETNS": ""}
    assert read_attachment(gone, netns=False) == Attachment("pod1", "eth0", "")


def test_what_is_still_attached() -> None:
    document = {**BASE, cni.VALID: [{"containerID": "pod1", "ifname": "eth0"}]}
    assert read_network(json.dumps(document)).valid() == {("pod1", "eth0")}


def test_addresses_of_an_earlier_answer() -> None:
    before = {"ips": [{"address": "192.0.2.2/24", "interface": 0}]}
    assert read_network(json.dumps({**BASE, "prevResult": before})).addresses() == [
        "192.0.2.2/24"
    ]
    broken = read_network(json.dumps({**BASE, "prevResult": {"ips": [{}]}}))
    with pytest.raises(CniError):
        broken.addresses()
