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
        icmp=False, chroot_fallback=False, target=None, for_machine=False
    )
    session._datapath = None
    session._files = SimpleNamespace(start_writing=lambda _: None)
    ended = iter((False, True, True))
    session.isolate(SimpleNamespace(plan=None), lambda: next(ended))
    assert imported == ["one"]
