"""One at a time: what is locked can be held by nobody else, and whoever waits says so."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.installation.lock import DOING, only_one
from tests.installation.image import as_nobody, mounted

NAME = f".agentctl-{os.geteuid()}.lock"

HOLD = """
import sys
from pathlib import Path
from agent.installation.lock import only_one
with only_one(Path(sys.argv[1]), "/srv", wait=True):
    print("held", flush=True)
    sys.stdin.read()
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts another process that takes the lock, and holds it until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": "."}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, text=True, env=environment, stdin=pipe, stdout=pipe, stderr=pipe))
        return started[-1]

    yield begin
    for process in started:
        process.communicate()


def held(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "held\n"


def test_the_second_is_told_who_is_the_first(tmp_path: Path, start: Start) -> None:
    holder = start()
    assert held(holder)
    with pytest.raises(RuntimeFailure) as raised, only_one(tmp_path, "/srv"):
        raise AssertionError("both have it")
    assert str(raised.value) == f"process {holder.pid} is just {DOING}: wait for it, then try again"
    holder.communicate()
    with only_one(tmp_path, "/srv"):
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert not list(tmp_path.iterdir()), "a lock leaves nothing behind"


def test_whoever_waits_says_for_whom_and_has_it_when_the_first_is_killed(tmp_path: Path, start: Start) -> None:
    holder = start()
    assert held(holder)
    waiting = start()
    assert waiting.stderr and waiting.stderr.readline() == (
        f"agentctl: waiting for process {holder.pid}, which is just {DOING}\n"
    )
    holder.kill()
    assert held(waiting)
    waiting.communicate()
    assert not list(tmp_path.iterdir()), "what was left of a killed one is found and taken"


def test_many_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    """Each counts one further, in a way in which two at once would lose one; and the file comes and goes each time."""
    count, pids = tmp_path / "count", []
    (tmp_path / "run").mkdir()
    count.write_text("0")
    for _ in range(8):
        if not (pid := os.fork()):
            for _ in range(25):
                with only_one(tmp_path, "/srv", wait=True):
                    count.write_text(str(int(count.read_text()) + 1))
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    assert count.read_text() == "200"
    assert not list((tmp_path / "run").iterdir())


def test_an_ordinary_user_who_locks_all_he_can_open_keeps_nobody_waiting(open_place: Path) -> None:
    (open_place / "run").mkdir()
    opened = [os.open(place, os.O_RDONLY) for place in (open_place, open_place / "run")]
    for descriptor in opened:
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def try_to_hold() -> None:
        for flags in (os.O_RDONLY, os.O_WRONLY):
            with pytest.raises(PermissionError):
                os.open(open_place / "run" / NAME, flags)

    with only_one(open_place, "/srv"):
        assert as_nobody(try_to_hold) == ""
    for descriptor in opened:
        os.close(descriptor)


def test_root_has_one_lock_for_every_prefix(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "opt").mkdir()
    with only_one(tmp_path, "/srv"):
        assert (tmp_path / "run" / NAME).stat().st_mode & 0o777 == 0o600
        with pytest.raises(RuntimeFailure), only_one(tmp_path, "/opt/agent"):
            raise AssertionError("both have it")


@pytest.mark.parametrize("depth", ["", "prefix", "prefix/lib/agent"])
def test_an_ordinary_users_lock_is_the_same_before_and_after_the_prefix_is_there(open_place: Path, depth: str) -> None:
    """It lies on the way to the prefix, in the first directory that is his."""
    home = open_place / "home/user"
    for path in (open_place / "run", open_place / "home", home / depth):
        path.mkdir(parents=True, exist_ok=True)
    for path in (home, *home.rglob("*")):
        os.chown(path, 65534, 65534)
    (open_place / "home").chmod(0o711)

    def take() -> None:
        os.umask(0)
        with only_one(open_place, "/home/user/prefix"):
            found = [path for path in home.rglob(".*") if path.is_file()]
            assert found == [home / ".agentctl-65534.lock"]
            assert found[0].stat().st_mode & 0o777 == 0o600
            with pytest.raises(RuntimeFailure, match="is just"), only_one(open_place, "/home/user/prefix"):
                raise AssertionError("both have it")

    assert as_nobody(take) == ""


def test_whoever_may_write_nowhere_needs_no_lock(tmp_path: Path) -> None:
    with mounted(tmp_path / "sealed", "ro"), only_one(tmp_path / "sealed", "/srv"):
        pass


@pytest.mark.parametrize(
    "kind", ["link", "dangling link", "pipe", "directory", "readable", "of another", "second name"]
)
def test_what_was_planted_in_its_place_is_neither_opened_nor_held(tmp_path: Path, kind: str) -> None:
    planted, victim = tmp_path / NAME, tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    match kind:
        case "link":
            planted.symlink_to("victim")
        case "dangling link":
            planted.symlink_to("made")
        case "pipe":
            os.mkfifo(planted, 0o600)
        case "directory":
            planted.mkdir(0o700)
        case "second name":
            os.link(victim, planted)
        case _:
            planted.touch()
            planted.chmod(0o644 if kind == "readable" else 0o600)
            os.chown(planted, *((65534, 65534) if kind == "of another" else (-1, -1)))
    before = planted.lstat()
    with pytest.raises(RuntimeFailure, match=rf"^{planted}: ") as raised, only_one(tmp_path, "/srv", wait=True):
        raise AssertionError("that is no lock")
    assert "\n" not in str(raised.value)
    assert os.path.samestat(before, planted.lstat())
    assert victim.read_text() == "precious"
    assert not (tmp_path / "made").exists()


def test_a_run_that_leads_elsewhere_leads_to_a_place_in_the_same_system(tmp_path: Path) -> None:
    (tmp_path / "image/var/run").mkdir(parents=True)
    (tmp_path / "image/run").symlink_to("/var/run")
    with only_one(tmp_path / "image", "/srv"):
        assert (tmp_path / "image/var/run" / NAME).exists()
    (tmp_path / "outside").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/run").symlink_to(tmp_path / "outside")
    with only_one(tmp_path / "other", "/srv"):
        assert not list((tmp_path / "outside").iterdir())
        assert (tmp_path / "other" / NAME).exists()


def test_a_failure_inside_is_no_failure_to_lock(tmp_path: Path) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(BlockingIOError), only_one(tmp_path, "/srv"):
        raise BlockingIOError
    assert len([*Path("/proc/self/fd").iterdir()]) == before
