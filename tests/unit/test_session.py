# SPDX-License-Identifier: GPL-2.0-or-later
"""What a session imports, and when it must not any more."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from passtpy.config.model import RunAs
from passtpy.isolation import stages
from passtpy.session import Session


def test_who_has_ended_waits_for_no_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []

    def imports() -> Iterator[str]:
        for name in ("one", "two"):
            imported.append(name)
            yield name

    monkeypatch.setattr(stages, "leave_files", lambda user, may_chroot: None)
    monkeypatch.setattr(stages, "lock", lambda: None)
    monkeypatch.setattr(stages, "restrict", lambda process, may_signal: None)
    session: Any = Session.__new__(Session)
    session._user = RunAs(65534, 65534)
    session._imports = imports()
    session._config = SimpleNamespace(
        icmp=False,
        chroot_fallback=False,
        target=None,
        for_machine=False,
        log_files=1,
    )
    session._datapath = None
    told: list[str] = []
    session._files = SimpleNamespace(
        log=SimpleNamespace(import_no_more=lambda: told.append("log")),
        start_writing=lambda _: None,
    )
    ended = iter((False, True))
    assert not session.load_rest(lambda: next(ended))
    assert imported == ["one"]
    session.isolate(SimpleNamespace(plan=None), lambda: True)  # it left us something
    assert imported == ["one", "two"]
    assert told == ["log"]
