# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the program where the kernel refuses one call of ours.

    refused.py CALL ERRNO WORDS OF passtpy-pasta OR passtpy-passt

CALL is a function of passtpy._native.
"""

import os
import sys

from passtpy import __main__ as program
from passtpy import _native

_, name, error, *words = sys.argv


def refuse(*arguments: object) -> None:
    raise OSError(int(error), os.strerror(int(error)))


setattr(_native, name, refuse)
sys.argv = [f"passtpy-{words[0]}", *words[1:]]
sys.exit(getattr(program, words[0])())
