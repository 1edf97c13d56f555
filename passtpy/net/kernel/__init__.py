# SPDX-License-Identifier: GPL-2.0-or-later
"""Speaks with the kernel: netlink, listening sockets, signals. Decides nothing."""
