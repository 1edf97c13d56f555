# SPDX-License-Identifier: GPL-2.0-or-later
"""Hours of coming and going: whether what daemons hold returns to its start.

    make soak                   # an hour
    make soak SOAK_SECONDS=90

Everybody who comes goes again (deeds.py), for as long as is asked, in rounds. After
each round nobody is there, and what daemons still hold is read (held.py): flows,
descriptors and memory. The first round is for what is made once.
"""
