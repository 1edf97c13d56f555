# SPDX-License-Identifier: GPL-2.0-or-later
"""Has everything in Python that touches the kernel's network, room by room.

The rooms stand in an order: kernel, host, namespace, following, forwarding, machine.
Each uses itself and those before it.
"""
