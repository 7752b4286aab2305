"""The drop-ins of jobs: told from all else that may lie there, written whole, taken back whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.installation import timer_changes, timer_files
from agent.installation.perform import Site
from agent.installation.timer_files import look, out_of_sync
from agent.installation.timers import JobUnits, mark, render
from tests.installation.conftest import DAILY, PATHS, PERIOD, declared, install, job

PREFIX = PATHS.prefix
TEMPLATE = "/etc/systemd/system/agent-job@.timer"


def wanted(name: str = "job") -> JobUnits:
    return render(declared(job(name)), PREFIX)[name]


def site(root: Path) -> Site:
    return Site(root, str(PREFIX))


def test_half_of_a_job_is_found_and_not_in_sync(root: Path, units: Path) -> None:
    for missing in ("agent-job@job.service.d/10-declaration.conf", "timers.target.wants/agent-job@job.timer"):
        timer_changes.lay(site(root), "job", wanted(), TEMPLATE)
        (units / missing).unlink()
        assert look(root, PREFIX)["job"].units is None
        assert out_of_sync(declared(job()), PATHS, root) == ["job"]
        assert out_of_sync(declared(), PATHS, root) == ["job"]


def test_what_differs_is_named(root: Path, units: Path) -> None:
    for name in ("same", "changed", "gone"):
        timer_changes.lay(site(root), name, wanted(name), TEMPLATE)
    declaration = declared(job("same"), job("changed", DAILY), job("new", PERIOD))
    assert out_of_sync(declaration, PATHS, root) == ["changed", "gone", "new"]
    assert out_of_sync(declared(job("same"), scheduler="agent"), PATHS, root) == ["changed", "gone", "same"]
    assert out_of_sync(declared(job("new")), PATHS, root / "nowhere") == ["new"]
    assert out_of_sync(declared(), PATHS, root / "nowhere") == []


@pytest.mark.parametrize(
    "content",
    ["", "[Timer]\nOnCalendar=daily\n", "# mine\n", mark(Path("/opt")) + "\n[Timer]\n", mark(PREFIX), "\0" * 100],
    ids=["empty", "no mark", "comment", "another prefix", "a mark without its line's end", "no text"],
)
def test_what_does_not_begin_with_our_mark_is_somebody_elses(root: Path, units: Path, content: str) -> None:
    path = units / "agent-job@job.timer.d/10-declaration.conf"
    path.parent.mkdir()
    path.write_text(content)
    assert look(root, PREFIX) == {}
    with pytest.raises(RuntimeFailure, match=r"job\.timer\.d/10-declaration\.conf: was not made by this agent"):
        timer_files.check(root, PREFIX, ["job"])
    timer_files.check(root, PREFIX, ["other"])


def test_links_pipes_and_directories_are_somebody_elses_too(root: Path, units: Path, tmp_path: Path) -> None:
    (tmp_path / "ours").write_text(wanted().timer)
    paths = [units / f"agent-job@job{number}.timer.d/10-declaration.conf" for number in range(4)]
    for path in paths:
        path.parent.mkdir()
    paths[0].symlink_to(tmp_path / "ours")
    os.mkfifo(paths[1])
    paths[2].mkdir()
    assert look(root, PREFIX) == {}
    for number in range(3):
        with pytest.raises(RuntimeFailure, match="was not made by this agent"):
            timer_files.check(root, PREFIX, [f"job{number}"])
    timer_files.check(root, PREFIX, ["job3"])


def test_the_template_is_found_where_systemd_would(root: Path, units: Path) -> None:
    assert timer_files.template(root, "timer") == TEMPLATE
    packaged = root / "usr/lib/systemd/system"
    packaged.mkdir(parents=True)
    (units / "agent-job@.timer").rename(packaged / "agent-job@.timer")
    assert timer_files.template(root, "timer") == "/usr/lib/systemd/system/agent-job@.timer"
    (packaged / "agent-job@.timer").unlink()
    with pytest.raises(RuntimeFailure, match=r"^agent-job@\.timer is not in .*agentctl install"):
        timer_files.template(root, "timer")


def test_what_a_link_leads_to_out_of_the_root_is_not_looked_at(root: Path, units: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    timer_changes.lay(site(install(outside).parents[2]), "job", wanted(), TEMPLATE)
    for suffix in timer_files.SUFFIXES:
        directory = f"agent-job@job.{suffix}.d"
        (units / directory).symlink_to(outside / "etc/systemd/system" / directory)
    assert look(outside, PREFIX).keys() == {"job"}
    assert look(root, PREFIX) == {}
    with pytest.raises(RuntimeFailure, match=r"agent-job@job\.timer\.d: is no directory; move it away$"):
        timer_files.check(root, PREFIX, ["job"])


def test_a_link_within_the_root_leads_where_it_leads_the_system_that_is_there(root: Path, units: Path) -> None:
    (root / "usr/share/units").mkdir(parents=True)
    (units / "agent-job@job.timer.d").symlink_to("/usr/share/units")
    timer_changes.lay(site(root), "job", wanted(), TEMPLATE)
    assert (root / "usr/share/units/10-declaration.conf").read_text() == wanted().timer
    assert look(root, PREFIX)["job"].units == wanted()
    timer_files.check(root, PREFIX, ["job"])
    timer_changes.remove(site(root), "job")
    assert not list((root / "usr/share/units").iterdir())
    assert look(root, PREFIX) == {}


@pytest.mark.parametrize(
    "theirs",
    [
        *("etc/systemd/system", "etc/systemd/system/timers.target.wants", "etc/systemd/system/agent-job@job.timer.d"),
        "var/lib/systemd/timers",
    ],
)
def test_a_directory_that_another_user_could_exchange_is_refused(root: Path, theirs: str) -> None:
    (root / theirs).mkdir(parents=True, exist_ok=True)
    os.chown(root / theirs, 65534, 65534)
    with pytest.raises(RuntimeFailure, match=r"belongs to user nobody \(65534\), who could exchange"):
        timer_files.check(root, PREFIX, ["job"])
