# SPDX-License-Identifier: GPL-2.0-or-later
"""Which flows may exist and where they go: pure functions, no I/O, no clock."""
