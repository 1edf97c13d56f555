# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host does with a frame before it looks at the packet in it."""


def unpadded(frame: bytes) -> bytes:
    """Cut off what Ethernet added to a packet, as a host does."""
    match frame[12:14], frame[14:]:
        case b"\x08\x00", packet:
            return frame[: 14 + int.from_bytes(packet[2:4])]
        case b"\x86\xdd", packet:
            return frame[: 54 + int.from_bytes(packet[4:6])]
        case b"\x08\x06", _:
            return frame[:42]
        case _:
            return frame
