"""Which stores there are, as far as one may look; root looks into those of other users with their eyes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.cli.stores import check_interfaces, find, nothing
from agent.errors import ConfigurationError, RuntimeFailure, StorageFailure, UsageError
from agent.paths import Paths
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
        segment(made / "spool" / name, "eth0", 60, records(20, 60_000), ".part")  # of a capture that runs
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
        ("flows", "export", *SPAN, "-o", "-", "--service"),
        ("capture", "report", *SPAN, "-o", "-", "--service"),
        ("capture", "pins", "--service"),
        ("capture", "list", "--service"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_each_store_is_read_as_whose_it_is(hidden: Path, prefix: Path, words: tuple[str, ...], name: str) -> None:
    done = ask(hidden, prefix, *words, name)
    assert (done.returncode, "Permission" in done.stderr, "internal" in done.stderr) == (0, False, False), done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "words",
    [("flows", "udp port 53"), ("capture", "query", "udp port 53"), ("capture", "report")],
    ids=lambda words: " ".join(words[:2]),
)
def test_stores_of_several_users_are_each_read_as_whose_they_are(
    hidden: Path, prefix: Path, words: tuple[str, ...]
) -> None:
    both, core, edge = (
        ask(hidden, prefix, *words, *SPAN, "--json", *service)
        for service in ((), ("--service", "core"), ("--service", "edge"))
    )
    assert (both.returncode, both.stderr) == (0, "")
    found = [json.loads(done.stdout)["packets"] for done in (both, core, edge)]
    assert found[0] == found[1] + found[2] > found[1] > 0


@contextmanager
def stranger() -> Iterator[None]:
    """Nobody looks: without the rights of root."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def paths(open_directory: Path) -> Paths:
    """Two captures, a scan, and what belongs to the agent alone."""
    paths = Paths.of(open_directory)
    for name in ("edge", "core"):
        segment(paths.data(name), "eth0", 0, records(3))
    for name in ("lan_scan", "lost+found"):
        paths.data(name).mkdir()
    paths.agent_spool.mkdir(mode=0o700)
    return paths


def names(paths: Paths, *wanted: str) -> list[str]:
    return [store.name for store in find(paths, wanted).stores]


def test_captures_are_told_from_other_services(paths: Paths) -> None:
    assert names(paths) == ["core", "edge"]
    assert names(paths, "edge", "edge") == ["edge"]


def test_a_name_that_no_capture_has_is_said_with_what_there_is(paths: Paths) -> None:
    with pytest.raises(UsageError, match=r"^no capture is named 'lan_scan'; there are core, edge$"):
        find(paths, ("lan_scan",))
    with pytest.raises(UsageError, match=r"^no capture is named 'egde'; did you mean edge\?$"):
        find(paths, ("egde",))


def test_a_capture_that_has_stored_nothing_yet_is_no_wrong_name(paths: Paths) -> None:
    paths.key.mkdir()
    paths.declaration.write_text('[service.new]\nkind = "capture"\ninterfaces = ["lo"]\n')
    with pytest.raises(RuntimeFailure, match=r"^new has stored no packets yet$"):
        find(paths, ("new",))
    with pytest.raises(UsageError, match="did you mean new"):
        find(paths, ("nev",))


def test_a_store_says_that_it_is_one_before_there_is_a_segment(paths: Paths) -> None:
    mark = paths.data("lan_scan") / "store.json"
    mark.write_text('{"version": 1}')
    assert names(paths) == ["core", "edge", "lan_scan"]


def test_one_of_a_newer_version_is_told_of_and_the_others_are_there(paths: Paths) -> None:
    (paths.data("edge") / "store.json").write_text('{"version": 2}')
    found = find(paths)
    assert [store.name for store in found.stores] == ["core"]
    (note,) = found.notes
    assert "the store is of version 2" in note
    with pytest.raises(ConfigurationError, match="the store is of version 2"):
        find(paths, ("core", "edge"))
    shutil.rmtree(paths.data("core"))
    with pytest.raises(ConfigurationError, match="the store is of version 2"):
        find(paths)


def test_a_directory_that_cannot_be_looked_into_keeps_nobody_from_the_others(paths: Paths) -> None:
    paths.data("core").chmod(0o700)
    with stranger():
        found = find(paths)
        assert ([store.name for store in found.stores], len(found.notes)) == (["edge"], 1)
        assert "core" in found.notes[0] and "ermission denied" in found.notes[0]
        with pytest.raises(StorageFailure, match=r"core.*ermission denied"):
            find(paths, ("core",))
    paths.data("edge").chmod(0o700)
    with stranger(), pytest.raises(StorageFailure, match="ermission denied"):
        find(paths)


def test_nobody_is_told_of_the_directory_of_a_service_that_captures_nothing(paths: Paths) -> None:
    paths.key.mkdir()
    paths.declaration.write_text('[service.web]\nkind = "command"\ncommand = ["/bin/true"]\n')
    paths.data("web").mkdir(mode=0o700)
    with stranger():
        assert find(paths).notes == []


def test_a_spool_that_is_closed_or_not_there_is_said(paths: Paths) -> None:
    paths.spool.chmod(0o700)
    with stranger(), pytest.raises(StorageFailure, match="spool: cannot be looked into: Permission denied"):
        find(paths)
    shutil.rmtree(paths.spool)
    assert find(paths) == ([], [])
    assert nothing(paths) == f"no packets are stored below {paths.spool}"


def test_a_link_to_a_store_is_one(paths: Paths, tmp_path: Path) -> None:
    paths.data("edge").rename(tmp_path / "big")
    paths.data("edge").symlink_to(tmp_path / "big")
    assert names(paths) == names(paths, "core", "edge") == ["core", "edge"]


def test_an_interface_that_nothing_was_captured_on_is_said(paths: Paths) -> None:
    stores = find(paths).stores
    check_interfaces(stores, ("eth0",))
    with pytest.raises(UsageError, match=r"no interface is named 'eth1'; did you mean eth0\?$"):
        check_interfaces(stores, ("eth1",))
    with pytest.raises(UsageError, match=r"no interface is named 'wlan0'; there is eth0$"):
        check_interfaces(stores, ("wlan0",))
    check_interfaces(stores, ("wlan0",), ["wlan0"])
