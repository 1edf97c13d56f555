# SPDX-License-Identifier: GPL-2.0-or-later
"""Creates the datapath of a guest, before there is anything that runs it."""

import os
from typing import Final, Literal

from passtpy._native import Datapath as Datapath
from passtpy._native import Gone, Miss, Punt, Said
from passtpy.addr import NO_MAC, UNSPECIFIED, inany
from passtpy.config.model import Config, UdpFilter
from passtpy.config.view import View
from passtpy.flow import PuntKind
from passtpy.net.kernel.interfaces import index_of
from passtpy.net.namespace.guest import Guest
from passtpy.net.namespace.tap import QUEUE_FRAMES

_ND_SOLICITATION: Final = 135
_ND_SOURCE: Final = slice(22, 38)  # of an IPv6 packet, in an Ethernet frame
_ND_TYPE: Final = 54

Records = tuple[Miss | Punt | Said | Gone, ...]


def open_datapath(view: View, got: Guest, tap_fd: int, pcap_fd: int) -> Datapath:
    """Create the datapath of a guest; it takes over the tap. No capture: -1.

    A machine has no tap: its socket is attached when it comes.
    """
    config = view.config
    datapath = Datapath(
        tap_fd,
        backend=_backend(config),
        mtu=config.mtu or got.mtu,
        our_mac=config.our_mac,
        guest_mac=got.host.guest_mac or NO_MAC,
        vnet_hdr=not config.for_machine,
        offloads=got.offloads,
        queue_frames=QUEUE_FRAMES,
    )
    tell_host(datapath, view)
    if config.impair is not None:
        worse = config.impair
        ways = worse.outward.as_tuple(), worse.inward.as_tuple()
        datapath.impair(*ways, worse.seed)
    datapath.udp_strict = config.udp_filter is UdpFilter.ENDPOINT
    if config.outbound_if4 or config.outbound_if6:
        datapath.outbound_if(config.outbound_if4 or "", config.outbound_if6 or "")
    if pcap_fd >= 0:
        datapath.pcap(os.dup(pcap_fd))  # it closes its own; ours is to be synced
    return datapath


def tell_host(datapath: Datapath, view: View) -> None:
    """Tell what of the host's network matters to frames."""
    datapath.scope_id = index_of(view.host.template6)
    us4 = UNSPECIFIED if view.source4 is None else inany(view.source4)
    datapath.our_addrs(us4, inany(view.source6))


def _backend(config: Config) -> Literal["tun", "stream", "vhost"]:
    if not config.for_machine:
        return "tun"
    return "vhost" if config.vhost_user else "stream"


def wants_out(record: Miss | Punt | Said | Gone) -> bool:
    """Tell whether this is a packet that wants out, or asks for the way."""
    if isinstance(record, Punt):
        if record.kind == PuntKind.ND:  # not of the kernel, about itself
            frame = record.frame
            return frame[_ND_TYPE] == _ND_SOLICITATION and any(frame[_ND_SOURCE])
        return record.kind == PuntKind.ARP
    return isinstance(record, Miss)
