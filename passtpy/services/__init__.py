# SPDX-License-Identifier: GPL-2.0-or-later
"""Responders that make the guest believe it sits on a normal network (sans-IO)."""
