# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the guest in step with a host whose network changes."""
