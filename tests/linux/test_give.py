"""What is given to another user is what lies there, and never what a link or a second name leads to."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.linux.give import give, is_directory, is_file, is_socket

NOBODY = 65534


def whose(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory that nobody is to be given, with a file in it."""
    directory = tmp_path / "victim"
    directory.mkdir()
    (directory / "file").touch()
    return directory


def test_files_directories_and_sockets_are_given(tmp_path: Path) -> None:
    file, directory, bound = tmp_path / "file", tmp_path / "directory", tmp_path / "socket"
    file.touch()
    directory.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(bound))
        give(file, NOBODY, NOBODY, is_file)
        give(directory, NOBODY, -1, is_directory)
        give(bound, -1, NOBODY, is_socket)
    assert [whose(path) for path in (file, directory, bound)] == [(NOBODY, NOBODY), (NOBODY, 0), (0, NOBODY)]
    give(file, NOBODY, -1, is_file)
    assert whose(file) == (NOBODY, NOBODY)


def test_a_link_to_a_directory_is_followed_if_it_is_roots(tmp_path: Path, victim: Path) -> None:
    for name, target in (("absolute", victim), ("relative", Path("victim"))):
        (tmp_path / name).symlink_to(target)
        give(tmp_path / name, NOBODY, NOBODY, is_directory)
        assert (whose(victim), whose(tmp_path / name)) == ((NOBODY, NOBODY), (0, 0))
        os.chown(victim, 0, 0)


def anothers(place: Path, victim: Path) -> None:
    place.symlink_to(victim)
    os.chown(place, NOBODY, NOBODY, follow_symlinks=False)


def roots_to_anothers(place: Path, victim: Path) -> None:
    anothers(place.with_name("second"), victim)
    place.symlink_to("second")


def to_a_file(place: Path, victim: Path) -> None:
    place.symlink_to(victim / "file")


@pytest.mark.parametrize("plant", [anothers, roots_to_anothers, to_a_file])
def test_any_other_link_is_given_to_nobody(tmp_path: Path, victim: Path, plant: Callable[[Path, Path], None]) -> None:
    plant(tmp_path / "place", victim)
    with pytest.raises(OSError) as refused:
        give(tmp_path / "place", NOBODY, NOBODY, is_directory)
    assert refused.value.errno in (errno.ELOOP, errno.EINVAL)
    assert whose(victim) == whose(victim / "file") == (0, 0)


def test_a_file_that_is_a_link_or_has_a_second_name_is_given_to_nobody(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to(victim / "file")
    (tmp_path / "second").hardlink_to(victim / "file")
    for place in (tmp_path / "link", tmp_path / "second", victim):
        with pytest.raises(OSError) as refused:
            give(place, NOBODY, NOBODY, is_file)
        assert refused.value.errno in (errno.ELOOP, errno.EINVAL)
    assert whose(victim / "file") == (0, 0)
