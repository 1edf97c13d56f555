# SPDX-License-Identifier: GPL-2.0-or-later
"""How to look into a running daemon."""
