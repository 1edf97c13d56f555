# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line, and the validated truth that comes out of it."""
