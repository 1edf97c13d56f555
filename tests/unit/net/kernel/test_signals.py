# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals, as signalfd packs them."""

import struct

from passtpy.net.kernel import signals


def test_a_signal_tells_whether_the_kernel_sent_it() -> None:
    record = struct.Struct("=IiiI112x")
    data = record.pack(2, 0, 0x80, 0) + record.pack(15, 0, 0, 77)
    assert signals.parse_signals(data) == [
        signals.Signal(2, True),
        signals.Signal(15, False),
    ]
