# SPDX-License-Identifier: GPL-2.0-or-later
"""Accepts virtual machines, and connects them with the datapath."""
