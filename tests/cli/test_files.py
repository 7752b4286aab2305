"""The first declaration of a prefix: whole or not at all."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.cli.files import write_declaration
from agent.errors import StorageFailure
from agent.paths import Paths


def test_it_is_written_once(prefix: Path) -> None:
    paths = Paths.of(prefix)
    assert write_declaration(paths, "# first\n") is True
    assert write_declaration(paths, "# second\n") is False
    assert paths.declaration.read_text() == "# first\n"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_where_the_directory_is_another_groups_that_group_may_read_it(prefix: Path, umask: int) -> None:
    """As where an agent is installed, and root runs ``agentctl init``."""
    paths = Paths.of(prefix)
    paths.key.mkdir(parents=True)
    os.chown(paths.key, 0, 65534)
    before = os.umask(umask)
    try:
        write_declaration(paths, "")
    finally:
        os.umask(before)
    found = paths.declaration.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, 65534, 0o640)


def test_among_ones_own_the_umask_counts(prefix: Path) -> None:
    before = os.umask(0o077)
    try:
        write_declaration(Paths.of(prefix), "")
    finally:
        os.umask(before)
    assert Paths.of(prefix).declaration.stat().st_mode & 0o7777 == 0o600


def test_a_declaration_that_stands_elsewhere_gets_its_directories_there(prefix: Path, tmp_path: Path) -> None:
    paths = Paths.of(prefix, tmp_path / "etc" / "env.toml")
    assert write_declaration(paths, "")
    assert (tmp_path / "etc" / "secrets").is_dir()
    assert not (prefix / "key").exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a full disk: nothing that is written may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_half_a_declaration_is_not_left_behind(prefix: Path) -> None:
    paths = Paths.of(prefix)
    with files_of_at_most(10), pytest.raises(StorageFailure, match=r"env\.toml: cannot be written: File too large"):
        write_declaration(paths, "# a declaration that is longer\n")
    assert not paths.declaration.exists()


def test_what_cannot_be_created_is_a_storage_failure(prefix: Path) -> None:
    with pytest.raises(StorageFailure, match="cannot be created: File name too long"):
        write_declaration(Paths.of(prefix, prefix / "key" / ("x" * 300)), "")
