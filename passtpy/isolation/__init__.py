# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes away, from each process of ours, whatever it no longer needs.

`stages.py` has the stages in their order; what each is made of stands beside it.
"""
