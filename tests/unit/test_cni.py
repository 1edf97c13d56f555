# SPDX-License-Identifier: GPL-2.0-or-later
"""The CNI specification's own tables: parameters, versions of commands, error codes."""

import json
from typing import Any

import pytest

from passtpy import cni
from passtpy.config.cni import VERSIONS, CniError

CONFIG = {"cniVersion": "1.1.0", "name": "net", "type": "passtpy-cni"}
ENVIRONMENT = {
    "CNI_CONTAINERID": "pod1",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/nowhere",
    "CNI_PATH": "/opt/cni/bin",
}


def code(command: str, document: Any = CONFIG, **environment: str | None) -> int:
    """The code with which a command is refused."""
    changed = {**ENVIRONMENT, "CNI_COMMAND": command, **environment}
    left = {key: value for key, value in changed.items() if value is not None}
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(CniError) as caught:
        cni.run(left, text)
    return caught.value.code


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("ADD", ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"]),
        ("CHECK", ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"]),
        ("DEL", ["CNI_CONTAINERID", "CNI_IFNAME"]),
    ],
)
def test_what_a_command_needs_is_missed(command: str, needed: list[str]) -> None:
    for key in needed:
        assert code(command, **{key: None}) == 4
        assert code(command, **{key: ""}) == 4


def test_a_command_is_needed() -> None:
    for command in ("", "add", "UPDATE"):
        assert code(command) == 4


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({**CONFIG, "cniVersion": "0.2.0"}, 1),
        ({**CONFIG, "cniVersion": "2.0.0"}, 1),
        ({**CONFIG, "ipam": {"type": "host-local"}}, 2),
        ("{", 6),
        ("[]", 6),
        ({**CONFIG, "name": "a/b"}, 7),
    ],
)
def test_a_configuration_is_refused_by_its_code(document: Any, expected: int) -> None:
    for command in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        assert code(command, document) == expected


def test_an_unsupported_field_is_told_with_its_value() -> None:
    environment = {**ENVIRONMENT, "CNI_COMMAND": "ADD"}
    document = {**CONFIG, "ipam": {"type": "host-local"}}
    with pytest.raises(CniError, match=r'ipam: \{"type": "host-local"\}'):
        cni.run(environment, json.dumps(document))


@pytest.mark.parametrize(
    ("command", "since"), [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")]
)
def test_a_version_has_not_the_commands_of_later_ones(command: str, since: str) -> None:
    for version in VERSIONS[: VERSIONS.index(since)]:
        assert code(command, {**CONFIG, "cniVersion": version}) == 1


@pytest.mark.parametrize("asked", ["0.3.1", "1.0.0", "1.1.0", "9.9.9"])
def test_versions_are_told_in_the_version_of_the_question(asked: str) -> None:
    question = json.dumps({"cniVersion": asked})
    answer = cni.run({"CNI_COMMAND": "VERSION"}, question)
    assert answer == {"cniVersion": asked, "supportedVersions": [*VERSIONS]}


def test_versions_are_told_to_who_says_nothing() -> None:
    answer = cni.run({"CNI_COMMAND": "VERSION"}, "")
    assert answer is not None
    assert answer["cniVersion"] == "1.1.0"


def test_the_hosts_own_network_is_not_attached() -> None:
    for command in ("ADD", "CHECK"):
        assert code(command, CNI_NETNS="/proc/self/ns/net") == 4
