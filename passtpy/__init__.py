# SPDX-License-Identifier: GPL-2.0-or-later
"""User-mode networking for namespaces and virtual machines.

Only the version lives here, so that importing the package costs nothing.
"""

__version__ = "0.1.0"
