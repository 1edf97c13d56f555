# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers the guest's DNS questions: from zones of our own, a cache, or the host's."""
