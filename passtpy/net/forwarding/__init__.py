# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the sockets on which flows begin, and keeps them in step with both sides."""
