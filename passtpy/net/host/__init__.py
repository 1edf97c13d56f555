# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the host's network, and plans what the guest shall have of it."""
