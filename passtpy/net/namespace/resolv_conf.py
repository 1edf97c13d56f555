# SPDX-License-Identifier: GPL-2.0-or-later
"""Gives a command an /etc/resolv.conf of its own, in its mount namespace.

Who has a policy answers for names, so the command has to ask here, and not whom the
host's files and sockets lead to. The host sees none of this.
"""

import os
from contextlib import suppress
from typing import Final

from passtpy import _native
from passtpy.net.namespace.guest import Guest

PATH: Final = "/etc/resolv.conf"
# Through these, C libraries ask the host's resolver past every network
ASIDE: Final = ("/run/systemd/resolve", "/run/nscd", "/run/avahi-daemon")
_STAGE: Final = ("/mnt", "/media", "/srv", "/opt")  # to make a file in, for a moment
_MS_BIND: Final = 0x1000
_SAFE: Final = 0x2 | 0x4 | 0x8  # nosuid, nodev, noexec


def own_resolv_conf(got: Guest) -> None:
    """Have the command ask the gateway; SetupError: it would ask somebody else."""
    text = content(got)
    real = os.path.realpath(PATH)
    covered = [folder for folder in ASIDE if os.path.isdir(folder)]
    for folder in covered:
        _native.mount("tmpfs", folder, "tmpfs", _SAFE, "mode=755,size=64k")
    if any(real.startswith(f"{folder}/") for folder in covered):
        os.makedirs(os.path.dirname(real), exist_ok=True)
        _write(real, text)
    else:
        _bind_over(real, text)


def content(got: Guest) -> str:
    """Return the text of the file: we answer whoever is asked, so that is the gateway.

    A search list would be names that nobody allowed, so there is none.
    """
    gateway4, gateway6 = got.host.gateway4, got.host.gateway6
    servers = [] if gateway4 is None else [str(gateway4)]
    if gateway6 is not None:
        scope = f"%{got.ifname}" if gateway6.is_link_local else ""
        servers.append(f"{gateway6}{scope}")
    return "".join(f"nameserver {server}\n" for server in servers)


def _bind_over(real: str, text: str) -> None:
    """Put a file in the place of another, which there has to be."""
    for stage in _STAGE:
        if not os.path.isdir(stage) or real.startswith(f"{stage}/"):
            continue
        _native.mount("tmpfs", stage, "tmpfs", _SAFE, "mode=755,size=64k")
        try:
            made = f"{stage}/resolv.conf"
            _write(made, text)
            _native.mount(made, real, None, _MS_BIND)
        finally:
            with suppress(OSError):
                _native.umount(stage)
        return
    raise FileNotFoundError(f"no folder of {', '.join(_STAGE)} to make {PATH} in")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, 0o644)
