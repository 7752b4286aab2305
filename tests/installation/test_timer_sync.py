"""Timers become those that are declared, from whatever there is, also when it is interrupted. See tests/system too."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.model import Declaration, Limits
from agent.errors import RuntimeFailure, UsageError
from agent.installation import lock, timer_changes, timer_files, timer_sync
from agent.installation.install import uninstall
from agent.installation.timer_sync import Live, SyncReport, plan, sync
from agent.installation.timers import JobUnits, has_calendar, is_persistent, mark, parse_place, place, render
from agent.linux import systemctl, systemd
from agent.linux.systemctl import Properties
from agent.paths import Paths
from tests.harness import wait_until
from tests.installation.conftest import DAILY, HOURLY, KEPT, LONGER, PATHS, PERIOD, declared, install, job, tree


def told(report: SyncReport) -> tuple[list[str], list[str], list[str], int]:
    return report.started, report.changed, report.removed, report.unchanged


# -- a system that does not run -------------------------------------------------------------------------------------


def test_files_below_a_root_become_what_is_declared_and_stay_so(root: Path, units: Path) -> None:
    first = declared(job("a"), job("b", PERIOD), job("off", enabled=False))
    assert told(sync(first, PATHS, root)) == (["a", "b"], [], [], 0)
    written = tree(units)
    assert len(written) == 6
    assert told(sync(first, PATHS, root)) == ([], [], [], 2)
    second = declared(job("b", LONGER), job("c"))
    assert told(sync(second, PATHS, root)) == (["c"], ["b"], ["a"], 0)
    assert timer_files.out_of_sync(second, PATHS, root) == []
    assert told(sync(declared(job("b"), scheduler="agent"), PATHS, root)) == ([], [], ["b", "c"], 0)
    assert tree(units) == {}


def test_a_dry_run_says_the_same_and_changes_nothing(root: Path, units: Path) -> None:
    sync(declared(job("a"), job("b")), PATHS, root)
    before = tree(units)
    second = declared(job("b", DAILY), job("c"))
    dry = sync(second, PATHS, root, dry_run=True)
    assert tree(units) == before
    assert msgspec.structs.replace(sync(second, PATHS, root), dry_run=True) == dry


def test_a_file_that_was_edited_is_put_right(root: Path, units: Path) -> None:
    declaration = declared(job("a"))
    sync(declaration, PATHS, root)
    path = units / place("a", "service")
    path.write_text(path.read_text() + "User=root\n")
    assert timer_files.out_of_sync(declaration, PATHS, root) == ["a"]
    assert told(sync(declaration, PATHS, root)) == ([], ["a"], [], 0)
    assert "root" not in path.read_text()


def test_another_prefix_has_its_own(root: Path, units: Path) -> None:
    sync(declared(job("a")), PATHS, root)
    other = Paths.of("/opt/agent")
    assert told(sync(declared(scheduler="agent"), other, root)) == ([], [], [], 0)
    with pytest.raises(RuntimeFailure, match="was not made by this agent"):
        sync(declared(job("a")), other, root)
    sync(declared(job("b")), other, root)
    assert timer_files.look(root, PATHS.prefix).keys() == {"a"}


def test_what_is_in_the_way_is_told_before_anything_is_changed(root: Path, units: Path) -> None:
    sync(declared(job("old")), PATHS, root)
    (units / place("new", "service")).parent.mkdir()
    (units / place("new", "service")).write_text("[Service]\nUser=somebody\n")
    before = tree(units)
    with pytest.raises(RuntimeFailure, match=r"new\.service\.d/10-declaration\.conf: was not made by this agent"):
        sync(declared(job("new"), job("newer")), PATHS, root)
    assert tree(units) == before


def test_without_the_templates_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeFailure, match=r"agent-job@\.timer is not in .*agentctl install"):
        sync(declared(job()), PATHS, tmp_path / "empty")
    assert tree(tmp_path) == {}
    assert told(sync(declared(), PATHS, tmp_path / "empty")) == ([], [], [], 0)


def test_no_link_leads_out_of_the_root(tmp_path: Path) -> None:
    install(tmp_path / "outside")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/etc").symlink_to(tmp_path / "outside/etc")
    before = tree(tmp_path)
    with pytest.raises(RuntimeFailure, match=r"^agent-job@\.timer is not in \S+root/etc/systemd/system or"):
        sync(declared(job()), PATHS, tmp_path / "root")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("link", ["timers.target.wants", place("job", "timer").partition("/")[0]])
def test_a_link_out_of_the_root_is_refused_before_anything_is_changed(
    root: Path, units: Path, tmp_path: Path, link: str
) -> None:
    sync(declared(job("old")), PATHS, root)
    (tmp_path / "outside").mkdir()
    if link == "timers.target.wants":
        (units / link / "agent-job@old.timer").unlink()
        (units / link).rmdir()
    (units / link).symlink_to(tmp_path / "outside")
    before = tree(tmp_path)
    with pytest.raises(RuntimeFailure, match=rf"/{link}: is no directory; move it away$"):
        sync(declared(job("job")), PATHS, root)
    assert tree(tmp_path) == before


def test_a_root_that_is_none_is_a_mistake_of_whoever_names_it(root: Path) -> None:
    with pytest.raises(UsageError, match=r"^--root \S+/nowhere: is no directory$"):
        sync(declared(job()), PATHS, root / "nowhere")


def test_an_installation_and_a_sync_are_one_after_the_other(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And a sync waits, which has no reason to fail."""
    (root / "run").mkdir()
    done: list[SyncReport] = []
    monkeypatch.setattr(lock, "SILENCE", 0.1)
    syncing = threading.Thread(target=lambda: done.append(sync(declared(job()), PATHS, root)))
    with lock.only_one(root, str(PATHS.prefix)):
        syncing.start()
        wait_until(lambda: "waiting for process" in capfd.readouterr().err)
        assert done == []
    syncing.join(10)
    assert told(done[0]) == (["job"], [], [], 0)
    seen: list[str] = []

    def refused(*_: object) -> None:
        with pytest.raises(RuntimeFailure) as raised:
            uninstall("/srv", root)
        seen.append(str(raised.value))

    monkeypatch.setattr(timer_changes, "remove", refused)
    sync(declared(scheduler="agent"), PATHS, root)
    assert seen == [f"process {os.getpid()} is just {lock.DOING}: wait for it, then try again"]


# -- the plan -------------------------------------------------------------------------------------------------------


def test_what_systemd_has_not_in_force_is_work_though_the_files_are_right() -> None:
    wanted = render(declared(job("a"), job("b"), job("c"), job("d", PERIOD)), PATHS.prefix)
    found = {name: timer_files.There(*texts, True) for name, texts in wanted.items()}
    live = {"a": Live(), "b": Live(active=False), "c": Live(stale=True), "d": Live(stale=True, stale_times=True)}
    work = plan(wanted, found, live)
    assert (work.started, work.changed, work.unchanged) == (["b"], ["c", "d"], ["a"])
    assert (work.write, work.stop, work.start) == ([], [], ["b"])
    work = plan(wanted, found, {"a": Live(stale=True, stale_times=True)})
    assert (work.stop, work.start) == (["a"], ["a"])


def test_only_a_timer_with_a_calendar_is_stopped_for_new_times() -> None:
    before = render(declared(job("a", PERIOD), job("b", HOURLY), job("c", PERIOD), job("d", HOURLY)), PATHS.prefix)
    found = {name: timer_files.There(*texts, True) for name, texts in before.items()}
    after = declared(job("a", LONGER), job("b", PERIOD), job("c", DAILY), job("d", DAILY))
    work = plan(render(after, PATHS.prefix), found, {})
    assert (work.changed, work.stop, work.start) == (["a", "b", "c", "d"], ["c", "d"], ["c", "d"])


# -- a system that runs: by the rules that systemd was seen to go by ------------------------------------------------


class Killed(BaseException):
    """kill -9, as far as one process can do that to itself."""


class Machine:
    """Files, and a service manager that keeps the rules which matter here. ``wrong`` is what must never happen.

    ``fuse`` is how many changes are let through before whoever makes them is killed.
    """

    def __init__(self, root: Path) -> None:
        self.units = install(root)
        self.loaded: dict[str, JobUnits] = {}
        self.active: set[str] = set()
        self.plain: set[str] = set()
        """Timers that ran without being persistent, last."""
        self.root = root
        self.stamp("a").parent.mkdir(parents=True)
        self.wrong: list[str] = []
        self.fuse: int | None = None
        self.changes = 0

    def burn(self) -> None:
        self.changes += 1
        if self.fuse is not None:
            if not self.fuse:
                raise Killed
            self.fuse -= 1

    def stamp(self, name: str) -> Path:
        """What it remembers of a persistent timer."""
        return self.root / "var/lib/systemd/timers" / f"stamp-agent-job@{name}.timer"

    @property
    def stamps(self) -> set[str]:
        return {name for name in "abcd" if self.stamp(name).exists()}

    def lies(self, name: str) -> JobUnits:
        texts = [self.units / place(name, suffix) for suffix in timer_files.SUFFIXES]
        return JobUnits(*(path.read_text() if path.exists() else "" for path in texts))

    def begin(self, name: str) -> None:
        """Have a timer run, by what was read of it."""
        self.active.add(name)
        if not is_persistent(self.loaded[name].timer):
            self.plain.add(name)
            return
        if name in self.plain and self.stamp(name).exists():
            self.wrong.append(f"{name} makes up for a time at which it was not persistent")
        self.plain.discard(name)
        self.stamp(name).touch()

    def reboot(self) -> None:
        """What is enabled is read and runs."""
        self.active.clear()
        self.loaded = {name: self.lies(name) for name in "abcd"}
        for name in "abcd":
            if (self.root / timer_files.enabling(name).lstrip("/")).is_symlink():
                if not self.loaded[name].timer:
                    self.wrong.append(f"{name} goes by the times of the template")
                self.begin(name)

    def call(self, verb: str, *words: str) -> None:
        self.burn()
        names = [found[0] for word in words if (found := parse_place(f"{word}.d"))]
        match verb:
            case "stop":
                self.active -= set(names)
            case "start":
                for name in names:
                    self.loaded.setdefault(name, self.lies(name))
                    self.begin(name)
            case "daemon-reload":
                for name in self.active:
                    if is_persistent(self.loaded[name].timer):
                        self.stamp(name).touch()  # it has elapsed once more
                for name in sorted(self.active):
                    before, after = self.loaded[name].timer, self.lies(name).timer
                    if not after:
                        self.wrong.append(f"{name} goes by the times of the template")
                    elif before != after and has_calendar(after):
                        self.wrong.append(f"{name} may be started at once")
                self.loaded = {name: self.lies(name) for name in self.active}
            case "reset-failed":
                pass
            case _:
                raise AssertionError(verb)

    def show(self, asked: Sequence[str], properties: Sequence[str]) -> dict[str, Properties]:
        found: dict[str, Properties] = {}
        for word in asked:
            name, suffix = parse_place(f"{word}.d") or ("", "timer")
            now, then = self.lies(name), self.loaded.setdefault(name, self.lies(name))
            stale = getattr(now, suffix) != getattr(then, suffix)
            found[word] = {
                "ActiveState": "active" if name in self.active and suffix == "timer" else "inactive",
                "NeedDaemonReload": "yes" if stale else "no",
            }
        return found

    def sync(self, declaration: Declaration) -> SyncReport:
        return sync(declaration, PATHS)

    def check(self, declaration: Declaration) -> None:
        """Everything declared is in force, and nothing else."""
        wanted = render(declaration, PATHS.prefix)
        assert self.wrong == []
        assert self.active == wanted.keys()
        assert {name: self.loaded[name] for name in self.active} == wanted
        assert timer_files.out_of_sync(declaration, PATHS, self.root) == []
        assert self.stamps == {name for name, texts in wanted.items() if is_persistent(texts.timer)}
        assert told(self.sync(declaration)) == ([], [], [], len(wanted))


@contextmanager
def machine() -> Iterator[Machine]:
    """One that the code under test takes for this one."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        made = Machine(Path(directory))

        def burning(function: Callable[..., Any]) -> Callable[..., Any]:
            def burn(*arguments: Any, **more: Any) -> Any:
                made.burn()
                return function(*arguments, **more)

            return burn

        patch.setattr("os.fsync", lambda descriptor: None)  # a disk has no time for hundreds of these
        patch.setattr(timer_sync, "HERE", made.root)
        patch.setattr(systemd, "booted", lambda: True)
        patch.setattr(systemctl, "call", made.call)
        patch.setattr(systemctl, "show", made.show)
        for change in ("mkdir", "rename", "unlink", "rmdir", "symlink", "fchmod"):
            patch.setattr(os, change, burning(getattr(os, change)))
        yield made


JOBS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.tuples(st.sampled_from([HOURLY, DAILY, KEPT, PERIOD, LONGER]), st.sampled_from([Limits(), Limits(pids=9)])),
)
DECLARATIONS = st.builds(
    lambda jobs, scheduler: declared(
        *(job(name, timer, limits=limits) for name, (timer, limits) in jobs.items()), scheduler=scheduler
    ),
    JOBS,
    st.sampled_from(["systemd", "systemd", "systemd", "agent"]),
)


@given(st.lists(DECLARATIONS, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_whatever_was_in_force_what_is_declared_comes_into_force(declarations: list[Declaration]) -> None:
    with machine() as made:
        for declaration in declarations:
            report = made.sync(declaration)
            assert report.problems == []
            made.check(declaration)


@given(DECLARATIONS, DECLARATIONS, DECLARATIONS, st.integers(0, 40), st.integers(0, 40), st.booleans())
@settings(max_examples=300, deadline=None)
def test_killed_at_any_step_the_next_one_goes_on(
    before: Declaration, meant: Declaration, after: Declaration, fuse: int, another: int, reboot: bool
) -> None:
    with machine() as made:
        made.sync(before)
        for length in (fuse, another):
            made.fuse = length
            with suppress(Killed):
                made.sync(meant)
            made.fuse = None
        if reboot:
            made.reboot()
        made.sync(after)
        made.check(after)


@pytest.mark.parametrize("fuse", range(16))
def test_what_was_persistent_once_makes_up_for_nothing_when_it_is_so_again(fuse: int) -> None:
    with machine() as made:
        made.sync(declared(job("a", KEPT)))
        made.fuse = fuse
        with suppress(Killed):
            made.sync(declared(job("a", DAILY)))
        made.fuse = None
        made.reboot()
        made.sync(declared(job("a", KEPT)))
        made.check(declared(job("a", KEPT)))


def test_a_change_that_is_killed_half_way_is_of_several_steps() -> None:
    """Or else the test above would show less than it says."""
    with machine() as made:
        made.sync(declared(job("a"), job("b", KEPT), job("c", PERIOD)))
        made.changes = 0
        made.sync(declared(job("a", DAILY), job("b", HOURLY), job("d")))
        assert made.changes > 15


def test_a_job_that_is_gone_is_forgotten(root: Path) -> None:
    with machine() as made:
        made.sync(declared(job("a", KEPT), job("b", KEPT)))
        assert made.stamps == {"a", "b"}
        made.sync(declared(job("a", KEPT)))
        assert made.stamps == {"a"}
        made.sync(declared(job("a", DAILY)))
        assert made.stamps == set()


def test_what_systemd_refuses_is_told_and_keeps_nothing_else_from_being_done() -> None:
    with machine() as made, pytest.MonkeyPatch.context() as patch:
        made.sync(declared(job("a")))

        def refuse(verb: str, *words: str) -> None:
            if verb == "stop":
                raise RuntimeFailure("systemctl stop: it will not")
            made.call(verb, *words)

        patch.setattr(systemctl, "call", refuse)
        report = made.sync(declared(job("b")))
        assert report.problems == ["systemctl stop: it will not"]
        assert made.active == {"a", "b"}


def test_where_systemd_does_not_run_only_another_root_can_be_synced(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setattr(systemd, "RUNNING", Path("/nonexistent"))
    monkeypatch.setattr(timer_sync, "HERE", root)
    with pytest.raises(RuntimeFailure, match=r"^systemd does not run this machine .*--root DIR"):
        sync(declared(job()), PATHS)
    assert told(sync(declared(job()), PATHS, dry_run=True)) == (["job"], [], [], 0)
    assert told(sync(declared(), PATHS)) == ([], [], [], 0)


def test_only_root_may(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path) -> None:
    monkeypatch.setattr(systemd, "RUNNING", tmp_path)
    monkeypatch.setattr(timer_sync, "HERE", root)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(RuntimeFailure, match=r"^only root may change the units in /etc/systemd/system; --dry-run"):
        sync(declared(job()), PATHS)


def test_the_mark_is_that_of_the_prefix() -> None:
    assert mark(PATHS.prefix) in render(declared(job()), PATHS.prefix)["job"].timer
