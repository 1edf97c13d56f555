# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs one target of Python under atheris, which is libFuzzer for Python.

python -m tests.fuzz.guided NAME [OPTIONS OF LIBFUZZER] [CORPUS...]
"""

import importlib
import sys

import atheris


def main(argv: list[str]) -> None:
    """Instrument what is imported from here on, and never return."""
    with atheris.instrument_imports(include=["passtpy", "tests.fuzz.targets"]):
        target = importlib.import_module(f"tests.fuzz.targets.{argv[1]}")
    atheris.Setup([argv[0], *argv[2:]], target.play)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
