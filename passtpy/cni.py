# SPDX-License-Identifier: GPL-2.0-or-later
"""The program passtpy-cni: a container runtime has a pod's network made and ended.

It is a plugin as the CNI specification 1.1 describes them: called once for each step,
told everything by environment and standard input, and gone when it has answered. What
stays is one passtpy-pasta for each interface, with a PID file under its network.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, Final

from passtpy.addr import show_mac
from passtpy.config import cni
from passtpy.config.cni import Attachment, CniError, Network
from passtpy.config.instance import SUFFIX, runtime_folder
from passtpy.errors import SetupError
from passtpy.net.kernel.dump import Dump
from passtpy.net.kernel.netlink import open_socket
from passtpy.net.kernel.rtnl import RT_SCOPE_UNIVERSE, Interface, Link
from passtpy.net.namespace.netns import Namespaces, join

STATE: Final = "/run/passtpy/cni"  # a folder for each network, a PID file for each
_PID: Final = ".pid"
PATIENCE_MS: Final = 5000  # between SIGTERM and SIGKILL
_TUN: Final = "/dev/net/tun"
_DEFAULT: Final = {4: "0.0.0.0/0", 6: "::/0"}

Answer = dict[str, Any] | None


def main() -> int:
    """Carry out the command of CNI_COMMAND; 0, or 1 after an error's JSON."""
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    try:
        answer = run(os.environ, text)
    except CniError as error:
        _tell(_failure(text, error))
        return 1
    except OSError as error:
        _tell(_failure(text, CniError(cni.IO_FAILURE, str(error))))
        return 1
    if answer is not None:
        _tell(answer)
    return 0


def run(environment: Mapping[str, str], text: str) -> Answer:
    """Carry out one command; what to print, or CniError."""
    command = environment.get("CNI_COMMAND", "")
    if command == "VERSION":
        asked = _version(text)
        return {"cniVersion": asked, "supportedVersions": [*cni.VERSIONS]}
    if command not in cni.COMMANDS:
        raise CniError(cni.BAD_ENVIRONMENT, f"CNI_COMMAND: {command!r}")
    network = cni.read_network(text)
    network.check_command(command)
    if command == "STATUS":
        _status()
    elif command == "GC":
        _collect(network)
    else:
        needs_netns = command in ("ADD", "CHECK")
        attachment = cni.read_attachment(environment, netns=needs_netns)
        if command == "ADD":
            return _add(network, attachment, environment.get("CNI_ARGS", ""))
        if command == "CHECK":
            _check(network, attachment)
        else:
            _end(_pid_file(network, attachment))
    return None


def _tell(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer, indent=4) + "\n")


def _version(text: str) -> str:
    """The specification's version in which we are asked, and have to answer."""
    version = cni.VERSIONS[-1]
    with suppress(ValueError, AttributeError):
        version = str(json.loads(text).get("cniVersion", version))
    return version


def _failure(text: str, error: CniError) -> dict[str, Any]:
    told = {"cniVersion": _version(text), "code": error.code, "msg": str(error)}
    return {**told, "details": error.details} if error.details else told


# Files, and the processes that they name


def _pid_file(network: Network, attachment: Attachment) -> str:
    return os.path.join(STATE, network.name, attachment.name + _PID)


def _serving(path: str) -> int | None:
    """Open the process that a PID file names (a pidfd), if it is the one that wrote it.

    Its number may be another's by now: only ours was started with this very file.
    """
    try:
        with open(path) as file:
            pid = int(file.read())
        process = os.pidfd_open(pid)
    except (OSError, ValueError, OverflowError):
        return None
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        if os.fsencode(path) in file.read().split(b"\0"):
            return process
    os.close(process)
    return None


def _is_served(path: str) -> bool:
    process = _serving(path)
    if process is not None:
        os.close(process)
    return process is not None


def _end(path: str) -> None:
    """End who serves an interface, if anybody does, and forget it."""
    process = _serving(path)
    if process is not None:
        try:
            _kill(process)
        finally:
            os.close(process)
    left = [path]
    folder = runtime_folder()
    if folder is not None:  # the daemon, not root any more, could not remove it
        gone = Attachment.called(os.path.basename(path).removesuffix(_PID))
        left.append(os.path.join(folder, gone.instance + SUFFIX))
    for each in left:
        with suppress(FileNotFoundError):
            os.unlink(each)


def _kill(process: int) -> None:
    gone = select.poll()
    gone.register(process, select.POLLIN)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
        if gone.poll(PATIENCE_MS):
            return
    raise CniError(cni.TRY_AGAIN, "the daemon does not end")


# Commands


def _status() -> None:
    if not os.access(_TUN, os.R_OK | os.W_OK):
        raise CniError(cni.NOT_AVAILABLE, f"{_TUN} cannot be opened")


def _collect(network: Network) -> None:
    """End every daemon of the network whose interface is no longer wanted."""
    wanted = {
        Attachment(container, ifname, "").name + _PID
        for container, ifname in network.valid()
    }
    folder = os.path.join(STATE, network.name)
    with suppress(FileNotFoundError):
        for name in sorted(set(os.listdir(folder)) - wanted):
            _end(os.path.join(folder, name))


def _add(network: Network, attachment: Attachment, args: str) -> Answer:
    path = _pid_file(network, attachment)
    if _is_served(path):
        raise CniError(cni.BAD_ENVIRONMENT, f"{attachment.name} is attached already")
    words = network.words(attachment, args)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    _start([*words, "--pid", path])
    try:
        return _result(network, attachment)
    except BaseException:
        _end(path)
        raise


def _start(words: list[str]) -> None:
    """Start a daemon, which is in the background once it serves."""
    program = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "passtpy")
    if not os.path.exists(program):
        program = shutil.which("passtpy") or program
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [program, "pasta", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
        if done.returncode:
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
            raise CniError(cni.BAD_CONFIG, said.splitlines()[0] if said else "", said)


def _check(network: Network, attachment: Attachment) -> None:
    if not _is_served(_pid_file(network, attachment)):
        raise CniError(cni.NOT_AS_ADDED, f"nobody serves {attachment.name}")
    found = {str(each) for each in _addresses(*_look(attachment))}
    missing = [each for each in network.addresses() if each not in found]
    if missing:
        said = f"{attachment.ifname} has no address {', '.join(missing)}"
        raise CniError(cni.NOT_AS_ADDED, said)


# What was made


def _socket_inside(netns: str) -> socket.socket:
    """A netlink socket of the container's network namespace."""
    with open("/proc/self/ns/net", "rb") as home, open(netns, "rb") as there:
        join(Namespaces(there.fileno(), None))
        try:
            return open_socket()
        finally:
            join(Namespaces(home.fileno(), None))


def _look(attachment: Attachment) -> tuple[Link, Dump]:
    """Read the container's network; CniError if it lacks the interface."""
    try:
        dump = Dump(_socket_inside(attachment.netns))
    except (OSError, SetupError) as error:
        said = f"{attachment.netns}: {error}"
        raise CniError(cni.BAD_ENVIRONMENT, said) from error
    with closing(dump):
        for _ in dump.steps():
            pass
    for link in dump.links:
        if link.name == attachment.ifname:
            return link, dump
    raise CniError(cni.NOT_AS_ADDED, f"there is no interface {attachment.ifname}")


def _addresses(link: Link, dump: Dump) -> list[Interface]:
    """Its addresses, without those that are of the link alone."""
    return [
        each.address
        for each in dump.addresses
        if each.index == link.index and each.scope == RT_SCOPE_UNIVERSE
    ]


def _result(network: Network, attachment: Attachment) -> dict[str, Any]:
    """What ADD prints: the interface, its addresses and default routes."""
    link, dump = _look(attachment)
    gateways = {
        each.destination.version: each.gateway
        for each in dump.routes
        if each.is_default and each.oif == link.index and each.gateway
    }
    ips = []
    for address in _addresses(link, dump):
        ip: dict[str, Any] = {"address": str(address), "interface": 0}
        if address.version in gateways:
            ip["gateway"] = gateways[address.version]
        if network.version < "1":  # a field of the specification before 1.0
            ip["version"] = str(address.version)
        ips.append(ip)
    sandbox = {"mac": show_mac(link.mac), "sandbox": attachment.netns}
    return {
        "cniVersion": network.version,
        "interfaces": [{"name": attachment.ifname, **sandbox}],
        "ips": ips,
        "routes": [
            {"dst": _DEFAULT[version], "gw": gateway}
            for version, gateway in gateways.items()
        ],
        "dns": network.dns(),
    }
