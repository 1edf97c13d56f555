# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of a real Datapath on a socketpair, with virtual time and without root."""
