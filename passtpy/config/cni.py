# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what a container runtime tells a CNI plugin, and writes pasta's words of it.

The runtime speaks by environment variables and by a JSON document, the network's
configuration (CNI specification 1.1, sections 1 and 2). Whatever it says is checked:
names become parts of paths.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from passtpy.record import record

VERSIONS: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
COMMANDS: Final = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
# The first version of the specification that has a command; others all have
SINCE: Final = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
OWN_NETNS: Final = "/proc/self/ns/net"
POLICY_ANNOTATION: Final = "passtpy/policy"
ANNOTATIONS: Final = "io.kubernetes.cri.pod-annotations"
VALID: Final = "cni.dev/valid-attachments"
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,127}")
_IFNAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,14}")
_BETWEEN: Final = "@"
_SHORT: Final = 40  # of a container's name in an instance's, which has 63 in all
_PROTOCOLS: Final = {"tcp": "--tcp-ports", "udp": "--udp-ports"}
# Options that are ours: how we find the daemon again, and the runtime its network
_OWN: Final = ("netns", "ns-ifname", "I", "pid", "P", "name", "foreground", "f")

# Error codes of the specification, section 2
INCOMPATIBLE: Final = 1
UNSUPPORTED: Final = 2
BAD_ENVIRONMENT: Final = 4
IO_FAILURE: Final = 5
UNDECODABLE: Final = 6
BAD_CONFIG: Final = 7
TRY_AGAIN: Final = 11
NOT_AVAILABLE: Final = 50
# Ours begin at 100
NOT_AS_ADDED: Final = 100


class CniError(Exception):
    """A failure as a plugin tells it: a code, a line, and what else is known."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.details = details


@record
class Attachment:
    """An interface of a container; `netns` is a path, or empty if it is gone."""

    container: str
    ifname: str
    netns: str

    @property
    def name(self) -> str:
        """What tells it from all others: both names, and what neither may have."""
        return f"{self.container}{_BETWEEN}{self.ifname}"

    @classmethod
    def called(cls, name: str) -> "Attachment":
        """The one with this name, without its namespace."""
        container, _, ifname = name.partition(_BETWEEN)
        return cls(container, ifname, "")

    @property
    def instance(self) -> str:
        """What its daemon is called."""
        return f"cni-{self.container[:_SHORT]}-{self.ifname}"


Given = TypeVar("Given", str, list[Any], dict[str, Any])


def _given(document: Mapping[str, Any], key: str, otherwise: Given) -> Given:
    value = document.get(key)
    if value is None:
        return otherwise
    if not isinstance(value, type(otherwise)):
        kind = type(otherwise).__name__
        raise CniError(BAD_CONFIG, f"{key}: {kind} expected")
    return value


class Network:
    """A network's configuration, of which each question is asked once."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.version = str(document.get("cniVersion", ""))
        if self.version not in VERSIONS:
            known = ", ".join(VERSIONS)
            said = f"cniVersion {self.version!r} is not one of {known}"
            raise CniError(INCOMPATIBLE, said)
        self.name = document.get("name", "")
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise CniError(BAD_CONFIG, f"{self.name!r} cannot be a network's name")
        ipam = self._given("ipam", {})
        if ipam.get("type"):
            said = f"ipam: {json.dumps(ipam)}: the guest gets the host's addresses"
            raise CniError(UNSUPPORTED, said)

    def check_command(self, command: str) -> None:
        """CniError for a command that the specification of its version has not."""
        since = SINCE.get(command, VERSIONS[0])
        if VERSIONS.index(self.version) < VERSIONS.index(since):
            said = f"cniVersion {self.version} has no {command}, which came in {since}"
            raise CniError(INCOMPATIBLE, said)

    def _given(self, key: str, otherwise: Given) -> Given:
        """A field, of the type of what it is otherwise; null is as if left out."""
        return _given(self.document, key, otherwise)

    def valid(self) -> set[tuple[str, str]]:
        """What is still attached, as container and interface (for GC)."""
        found: set[tuple[str, str]] = set()
        for each in self._given(VALID, []):
            if not isinstance(each, dict):
                raise CniError(BAD_CONFIG, f"{VALID}: objects expected")
            found.add((str(each.get("containerID")), str(each.get("ifname"))))
        return found

    def addresses(self) -> list[str]:
        """What an earlier ADD gave, as ADDRESS/LENGTH (for CHECK)."""
        before = self._given("prevResult", {})
        try:
            return [str(each["address"]) for each in _given(before, "ips", [])]
        except (KeyError, TypeError):
            raise CniError(BAD_CONFIG, "prevResult: addresses expected") from None

    def dns(self) -> Mapping[str, Any]:
        """What the network's owner says about names, or nothing."""
        return self._given("dns", {})

    def words(self, attachment: Attachment, args: str) -> list[str]:
        """The options of the daemon, but for its files."""
        words = ["--config-net", "--netns", attachment.netns]
        words += ["--ns-ifname", attachment.ifname, "--name", attachment.instance]
        words += ["-T", "none", "-U", "none"]
        words += self._ports()
        policy = self._policy(args)
        if policy:
            words += ["--policy", policy]
        options: list[Any] = self._given("options", [])
        for each in options:
            if not isinstance(each, str) or each.split("=")[0].lstrip("-") in _OWN:
                raise CniError(BAD_CONFIG, f"options: {each!r} is not for you to say")
        return words + options

    def _ports(self) -> Iterator[str]:
        """Yield options for the ports of the runtime, or none at all of a kind."""
        runtime = self._given("runtimeConfig", {})
        left = dict.fromkeys(_PROTOCOLS.values())
        asked: list[Any] = _given(runtime, "portMappings", [])
        for each in asked:
            try:
                # containerd says HostPort, podman hostPort: Go sees no difference
                mapping = {str(key).lower(): value for key, value in each.items()}
                option = _PROTOCOLS[str(mapping.get("protocol") or "tcp").lower()]
                ports = f"{int(mapping['hostport'])}:{int(mapping['containerport'])}"
            except (KeyError, ValueError, TypeError, AttributeError):
                said = f"portMappings: {each!r} is not understood"
                raise CniError(BAD_CONFIG, said) from None
            host = mapping.get("hostip")
            yield from (option, f"{host}/{ports}" if host else ports)
            left.pop(option, None)
        for option in left:
            yield from (option, "none")

    def _policy(self, args: str) -> str | None:
        """The policy's path: the one that the pod names, where it may, or ours."""
        folder = self._given("policies", "")
        named = self._named_policy(args) if folder else None
        if named is not None:
            if not _NAME.fullmatch(named):
                raise CniError(BAD_CONFIG, f"{named!r} cannot be a policy's name")
            path = os.path.join(folder, f"{named}.toml")
        else:
            path = self._given("policy", "")
        if path and not os.path.isfile(path):
            raise CniError(BAD_CONFIG, f"policy {path}: there is no such file")
        return path or None

    def _named_policy(self, args: str) -> str | None:
        annotations = _given(self._given("runtimeConfig", {}), ANNOTATIONS, {})
        for pair in args.split(";"):
            key, _, value = pair.partition("=")
            if key == "PASSTPY_POLICY" and value:
                return value
        named = annotations.get(POLICY_ANNOTATION)
        return None if named is None else str(named)


def read_network(text: str | bytes) -> Network:
    """Read the configuration that the runtime writes on standard input."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CniError(
            UNDECODABLE, "the configuration is no JSON", str(error)
        ) from None
    if not isinstance(document, dict):
        raise CniError(UNDECODABLE, "the configuration is no object")
    return Network(document)


def read_attachment(environment: Mapping[str, str], *, netns: bool) -> Attachment:
    """Read which interface of which container is meant; `netns` must be said or not."""
    container = environment.get("CNI_CONTAINERID", "")
    ifname = environment.get("CNI_IFNAME", "")
    path = environment.get("CNI_NETNS", "")
    if not _NAME.fullmatch(container):
        raise CniError(BAD_ENVIRONMENT, f"CNI_CONTAINERID: {container!r}")
    if not _IFNAME.fullmatch(ifname):
        raise CniError(BAD_ENVIRONMENT, f"CNI_IFNAME: {ifname!r}")
    if netns and not os.path.exists(path):
        raise CniError(BAD_ENVIRONMENT, f"CNI_NETNS: {path!r} is not there")
    # A runtime's mistake would take the host off its network
    if netns and os.path.samefile(path, OWN_NETNS):
        raise CniError(BAD_ENVIRONMENT, f"CNI_NETNS: {path!r} is the host's")
    return Attachment(container, ifname, path)
