"""``selftest``: what works is proven and said, what does not fails, and what cannot be looked at is no failure."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from agent import __version__
from agent.cli import selftest
from agent.cli.proofs import PARTS, WRITING
from agent.cli.selftest import Result, examine, judge
from agent.linux.process import ExitStatus
from agent.linux.spawn import Completed
from tests.cli.harness import Agentctl

ALL = [*PARTS, *WRITING]


def run(agentctl: Agentctl, *wrapper: str, **variables: str) -> dict[str, Result]:
    """The results by part of a selftest in some circumstances, and whether its exit code fits them."""
    argv = [*wrapper, *agentctl.command("selftest", "--json")]
    done = subprocess.run(
        argv, env=agentctl.environment | variables, cwd=agentctl.directory, capture_output=True, text=True, timeout=60
    )
    told = json.loads(done.stdout)
    results = {part["name"]: Result(**part) for part in told["parts"]}
    assert told["ok"] == all(result.verdict != "fail" for result in results.values()) == (done.returncode == 0)
    assert done.returncode in (0, 2)
    assert (list(results), told["version"], done.stderr) == (ALL, __version__, "")
    return results


def test_all_of_it_works_here(agentctl: Agentctl) -> None:
    assert {result.verdict for result in run(agentctl).values()} == {"ok"}


def test_it_is_a_line_for_each_part(agentctl: Agentctl) -> None:
    done = agentctl("selftest")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [[part, "ok"] for part in ALL]


def test_nothing_is_left_behind(agentctl: Agentctl, tmp_path: Path) -> None:
    (place := tmp_path / "place").mkdir()
    done = agentctl("selftest", "--directory", str(place), TMPDIR="/nonexistent")
    assert done.returncode == 0 and "unchecked" not in done.stdout
    assert not list(place.iterdir())
    assert not agentctl.prefix.exists()


def test_without_a_place_to_write_to_it_says_what_is_not_checked(agentctl: Agentctl) -> None:
    results = run(agentctl, TMPDIR="/proc")
    assert [name for name, result in results.items() if result.verdict != "ok"] == list(WRITING)
    for name in WRITING:
        assert results[name].verdict == "unchecked"
        assert results[name].unchecked == "no directory can be made below /proc: No such file or directory"


def test_without_the_capability_nothing_is_captured(agentctl: Agentctl) -> None:
    capture = run(agentctl, "setpriv", "--bounding-set=-net_raw")["capture"]
    assert capture.verdict == "ok"
    assert "filtered" in capture.finding and "CAP_NET_RAW is not effective" in capture.unchecked


def test_a_loopback_interface_that_is_down_is_said(agentctl: Agentctl) -> None:
    capture = run(agentctl, "unshare", "--net")["capture"]
    assert (capture.verdict, capture.unchecked) == ("ok", "lo: the interface is not up")


def hidden(directory: str) -> tuple[str, ...]:
    """In a mount namespace of its own that shows nothing in this directory."""
    script = f'mount -t tmpfs none {directory} && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")


def test_a_host_without_time_zones_is_no_failure(agentctl: Agentctl) -> None:
    calendar = run(agentctl, *hidden("/usr/share"))["calendar"]
    assert (calendar.verdict, calendar.finding) == ("ok", "elapses in UTC are right")
    assert calendar.unchecked == "this host has no time zones in /usr/share/zoneinfo: install tzdata"


def test_a_host_whose_time_zones_are_lost_fails(agentctl: Agentctl) -> None:
    calendar = run(agentctl, *hidden("/usr/share/zoneinfo"))["calendar"]
    assert calendar.verdict == "fail"
    assert "Europe/Helsinki" in calendar.finding and "a time zone of this host" in calendar.finding


def test_a_directory_without_room_fails(agentctl: Agentctl, tmp_path: Path) -> None:
    (place := tmp_path / "full").mkdir()
    script = f'mount -t tmpfs -o size=4k none {place} && exec "$@"'
    wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    results = run(agentctl, *wrapper, TMPDIR=str(place))
    assert results["database"].verdict == "fail"
    assert "the disk is full" in results["database"].finding


def completed(stdout: bytes = b"", stderr: bytes = b"", *, code: int | None = 0, timed_out: bool = False) -> Completed:
    status = ExitStatus(code) if code is not None else ExitStatus(None, 11)
    return Completed(status, stdout, stderr, truncated=False, timed_out=timed_out)


@pytest.mark.parametrize(
    ("done", "result"),
    [
        (completed(b'{"found": "a", "unchecked": ""}'), Result("x", "ok", "a")),
        (completed(b'{"found": "a", "unchecked": "b"}'), Result("x", "ok", "a", "b")),
        (completed(b'{"found": "", "unchecked": "b"}'), Result("x", "unchecked", "", "b")),
        (completed(b'{"failed": "c"}', code=2), Result("x", "fail", "c")),
        (completed(b'{"found": "a"}', code=2), Result("x", "fail", "exited 2")),
        (completed(code=None), Result("x", "fail", "killed by SIGSEGV")),
        (
            completed(b"Traceback", b"one\ntwo: no such file\n", code=127),
            Result("x", "fail", "exited 127: two: no such file"),
        ),
        (completed(b"[1]"), Result("x", "fail", "exited 0")),
        (completed(b'{"found": "a"}', timed_out=True), Result("x", "fail", "did not end within 60 s")),
    ],
)
def test_a_part_is_judged_by_what_it_says_and_how_it_ends(done: Completed, result: Result) -> None:
    assert judge("x", done) == result


def test_a_part_that_cannot_be_started_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.linux.spawn.own_program", lambda: ["/nonexistent/agentctl"])
    result = examine("scan")
    assert result.verdict == "fail" and "/nonexistent/agentctl" in result.finding


def test_a_directory_is_private_and_goes_with_what_is_in_it(tmp_path: Path) -> None:
    with selftest.private(tmp_path) as place:
        assert place.stat().st_mode & 0o777 == 0o700
        (place / "file").touch()
    assert not place.exists()
