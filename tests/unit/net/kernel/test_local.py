# SPDX-License-Identifier: GPL-2.0-or-later
"""A listening UNIX socket: its mode, and what was at its place before."""

import socket
import stat
from pathlib import Path

import pytest

from passtpy.net.kernel.listen import Place, describe, opener
from passtpy.net.kernel.local import Name, name_of, remove


def place(path: Path, mode: int = 0o600) -> Place:
    return Place(6, path=str(path), mode=mode)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_it_listens_with_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "it"
    with opener(place(path, mode))(80) as sock:
        found = path.lstat().st_mode
        assert stat.S_ISSOCK(found)
        assert stat.S_IMODE(found) == mode
        assert not sock.getblocking()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            sock.accept()[0].close()
    assert describe(place(path), 80) == str(path)


def test_what_nobody_answers_at_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "it"
    opener(place(path))(80).close()
    assert path.is_socket()
    opener(place(path))(80).close()


def test_what_somebody_serves_does_not(tmp_path: Path) -> None:
    path = tmp_path / "it"
    with opener(place(path))(80), pytest.raises(OSError, match="it is in use"):
        opener(place(path))(80)


def test_what_is_no_socket_does_not(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_text("precious")
    with pytest.raises(OSError, match="it is there, and no socket"):
        opener(place(path))(80)
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory"):
        opener(place(tmp_path / "no" / "it"))(80)


def test_only_a_name_that_is_still_the_same_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.touch()
    name = name_of(str(path))
    assert name is not None
    other = Name(name.path, (name.identity[0], name.identity[1] + 1))
    remove(other)
    assert path.exists()
    remove(name)
    assert not path.exists()
    assert name_of(str(path)) is None
