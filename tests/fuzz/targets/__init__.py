# SPDX-License-Identifier: GPL-2.0-or-later
"""What is fuzzed of Python: play(data) of each module must return, whatever it gets.

It knows which exceptions are an answer; any other is a finding.
"""
