# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets policy, limits and resolver take part in what the engine does, if there are any.

What a guest without them never needs is not even imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from passtpy.egress.model import Policy
    from passtpy.egress.source import PolicySource
    from passtpy.engine import Engine
    from passtpy.files import Files
    from passtpy.limiting import Limiting
    from passtpy.net.kernel.connecting import WriterLoop
    from passtpy.policed import Policed
    from passtpy.policy.decide import Decider


class Governed(NamedTuple):
    """What takes part."""

    policed: Policed | None = None
    limiting: Limiting | None = None


def govern(
    engine: Engine,
    decider: Decider,
    files: Files,
    loop: WriterLoop,
    source: PolicySource | None,
    policy: Policy | None,
) -> Governed:
    """Let them decide as well."""
    config, policed, limiting = engine.view.config, None, None
    if config.rate_in or config.rate_out or policy is not None:
        from passtpy.limiting import Limiting

        limiting = Limiting(engine.datapath, config, files.log)
    if source is not None and policy is not None and limiting is not None:
        from passtpy.policed import Policed

        told = files.audit, files.learn_fd
        policed = Policed(source, policy, engine, decider, files.log, *told)
        policed.limit_by(limiting)
    if config.dns_server or policed is not None:
        from passtpy.resolving import Resolving

        egress = None if policed is None else policed.egress
        resolving = Resolving(engine.view, loop, engine.send, egress)
        engine.answer_dns(resolving)
        if policed is not None:
            policed.connect_by(loop, resolving.find)
    return Governed(policed, limiting)
