# SPDX-License-Identifier: GPL-2.0-or-later
"""A listening UNIX socket: its mode, and what was at its place before."""

import os
import socket
import stat
from errno import ENOENT
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


def test_a_link_is_no_socket_wherever_it_leads(tmp_path: Path) -> None:
    path, far = tmp_path / "it", tmp_path / "far"
    path.symlink_to(far)
    with pytest.raises(OSError, match="it is there, and no socket"):
        opener(place(path))(80)
    opener(place(far))(80).close()  # nobody answers there
    with pytest.raises(OSError, match="it is there, and no socket"):
        opener(place(path))(80)
    assert (path.is_symlink(), far.is_socket()) == (True, True)


def test_a_name_is_taken_as_it_is_written(tmp_path: Path) -> None:
    """Text says little about where `..` leads behind a link."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    precious = tmp_path / "it"
    precious.touch()
    path = Path(f"{tmp_path}/link/../it")
    opener(place(path))(80).close()
    name = name_of(str(path))
    assert name is not None
    assert remove(name) == 0
    assert precious.exists()
    assert not (tmp_path / "deep" / "it").exists()


def test_a_name_may_begin_in_an_open_folder(tmp_path: Path) -> None:
    here, moved = tmp_path / "here", tmp_path / "moved"
    here.mkdir()
    (here / "it").touch()
    folder = os.open(here, os.O_PATH)
    name = name_of("it", folder)
    assert name is not None
    here.rename(moved)
    assert remove(name) == 0
    assert remove(name) == ENOENT
    assert os.listdir(moved) == []
    os.close(folder)
