# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows about what the guest may reach. What they mean is read where it is used."""

from functools import partial

from passtpy.config import draft as do
from passtpy.config import values
from passtpy.config.amounts import rate_of
from passtpy.config.option import G_POLICY, Option

ROWS: tuple[Option, ...] = (
    Option(
        ("--policy",),
        G_POLICY,
        do.path("policy", "Invalid policy"),
        "let the guest reach only what this file allows: see docs/policy.md",
        "FILE",
        "everything",
    ),
    Option(
        ("--allow",),
        G_POLICY,
        do.policy_word("allow"),
        "let the guest reach this, and nothing that no rule allows (repeatable)",
        "NAME|CIDR|@SET[:PORTS][/PROTO]",
    ),
    Option(
        ("--deny",),
        G_POLICY,
        do.policy_word("deny"),
        "refuse this; tried with --allow in the order of the line, before the file",
        "NAME|CIDR|@SET[:PORTS][/PROTO]",
    ),
    Option(
        ("--policy-mode",),
        G_POLICY,
        do.field("policy_mode", values.read_policy_mode),
        "enforce, or observe: tell what would be refused, and let it pass",
        "MODE",
        "as the file says, or enforce",
    ),
    Option(
        ("--audit",),
        G_POLICY,
        do.path("audit", "Invalid audit file"),
        "write what is refused to this file, as JSON lines, or to journald",
        "FILE|journald",
    ),
    Option(
        ("--learn",),
        G_POLICY,
        do.path("learn", "Invalid file"),
        "let everything pass, and at the end write the smallest policy that allows"
        " what was done; - is standard output",
        "FILE",
    ),
    Option(
        ("--rate-in",),
        G_POLICY,
        do.field("rate_in", partial(rate_of, "--rate-in")),
        "let no more bits a second reach the guest, all flows together: 10M, 20 MB/s",
        "RATE",
        "any number",
    ),
    Option(
        ("--rate-out",),
        G_POLICY,
        do.field("rate_out", partial(rate_of, "--rate-out")),
        "let no more bits a second leave it",
        "RATE",
        "any number",
    ),
)
