# SPDX-License-Identifier: GPL-2.0-or-later
"""The only package in which Python touches the kernel's network: all of it at start."""
