"""The drop-ins of jobs are laid whole and taken back whole, and nothing leads out of the root."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.installation.perform import Site
from agent.installation.timer_changes import forget, lay, remove
from agent.installation.timer_files import look, out_of_sync
from agent.installation.timers import JobUnits, render
from tests.installation.conftest import PATHS, declared, job, tree

PREFIX = PATHS.prefix
TEMPLATE = "/etc/systemd/system/agent-job@.timer"


def wanted(name: str = "job") -> JobUnits:
    return render(declared(job(name)), PREFIX)[name]


@pytest.fixture
def site(root: Path) -> Site:
    return Site(root, str(PREFIX))


def test_what_is_laid_is_found_again_and_enabled(root: Path, units: Path, site: Site) -> None:
    lay(site, "job", wanted(), TEMPLATE)
    assert tree(units) == {
        "agent-job@job.service.d/10-declaration.conf": wanted().service,
        "agent-job@job.timer.d/10-declaration.conf": wanted().timer,
        "timers.target.wants/agent-job@job.timer": "-> /etc/systemd/system/agent-job@.timer",
    }
    found = look(root, PREFIX)
    assert found.keys() == {"job"}
    assert found["job"].units == wanted()
    assert out_of_sync(declared(job()), PATHS, root) == []
    assert {oct(path.stat().st_mode & 0o777) for path in units.glob("*.d/*")} == {"0o644"}
    assert {oct(path.stat().st_mode & 0o777) for path in units.iterdir() if path.is_dir()} == {"0o755"}


def test_where_there_is_no_directory_yet_all_of_them_are_made(root: Path, units: Path, site: Site) -> None:
    before = os.umask(0o077)
    shutil.rmtree(root / "etc")
    try:
        lay(site, "job", wanted(), TEMPLATE)
    finally:
        os.umask(before)
    assert len(tree(units)) == 3
    assert {oct(path.stat().st_mode & 0o777) for path in units.rglob("*.d")} == {"0o755"}
    assert list(root.rglob(".*")) == []


def test_what_is_taken_back_leaves_nothing_of_ours_and_everything_of_others(units: Path, site: Site) -> None:
    lay(site, "job", wanted(), TEMPLATE)
    lay(site, "kept", wanted("kept"), TEMPLATE)
    (units / "agent-job@job.timer.d/override.conf").write_text("[Timer]\nAccuracySec=1h\n")
    for unfinished in ("0badcafe", "agentctl"):
        path = units / f"agent-job@job.service.d/.10-declaration.conf.{unfinished}"
        path.write_text("killed while it was written")
    remove(site, "job")
    remove(site, "job")
    left = tree(units)
    assert left.pop("agent-job@job.timer.d/override.conf")
    assert {name for name in left if "kept" not in name} == set()
    assert not (units / "agent-job@job.service.d").exists()


def test_a_file_that_is_replaced_is_whole_or_as_it_was(
    units: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(site, "job", wanted(), TEMPLATE)
    before = tree(units)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailure, match=r"^/etc/systemd/system/\S+: No space left on device$"):
        lay(site, "job", JobUnits("other", "other"), TEMPLATE)
    assert tree(units) == before


def test_only_the_stamp_of_that_job_is_forgotten(root: Path, site: Site) -> None:
    forget(site, "job")
    stamps = root / "var/lib/systemd/timers"
    stamps.mkdir(parents=True)
    for name in ("job", "kept"):
        (stamps / f"stamp-agent-job@{name}.timer").touch()
    forget(site, "job")
    forget(site, "job")
    assert [path.name for path in stamps.iterdir()] == ["stamp-agent-job@kept.timer"]


@pytest.mark.parametrize("link", ["timers.target.wants", "agent-job@job.timer.d", "agent-job@job.service.d"])
def test_no_link_has_anything_written_or_removed_outside_of_the_root(
    units: Path, site: Site, tmp_path: Path, link: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "10-declaration.conf").write_text("theirs")
    (outside / "agent-job@job.timer").write_text("theirs")
    (units / link).symlink_to(outside)
    with pytest.raises(StorageFailure):
        lay(site, "job", wanted(), TEMPLATE)
    remove(site, "job")
    assert tree(outside) == {"10-declaration.conf": "theirs", "agent-job@job.timer": "theirs"}
    assert (units / link).is_symlink()


@pytest.mark.parametrize("link", ["var", "var/lib/systemd", "var/lib/systemd/timers"])
def test_no_link_has_anything_forgotten_outside_of_the_root(root: Path, site: Site, tmp_path: Path, link: str) -> None:
    stamp = tmp_path / "outside/var/lib/systemd/timers/stamp-agent-job@job.timer"
    stamp.parent.mkdir(parents=True)
    stamp.touch()
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(tmp_path / "outside" / link)
    forget(site, "job")
    assert stamp.exists()
