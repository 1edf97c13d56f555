# SPDX-License-Identifier: GPL-2.0-or-later
"""Explains what a daemon with certain options would do, without one."""

from collections.abc import Sequence
from typing import Any

from passtpy.client.connect import ClientError, WrongUse
from passtpy.config.cli import parse_passt, parse_pasta, wants_vhost_user
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.ports import ephemeral_ports
from passtpy.config.resolver import NO_RESOLVER, Resolver
from passtpy.config.view import View
from passtpy.errors import InformationRequest, PasstpyError
from passtpy.net.host.resolv import UnusableError, read_resolver
from passtpy.net.kernel.listen import kernel_has_ipv6
from passtpy.net.namespace.guest import for_machine
from passtpy.policy.decide import Decider
from passtpy.policy.question import QuestionError, answer, read_question
from passtpy.policy.rules import rules_from_view

PARSERS = {"pasta": parse_pasta, "passt": parse_passt}


def _resolver() -> Resolver:
    """Return what a daemon would find; it does without what cannot be read."""
    try:
        return read_resolver() or NO_RESOLVER
    except (UnusableError, OSError):
        return NO_RESOLVER


def explain_offline(
    words: Sequence[str], origin: str, proto: str, src: str | None, dst: str
) -> dict[str, Any]:
    """Return the answer that `words`, a command line of pasta or passt, would give."""
    program = words[0].removeprefix("passtpy-") if words else ""
    if program not in PARSERS:
        raise WrongUse("behind -- stands pasta or passt, and its options")
    if wants_vhost_user(words[1:]):
        program = "passt"  # as the programs themselves do
    try:
        config = PARSERS[program](
            words[1:], program, ephemeral_ports(), kernel_has_ipv6
        )
        host = for_machine(config).host
    except InformationRequest as request:
        raise ClientError(request.text) from None
    except PasstpyError as error:
        raise ClientError(str(error)) from None
    view = View.of(config, host, _resolver())
    guest = GuestAddresses.from_host(host)
    decider = Decider(rules_from_view(view), guest)
    try:
        miss = read_question(origin, proto, src, dst, guest, view)
    except QuestionError as error:
        raise WrongUse(str(error)) from None
    return answer(decider, miss)
