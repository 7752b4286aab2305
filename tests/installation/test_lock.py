"""One installation at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.installation.lock import only_one

HOLD = """
import sys
from pathlib import Path
from agent.installation.lock import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_is_the_first(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(RuntimeFailure, match=f"process {holder.pid} is just installing or uninstalling"),
        only_one(tmp_path),
    ):
        raise AssertionError("both have it")
    holder.communicate()
    with only_one(tmp_path):
        pass
    assert not list(tmp_path.iterdir()), "a lock leaves nothing behind"


def test_whoever_waits_has_it_when_the_first_is_killed(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("])):", "]), wait=True):"), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    holder.kill()
    holder.communicate()
    assert waiting.stdout and waiting.stdout.readline() == "held\n"
    waiting.communicate()


def test_the_directory_run_is_what_is_locked_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with only_one(tmp_path), pytest.raises(RuntimeFailure), only_one(tmp_path):
        raise AssertionError("both have it")
    with pytest.raises(RuntimeFailure, match="cannot be opened for locking"), only_one(tmp_path / "missing"):
        raise AssertionError("there is nothing to lock")


def test_a_failure_inside_is_no_failure_to_lock(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), only_one(tmp_path):
        raise BlockingIOError
