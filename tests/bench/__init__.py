# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark: several translators on the same work, compared in one run."""
