"""Building: the same bits wherever and whenever, quietly, and without a trace of a build that failed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import build
from tests.binary import Built, copy_source

pytestmark = pytest.mark.timeout(300)


def run(source: Path, output: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(source / "packaging" / "build.py"), str(output)]
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, umask=0o077, cwd="/")


def contents(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and bytes of every file and directory below, by its path."""
    found = {}
    for path in sorted(top.rglob("*")):
        state = path.stat()
        found[str(path.relative_to(top))] = (
            state.st_mode,
            int(state.st_mtime),
            path.read_bytes() if path.is_file() else b"",
        )
    return found


def test_two_builds_are_the_same_to_the_bit(program: Built, tmp_path: Path) -> None:
    """From another directory, at another time, by another user's settings."""
    source = tmp_path / "some" / "other" / "place of longer name" / "source"
    copy_source(source, program.version)
    for path in source.rglob("*.py"):
        os.utime(path, (1, 1))
    done = run(
        source, tmp_path / "made", TZ="Asia/Kathmandu", PYTHONHASHSEED="4242", LANG="fi_FI.UTF-8", HOME=str(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "made" / "agentctl").read_bytes() == program.onefile.read_bytes()
    assert contents(tmp_path / "made" / program.tree.name) == contents(program.tree)
    told = re.sub(r"\d+ s", "N s", done.stdout).splitlines()
    assert told == [
        "  what is imported",
        f"  the installed form: agent-{program.version}/",
        "  the one file: agentctl",
        f"  done in N s: {tmp_path / 'made'}",
    ]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["agent-0.1.0", "agentctl"]
    assert not (tmp_path / ".cache").exists(), "nothing is kept in the home directory"
    assert not [path for path in source.rglob("*") if path.name in ("build", "dist")]


def test_a_build_that_fails_says_why_and_leaves_what_was_there(tmp_path: Path) -> None:
    copy_source(tmp_path / "source", "0.1.0")
    (tmp_path / "source" / "packaging" / "manual.py").write_text("raise SystemExit('no manual today')\n")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "agentctl").write_text("the old one")
    done = run(tmp_path / "source", tmp_path / "made")
    assert done.returncode == 1
    assert "no manual today" in done.stderr
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["agentctl"]
    assert (tmp_path / "made" / "agentctl").read_text() == "the old one"


def test_a_newer_build_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "lib").mkdir(parents=True)
        (tmp_path / name / "lib" / name).touch()
        (tmp_path / f"{name}.file").write_text(name)
    build.replace(tmp_path / "new", tmp_path / "old")
    build.replace(tmp_path / "new.file", tmp_path / "old.file")
    assert [path.name for path in (tmp_path / "old" / "lib").iterdir()] == ["new"]
    assert (tmp_path / "old.file").read_text() == "new"
    shutil.copytree(tmp_path / "old", tmp_path / "first")
    build.replace(tmp_path / "first", tmp_path / "nowhere yet")
    assert (tmp_path / "nowhere yet" / "lib").is_dir()


def test_of_this_machines_settings_only_where_programs_and_libraries_are_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANG", "TZ", "HOME", "PYTHONHASHSEED", "PYTHONOPTIMIZE", "CFLAGS", "SECRET"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    found = build.environment(tmp_path)
    assert "mine" not in found.values()
    assert (found["PATH"], found["PYTHONHASHSEED"], found["SOURCE_DATE_EPOCH"]) == ("/bin", "0", build.EPOCH)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert build.environment(tmp_path)["SOURCE_DATE_EPOCH"] == "1"
