"""Steps, done: whole or not at all, and over nothing that is not to be replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure, StorageFailure
from agent.installation.entry import Directory, File, Link
from agent.installation.perform import Site, perform
from agent.installation.record import Record, decode
from agent.installation.steps import (
    Begin,
    Declare,
    Discard,
    End,
    Make,
    Note,
    Point,
    Remove,
    RemoveDirectory,
    Step,
    Write,
)
from agent.installation.tree import digest
from tests.installation.image import snapshot, system

TEXT = b"contents"
DIGEST = "d1b2a59fbea7e20077af9f91b27e95e865061b270be03ff539ab3b73587882e8"


def do(image: Path, *steps: Step, **sources: bytes | Path) -> None:
    for _ in perform(steps, Site(image, "/srv", {"/srv/file": TEXT, **sources})):
        pass


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return system(tmp_path / "image")


def test_a_file_has_exactly_the_mode_and_owner_that_it_should(image: Path) -> None:
    os.chown(image / "srv", 0, 50)
    (image / "srv").chmod(0o2755)  # whatever is made in here would belong to that group
    before = os.umask(0o077)
    try:
        do(image, Write(File("/srv/file", "0644", DIGEST), replace=False), Make(Directory("/srv/directory")))
    finally:
        os.umask(before)
    for path, mode in (("srv/file", 0o644), ("srv/directory", 0o755)):
        status = (image / path).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, 0, 0)
    assert (image / "srv/file").read_bytes() == TEXT
    assert {path.name for path in (image / "srv").iterdir()} == {"file", "directory"}


def test_what_appeared_meanwhile_is_not_overwritten(image: Path) -> None:
    for step in (Write(File("/srv/file", "0644", DIGEST), replace=False), Point(Link("/srv/file", "x"), replace=False)):
        (image / "srv/file").write_text("theirs")
        with pytest.raises(StorageFailure, match="/srv/file: File exists"):
            do(image, step)
        assert (image / "srv/file").read_text() == "theirs"
        assert [path.name for path in (image / "srv").iterdir()] == ["file"], "nothing is left beside it"


def test_a_directory_is_not_replaced_by_a_file(image: Path) -> None:
    (image / "srv/file").mkdir()
    with pytest.raises(StorageFailure, match="/srv/file: Is a directory"):
        do(image, Write(File("/srv/file", "0644", DIGEST), replace=True))


def test_contents_that_are_not_what_they_should_be_are_not_put_in_place(image: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"others")
    (image / "srv/file").write_text("old")
    with pytest.raises(RuntimeFailure, match="/srv/file: what was to be put there changed while it was read"):
        do(image, Write(File("/srv/file", "0644", DIGEST), replace=True), **{"/srv/file": tmp_path / "source"})
    assert (image / "srv/file").read_text() == "old"
    assert [path.name for path in (image / "srv").iterdir()] == ["file"]


def test_a_scratch_that_somebody_planted_is_not_followed(image: Path) -> None:
    (image / "srv/.file.agentctl").symlink_to("/etc/passwd")
    before = (image / "etc/passwd").read_text()
    do(image, Write(File("/srv/file", "0644", DIGEST), replace=False))
    do(image, Point(Link("/srv/file", "elsewhere"), replace=True))
    assert (image / "srv/file").readlink() == Path("elsewhere")
    assert (image / "etc/passwd").read_text() == before


def test_a_link_points_elsewhere_from_one_moment_to_the_next(image: Path) -> None:
    do(image, Point(Link("/srv/current", "1"), replace=False))
    do(image, Point(Link("/srv/current", "2"), replace=True))
    assert (image / "srv/current").readlink() == Path("2")


@pytest.mark.parametrize("there", ["srv", "srv/lib", "srv/lib/agent"])
def test_the_record_appears_with_the_directories_that_lead_to_it(image: Path, there: str) -> None:
    (image / there).mkdir(parents=True, exist_ok=True)
    record = Record("/srv", laid=(Directory("/srv/lib"),))
    do(image, Begin(record))
    file = image / "srv/lib/agent/install.json"
    assert decode(file.read_bytes(), "/srv") == record
    assert stat.S_IMODE(file.stat().st_mode) == 0o644 and stat.S_IMODE(file.parent.stat().st_mode) == 0o755
    do(image, Note(Record("/srv")))
    assert decode(file.read_bytes(), "/srv") == Record("/srv")


@pytest.mark.parametrize("top", ["/srv/lib/agent", "/srv/lib", None])
def test_the_record_goes_with_the_directories_that_are_to_go(image: Path, top: str | None) -> None:
    do(image, Begin(Record("/srv")))
    do(image, End(top))
    left = {path for path in snapshot(image) if path.startswith("srv/")}
    assert left == {None: {"srv/lib", "srv/lib/agent"}, "/srv/lib/agent": {"srv/lib"}, "/srv/lib": set()}[top]


def test_what_is_gone_already_need_not_be_removed(image: Path) -> None:
    do(image, Remove("/srv/gone"), RemoveDirectory("/srv/gone"), Discard("/srv/gone"))


def test_a_directory_that_was_filled_meanwhile_stays(image: Path) -> None:
    (image / "srv/full/theirs").mkdir(parents=True)
    with pytest.raises(StorageFailure, match="/srv/full: Directory not empty"):
        do(image, RemoveDirectory("/srv/full"))


def test_a_declaration_needs_a_group_that_may_read_it(image: Path) -> None:
    with pytest.raises(RuntimeFailure, match="/srv/file: there is no group agent that could read it"):
        do(image, Declare("/srv/file", "agent"))
    (image / "etc/group").write_text("agent:x:990:\n")
    do(image, Declare("/srv/file", "agent"))
    status = (image / "srv/file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o640, 990)
    (image / "srv/file").write_text("mine")
    do(image, Declare("/srv/file", "agent"))
    assert (image / "srv/file").read_text() == "mine"
    assert [path.name for path in (image / "srv").iterdir()] == ["file"]


def test_the_digest_above_is_right(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(TEXT)
    assert digest(tmp_path / "file") == DIGEST
