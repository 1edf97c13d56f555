# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that people type to ask and to change a running daemon."""
