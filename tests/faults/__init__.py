# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls and allocations that fail on request: what is left, and what goes on."""
