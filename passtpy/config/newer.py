# SPDX-License-Identifier: GPL-2.0-or-later
"""How we compare with the passt and pasta of July 2026: the last table of the page.

Most of what changed there since March 2026 has no option of its own, and so no row in
the other tables. differences.py puts them all together.
"""

from typing import Final

NEWER: Final = """
## Since March 2026

What passt and pasta of July 2026 (`2026_07_16`) do otherwise than those of March.
*same*: we do as the newer ones. *otherwise*: on purpose, for the reason told.

| What | | Here |
|---|---|---|
| `-a` in brackets, or as `::ffff:A.B.C.D/96+N`; *Invalid guest address*, *Invalid \
prefix length* | same | a length that is no number is a wrong length as well |
| `-a` pins the guest: inbound flows go there, whatever it uses | same | per family; \
its link-local address is followed all the same |
| `-m ''`; junk behind the number of `-F`, `--log-size`, `-n` | same | errors |
| `-D` is read with all other options, the ports after them in the order of the line |\
 same | all of it before anything is touched |
| `-6` on a kernel without IPv6 | same | an error; without `-6` IPv4 alone is left, in\
 silence |
| `--host-lo-to-ns-lo` keeps 127.0.0.5, `-T` and `-U` both addresses of a flow | same \
| and so `auto` counts a server at any loopback address where the client may ask for \
it |
| `--host-lo-to-ns-lo --no-splice` | same | refused |
| `--no-tcp`, `--no-udp` without `none` for that protocol's ports | otherwise | \
starts: there they refuse their own default of `auto` |
| `--chroot-fallback` | same | without it we start, with a line, where they end |
| Port specifications: places, targets, `auto` and `all` among ranges, mixed modes | \
same | |
| `-t all,33000` | same | 33000 alone, as they do, not as their manual says |
| `1234::1/80`, and `80:fd00::2/81` | same | the second is an address, too, but of no \
network that exists: it is read as a port and a target |
| Messages of rules, their order and second line | same | |
| The same port on two interfaces | otherwise | no conflict: the kernel tells them \
apart |
| `-T`, `-U` where devices cannot be bound | otherwise | one rule with two sockets, \
and no warning |
| A port that cannot be had ends the opening of its table | otherwise | the start \
fails as there; a running daemon keeps what it had |
| A rule with an IPv6 target, from `::1` | otherwise | the guest sees an address of \
ours that is routed, if there is one: nothing link-local gets behind it |
| A rule with a target and `--splice-only` | same | the client is refused |
| A datagram to a group or to 255.255.255.255 at a forwarded port | same | keeps that \
destination; what `--multicast-relay` gives to the guest comes once |
| `-c`: a client waits for the one before | otherwise | all are served at once |
| `-c`: an update closes all ports, and opens the new ones | otherwise | those that \
stay are never closed; what cannot be had is told, and nothing is changed then |
| `-c`: a table left out becomes empty | same | it is the whole new state |
| `pesto -t` also empties UDP | otherwise | only what was asked for |
| `pesto` ends with 0 when a port could not be had | otherwise | ours waits for the \
answer, says the reason, and ends with 1 |
| Summary: configuration socket, outbound addresses, tables, where sockets are bound |\
 same | |
| At most 5 similar messages in 2 s | same | per event, not per place in the code; as \
JSON in fields |
| Datagrams without a flow, SYNs from bad addresses, lost fragments | otherwise | \
counted, not logged: `passtpy stats` |
| A guest's datagram from a multicast address | same | dropped |
| `auto` of UDP looks at TCP, too | same | |
| IPv4 frames longer than their datagram | same | trimmed |
| DHCP options 0 and 255 | same | |
| DHCPv6 answers | same | to who asked, from our link-local address |
| Neighbours of a busy host | same | read without numbers that could be unexpected |
| vhost-user checksums of the guest | same | offered; computed unless negotiated |
| Half-closed spliced connections, refused flows, windows | same | see \
[tcp.md](tcp.md) |
"""
