"""Files as they are found on a disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.declaration.sources import LARGEST, Disk, Unreadable


def why_not(path: Path) -> str:
    with pytest.raises(Unreadable) as error:
        Disk().read(path)
    return str(error.value)


def test_a_file_is_read_as_utf8(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("é = 1\r\n".encode())
    assert Disk().read(tmp_path / "f") == "é = 1\r\n"


def test_what_is_no_readable_text_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"a\nb = '\xe9'")
    (tmp_path / "huge").write_bytes(b"#" * (LARGEST + 1))
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    assert why_not(tmp_path / "none") == "does not exist"
    assert why_not(tmp_path / "latin" / "x") == "does not exist"
    assert why_not(tmp_path) == "is a directory"
    assert why_not(tmp_path / "latin") == "is not UTF-8: byte 0xe9 on line 2; save it as UTF-8"
    assert why_not(tmp_path / "huge") == "is larger than 1048576 bytes"
    assert why_not(tmp_path / "fifo") == "is not a regular file"
    assert why_not(tmp_path / "loop") == "cannot be read: Too many levels of symbolic links"
    assert why_not(tmp_path / "nul\0") == "cannot be read: not a valid path"
    assert why_not(Path("/dev/zero")) == "is not a regular file"


def test_only_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    for path, missing in ((tmp_path / "none", True), (tmp_path, False)):
        with pytest.raises(Unreadable) as error:
            Disk().read(path)
        assert error.value.missing is missing


def test_projects_are_the_toml_files_in_order(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", ".hidden.toml", "a.toml~", "readme"):
        (tmp_path / name).touch()
    assert Disk().projects(tmp_path) == [tmp_path / "a.toml", tmp_path / "b.toml"]
    assert Disk().projects(tmp_path / "none") == []


def test_a_file_in_place_of_the_projects_is_not_overlooked(tmp_path: Path) -> None:
    (tmp_path / "projects").touch()
    with pytest.raises(Unreadable, match="is not a directory"):
        Disk().projects(tmp_path / "projects")


def test_a_secret_is_a_regular_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    assert Disk().objection(secret) == f"{secret} does not exist"
    secret.touch(mode=0o600)
    assert Disk().objection(secret) is None
    secret.chmod(0o640)
    assert Disk().objection(secret) == f"{secret} is open to others (mode 0640); chmod 0600 it"
    assert Disk().objection(tmp_path) == f"{tmp_path} is not a regular file"


def test_the_host_tells_its_name_and_memory() -> None:
    assert Disk().server() == os.uname().nodename
    assert Disk().memory() > 64 * 1024**2
