# SPDX-License-Identifier: GPL-2.0-or-later
"""What a session imports, and when it must not any more."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from passtpy import isolation
from passtpy.config.model import RunAs
from passtpy.session import Session


def test_what_cannot_be_read_any_more_is_not_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command has ended before all was imported, and Python is in a closed home."""
    imported: list[str] = []

    def imports() -> Iterator[str]:
        for name in ("one", "two"):
            imported.append(name)
            yield name

    monkeypatch.setattr(isolation, "can_be_read_later", lambda: False)
    monkeypatch.setattr(isolation, "become", lambda user: None)
    monkeypatch.setattr(isolation, "lock", lambda: None)
    later: list[object] = []
    session: Any = Session.__new__(Session)
    session._user = RunAs(65534, 65534)
    session._imports = imports()
    session._can_import = True
    session._config = SimpleNamespace(icmp=False)
    session._datapath = None
    session._files = SimpleNamespace(start_writing=lambda: None)
    session._loop = SimpleNamespace(call_soon=later.append)
    session._done = SimpleNamespace(done=lambda: False)
    ended = iter((False, True, True))
    session.isolate(SimpleNamespace(plan=None), lambda: next(ended))
    session._import_next()
    assert imported == ["one"]
    assert not later
