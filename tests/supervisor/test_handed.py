"""A scan is given the file of the budget, as its own descriptor, whatever lay in its place."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from agent.declaration.model import Command, Scan
from agent.paths import BUDGET_VARIABLE, Paths
from agent.supervisor.handed import handed

SCAN = Scan(name="lan", targets=("127.0.0.1",))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "run").mkdir()
    return Paths.of(tmp_path)


def test_a_scan_gets_a_file_that_is_ours_alone_and_others_get_none(paths: Paths) -> None:
    with handed(SCAN, paths) as files:
        fd = files[BUDGET_VARIABLE]
        assert os.fstat(fd).st_mode & 0o777 == 0o600
        assert paths.scan_budget.stat().st_ino == os.fstat(fd).st_ino
        assert not os.get_inheritable(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with handed(Command(name="api", command=("/bin/true",)), paths) as files:
        assert files == {}


def test_each_start_has_a_lock_of_its_own(paths: Paths) -> None:
    with handed(SCAN, paths) as one, handed(SCAN, paths) as other:
        fcntl.flock(one[BUDGET_VARIABLE], fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other[BUDGET_VARIABLE], fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("what", ["link", "link to nowhere", "pipe", "second name", "open to others", "of another"])
def test_what_is_no_file_of_ours_goes(paths: Paths, tmp_path: Path, what: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    match what:
        case "link":
            paths.scan_budget.symlink_to(victim)
        case "link to nowhere":
            paths.scan_budget.symlink_to(tmp_path / "nowhere")
        case "pipe":
            os.mkfifo(paths.scan_budget)
        case "second name":
            victim.chmod(0o600)
            paths.scan_budget.hardlink_to(victim)
        case "open to others":
            paths.scan_budget.touch(0o666)
            paths.scan_budget.chmod(0o666)
        case _:
            paths.scan_budget.touch(0o600)
            os.chown(paths.scan_budget, 65534, 65534)
    with handed(SCAN, paths) as files:
        os.write(files[BUDGET_VARIABLE], b"ours")
    assert victim.read_text() == "precious"
    assert paths.scan_budget.read_text() == "ours"
    assert not (tmp_path / "nowhere").exists()


def test_where_it_cannot_be_had_the_scan_goes_without(paths: Paths) -> None:
    paths.scan_budget.mkdir()
    with handed(SCAN, paths) as files:
        assert files == {}
    paths.scan_budget.rmdir()
    paths.run.rmdir()
    with handed(SCAN, paths) as files:
        assert files == {}


def test_nobody_else_may_open_it_and_who_was_handed_it_may_use_it(paths: Paths) -> None:
    paths.prefix.chmod(0o755)
    with handed(SCAN, paths) as files:
        fd = files[BUDGET_VARIABLE]
        nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
        opened = subprocess.run([*nobody, "cat", str(paths.scan_budget)], capture_output=True, check=False)
        done = subprocess.run([*nobody, "bash", "-c", f"printf x >&{fd}"], pass_fds=(fd,), check=False)
    assert opened.returncode != 0
    assert done.returncode == 0
    assert paths.scan_budget.read_bytes() == b"x"
