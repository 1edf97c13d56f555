# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes or joins the guest's namespace, and has things done inside it."""
