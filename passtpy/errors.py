# SPDX-License-Identifier: GPL-2.0-or-later
"""Every exception that passtpy raises on purpose.

One file, so that the outermost caller can tell apart what it must print and how it
must exit without importing the layers that raise.
"""


class PasstpyError(Exception):
    """The root of everything raised on purpose."""


class ConfigError(PasstpyError):
    """A bad option: one line on stderr, exit status 1."""


class UsageError(ConfigError):
    """The command line itself is malformed: the line, then `usage`, exit status 1."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class PolicyError(ConfigError):
    """A policy that is wrong: where, and what was expected there."""


class InformationRequest(PasstpyError):
    """--help or --version was reached: print `text` on stdout, exit status 0."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class WireError(PasstpyError):
    """A frame that cannot be parsed; its sender is to blame, never us."""


class SetupError(PasstpyError):
    """The environment lacks something we need: one line on stderr, exit status 1."""
