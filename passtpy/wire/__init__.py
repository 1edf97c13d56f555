# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames as values: one file per protocol, each with parse(), emit() and __str__().

parse() is the only gate for hostile bytes: it raises WireError and nothing else.
emit() cannot fail on a value that could be built.
"""
