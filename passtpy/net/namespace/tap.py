# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens a tap device in the current network namespace, with every offload there is.

With a virtio-net header and the offloads granted, the kernel neither segments nor
checksums between the guest and us. A kernel that grants less is no error: the
datapath does the rest itself, and is told what was granted.
"""

import os
from contextlib import suppress
from errno import EACCES, EBUSY, ENODEV, ENOENT, EPERM
from fcntl import ioctl
from struct import pack
from typing import Final

from passtpy.errors import SetupError
from passtpy.record import record

DEVICE: Final = "/dev/net/tun"

TUNSETIFF: Final = 0x400454CA
TUNSETPERSIST: Final = 0x400454CB
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETHDRSZ: Final = 0x400454D8

IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000

TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_TSO_ECN: Final = 0x08
TUN_F_USO4: Final = 0x20
TUN_F_USO6: Final = 0x40

_TSO: Final = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
ALL_OFFLOADS: Final = _TSO | TUN_F_USO4 | TUN_F_USO6
# Best first: kernels before 6.2 have no UDP segmentation.
OFFLOAD_CHOICES: Final = (ALL_OFFLOADS, _TSO, TUN_F_CSUM, 0)

VNET_HEADER_LEN: Final = 10  # struct virtio_net_hdr without the merge field
# Frames that may wait for us. Many flows at full window fit; when they do not, frames
# are lost, and each burst costs a reno or cubic guest a time-out.
QUEUE_FRAMES: Final = 16384

_REASONS: Final = {
    ENOENT: "no such device; load the tun module, or give the container the device",
    ENODEV: "no such device; load the tun module",
    EACCES: "permission denied; the device should be readable by everybody",
    EPERM: "operation not permitted; the namespace belongs to another user namespace",
}


@record
class Tap:
    """An open tap device."""

    fd: int
    name: str
    offloads: int  # TUN_F_* granted by the kernel


def open_tap(name: str) -> Tap:
    """Create the interface `name`; SetupError when that is impossible."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise SetupError(f"Couldn't open {DEVICE}: {reason}") from error
    try:
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        granted = ioctl(fd, TUNSETIFF, pack("16sH22x", os.fsencode(name), flags))
        ioctl(fd, TUNSETVNETHDRSZ, pack("=i", VNET_HEADER_LEN))
    except OSError as error:
        os.close(fd)
        reason = _REASONS.get(error.errno or 0, error.strerror)
        if error.errno == EBUSY:
            reason = "an interface of that name is in use"
        raise SetupError(f"Failed to create tap interface {name}: {reason}") from error
    real_name = os.fsdecode(granted[:16].rstrip(b"\0"))
    return Tap(fd, real_name, _set_offloads(fd))


def _set_offloads(fd: int) -> int:
    """Ask for as much as the kernel has; return what it granted."""
    for mask in OFFLOAD_CHOICES:
        try:
            ioctl(fd, TUNSETOFFLOAD, mask)
        except OSError:
            continue
        return mask
    return 0


def leave_to_namespace(fd: int) -> None:
    """Let the interface end with its namespace instead of with its descriptor.

    Closing the last descriptor waits for the interface to be taken down, a delay that
    a command which has ended need not see. The kernel removes namespaces on its own
    time.
    """
    with suppress(OSError):  # it is gone already
        ioctl(fd, TUNSETPERSIST, 1)
