"""The drop-ins of jobs: told from all else that may lie there, written whole, taken back whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure, StorageFailure
from agent.installation import timer_files
from agent.installation.timer_files import look, out_of_sync
from agent.installation.timers import JobUnits, mark, render
from tests.installation.conftest import DAILY, PATHS, PERIOD, declared, job, tree

PREFIX = PATHS.prefix
TEMPLATE = Path("/etc/systemd/system/agent-job@.timer")


def wanted(name: str = "job") -> JobUnits:
    return render(declared(job(name)), PREFIX)[name]


def test_what_is_written_is_found_again_and_enabled(units: Path) -> None:
    timer_files.write(units, "job", wanted(), TEMPLATE)
    assert tree(units) == {
        "agent-job@job.service.d/10-declaration.conf": wanted().service,
        "agent-job@job.timer.d/10-declaration.conf": wanted().timer,
        "timers.target.wants/agent-job@job.timer": "-> /etc/systemd/system/agent-job@.timer",
    }
    found = look(units, PREFIX)
    assert found.keys() == {"job"}
    assert found["job"].units == wanted()
    assert out_of_sync(declared(job()), PATHS, units) == []
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in units.glob("*.d/*")}
    assert modes == {"10-declaration.conf": "0o644"}


def test_what_is_taken_back_leaves_nothing_of_ours_and_everything_of_others(units: Path) -> None:
    timer_files.write(units, "job", wanted(), TEMPLATE)
    timer_files.write(units, "kept", wanted("kept"), TEMPLATE)
    (units / "agent-job@job.timer.d/override.conf").write_text("[Timer]\nAccuracySec=1h\n")
    (units / "agent-job@job.service.d/.10-declaration.conf.0badcafe").write_text("killed while it was written")
    timer_files.remove(units, "job")
    timer_files.remove(units, "job")
    left = tree(units)
    assert left.pop("agent-job@job.timer.d/override.conf")
    assert {name for name in left if "kept" not in name} == set()
    assert not (units / "agent-job@job.service.d").exists()


def test_half_of_a_job_is_found_and_not_in_sync(units: Path) -> None:
    for missing in ("agent-job@job.service.d/10-declaration.conf", "timers.target.wants/agent-job@job.timer"):
        timer_files.write(units, "job", wanted(), TEMPLATE)
        (units / missing).unlink()
        assert look(units, PREFIX)["job"].units is None
        assert out_of_sync(declared(job()), PATHS, units) == ["job"]
        assert out_of_sync(declared(), PATHS, units) == ["job"]


def test_what_differs_is_named(units: Path) -> None:
    for name in ("same", "changed", "gone"):
        timer_files.write(units, name, wanted(name), TEMPLATE)
    declaration = declared(job("same"), job("changed", DAILY), job("new", PERIOD))
    assert out_of_sync(declaration, PATHS, units) == ["changed", "gone", "new"]
    assert out_of_sync(declared(job("same"), scheduler="agent"), PATHS, units) == ["changed", "gone", "same"]
    assert out_of_sync(declared(job("new")), PATHS, units / "nowhere") == ["new"]
    assert out_of_sync(declared(), PATHS, units / "nowhere") == []


@pytest.mark.parametrize(
    "content",
    ["", "[Timer]\nOnCalendar=daily\n", "# mine\n", mark(Path("/opt")) + "\n[Timer]\n", mark(PREFIX), "\0" * 100],
    ids=["empty", "no mark", "comment", "another prefix", "a mark without its line's end", "no text"],
)
def test_what_does_not_begin_with_our_mark_is_somebody_elses(units: Path, content: str) -> None:
    path = units / "agent-job@job.timer.d/10-declaration.conf"
    path.parent.mkdir()
    path.write_text(content)
    assert look(units, PREFIX) == {}
    with pytest.raises(RuntimeFailure, match=r"job\.timer\.d/10-declaration\.conf: was not made by this agent"):
        timer_files.check(units, PREFIX, ["job"])
    timer_files.check(units, PREFIX, ["other"])


def test_links_pipes_and_directories_are_somebody_elses_too(units: Path, tmp_path: Path) -> None:
    (tmp_path / "ours").write_text(wanted().timer)
    paths = [units / f"agent-job@job{number}.timer.d/10-declaration.conf" for number in range(4)]
    for path in paths:
        path.parent.mkdir()
    paths[0].symlink_to(tmp_path / "ours")
    os.mkfifo(paths[1])
    paths[2].mkdir()
    assert look(units, PREFIX) == {}
    for number in range(3):
        with pytest.raises(RuntimeFailure, match="was not made by this agent"):
            timer_files.check(units, PREFIX, [f"job{number}"])
    timer_files.check(units, PREFIX, ["job3"])


def test_a_file_that_is_replaced_is_whole_or_as_it_was(units: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timer_files.write(units, "job", wanted(), TEMPLATE)
    before = tree(units)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailure, match="No space left on device"):
        timer_files.write(units, "job", JobUnits("other", "other"), TEMPLATE)
    assert tree(units) == before


def test_what_cannot_be_written_or_removed_is_one_line(units: Path) -> None:
    (units / "timers.target.wants").write_text("not a directory")
    with pytest.raises(StorageFailure, match=r"^\S+timers\.target\.wants: cannot be made a directory: "):
        timer_files.write(units, "job", wanted(), TEMPLATE)
    with pytest.raises(StorageFailure, match=r"agent-job@job\.timer: cannot be changed: Not a directory$"):
        timer_files.remove(units, "job")


def test_the_template_is_found_where_systemd_would(root: Path, units: Path) -> None:
    assert timer_files.template(root, "timer") == TEMPLATE
    packaged = root / "usr/lib/systemd/system"
    packaged.mkdir(parents=True)
    (units / "agent-job@.timer").rename(packaged / "agent-job@.timer")
    assert timer_files.template(root, "timer") == Path("/usr/lib/systemd/system/agent-job@.timer")
    (packaged / "agent-job@.timer").unlink()
    with pytest.raises(RuntimeFailure, match=r"^agent-job@\.timer is not in .*agentctl install"):
        timer_files.template(root, "timer")
