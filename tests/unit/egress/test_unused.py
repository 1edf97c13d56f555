# SPDX-License-Identifier: GPL-2.0-or-later
"""Without a policy nothing of it is loaded."""

from tests.unit.fresh import said

SCRIPT = """
import passtpy.controlled, passtpy.daemon, passtpy.datapath, passtpy.lifecycle
import passtpy.net.following.follow, passtpy.policy.question, passtpy.policy.recheck
import passtpy.services.registry, sys
from passtpy.config.cli import parse_pasta
parse_pasta(["--config-net", "true"])
for name in sys.modules:
    if name.startswith(("passtpy.egress", "passtpy.policed", "tomllib")):
        print(name)
"""


def test_a_daemon_without_a_policy_loads_nothing_of_it() -> None:
    assert said(SCRIPT) == ""
