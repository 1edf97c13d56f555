# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing by coverage, of C with libFuzzer and of Python with atheris."""
