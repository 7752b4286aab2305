"""Root asks about stores of other users, with a program that only root can read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.index.pcaps import records, segment

ROOT = Path(__file__).parents[2]
NOBODY, DAEMON = 65534, 1


@pytest.fixture
def prefix() -> Iterator[Path]:
    """A prefix of nobody's with a store of its own, and one of a capture that runs as daemon."""
    made = Path(tempfile.mkdtemp(prefix="prefix-"))
    made.chmod(0o755)
    (made / "run").mkdir()
    for name, user in (("edge", NOBODY), ("core", DAEMON)):
        segment(made / "spool" / name, "eth0", 0, records(20))
        for path in (made / "spool" / name, *(made / "spool" / name).rglob("*")):
            os.chown(path, user, user)
            path.chmod(0o750 if path.is_dir() else 0o640)
    for path in (made, made / "run", made / "spool"):
        os.chown(path, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """A copy of the program, without anything compiled, where nobody but root gets to."""
    shutil.copytree(ROOT / "agent", tmp_path / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    tmp_path.chmod(0o700)
    return tmp_path


def ask(hidden: Path, prefix: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(hidden), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "agent", "--prefix", str(prefix), *words],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
    )


SPAN = ("--from", "2026-11-20T14:00Z", "--to", "2026-11-20T15:00Z")


@pytest.mark.parametrize("name", ["edge", "core"])
@pytest.mark.parametrize(
    "words",
    [
        ("capture", "query", "udp port 53", *SPAN, "--limit", "1", "--service"),
        ("flows", "udp port 53", *SPAN, "--service"),
        ("flows", "export", *SPAN, "--jsonl", "-", "--service"),
        ("capture", "report", *SPAN, "-o", "-"),
        ("capture", "pins"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_each_store_is_read_as_whose_it_is(hidden: Path, prefix: Path, words: tuple[str, ...], name: str) -> None:
    done = ask(hidden, prefix, *words, name)
    assert (done.returncode, "Permission" in done.stderr, "internal" in done.stderr) == (0, False, False), done.stderr
    assert done.stdout


def test_stores_of_several_users_are_asked_for_one_at_a_time(hidden: Path, prefix: Path) -> None:
    done = ask(hidden, prefix, "capture", "query", "udp", "--service", "edge", "--service", "core")
    assert done.returncode == 1
    assert done.stderr == (
        "agentctl: these stores belong to several users (edge to nobody, core to daemon); ask for those of one at a "
        "time\n"
    )
