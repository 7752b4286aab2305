"""``timers``: every job with its next and its last run, whoever starts it. With a real systemd: tests/system."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from agent.cli import text, timers
from agent.control.api import Timers
from agent.errors import RequestRefused
from agent.installation import timer_state
from agent.installation.timer_state import JobState
from agent.linux import systemd
from agent.supervisor.report import TimerReport
from tests.cli.harness import Agentctl, Done
from tests.cli.served import Served
from tests.installation.conftest import install, tree

SYSTEMDS = """\
[agent]
scheduler = "systemd"

[service.nightly]
kind = "command"
command = ["/bin/true"]
oncalendar = "Mon..Fri 02:30"

[service.often]
kind = "command"
command = ["/bin/true"]
every = "1h"
"""


@pytest.fixture
def declaration(prefix: Path) -> Path:
    (prefix / "key").mkdir(parents=True)
    made = prefix / "key" / "env.toml"
    made.write_text(SYSTEMDS)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    install(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def unmanaged(agentctl: Agentctl) -> Callable[..., Done]:
    """agentctl on a machine that no systemd runs, whatever runs this one: sd_booted(3) looks into /run."""
    alone = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /run/systemd 2> /dev/null || :; exec "$@"', "sh"]

    def run(*arguments: str) -> Done:
        return subprocess.run(
            [*alone, sys.executable, "-m", "agent", *arguments],
            env=agentctl.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    return run


def test_every_job_is_a_line(agentctl: Agentctl, served: Served) -> None:
    served.jobs = [
        TimerReport(
            name="nightly",
            schedule="*-*-* 02:30:00",
            next_run=4_000_000_000.0,
            last_run=1_700_000_000.0,
            last_exit="exit code 2",
        ),
        TimerReport(name="done", schedule="2020-01-01", next_run=None, state="completed"),
    ]
    heads, nightly, done = agentctl("timers").stdout.splitlines()
    assert re.split("  +", heads) == [
        *("NAME", "SCHEDULER", "STATE", "NEXT RUN", "LEFT", "LAST RUN", "LAST EXIT", "SCHEDULE")
    ]
    assert re.match(
        r"nightly +agent +waiting +2096-10-02 07:06:40 +\d+d( \d+h)? +2023-11-14 22:13:20 +exit code 2 +"
        r"\*-\*-\* 02:30:00$",
        nightly,
    )
    assert re.match(r"done +agent +completed +- +- +- +- +2020-01-01$", done)
    assert [timer["name"] for timer in json.loads(agentctl("timers", "--json").stdout)["timers"]] == ["nightly", "done"]


def test_without_jobs_it_says_so(agentctl: Agentctl, served: Served) -> None:
    assert agentctl("timers").stdout == "no jobs are declared\n"


def test_timers_that_are_not_as_declared_are_told(agentctl: Agentctl, served: Served) -> None:
    served.jobs = [TimerReport(name="nightly", schedule="daily", next_run=None)]
    served.out_of_sync = ["gone", "nightly"]
    assert agentctl("timers").stdout.splitlines()[-1] == (
        "timers are not as declared: gone, nightly; run `agentctl timers sync`"
    )
    assert json.loads(agentctl("timers", "--json").stdout)["out_of_sync"] == ["gone", "nightly"]


def test_jobs_whose_timers_are_not_active_are_told_unless_they_are_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(names: Sequence[str]) -> dict[str, JobState]:
        return {name: JobState("stopped", None, None, None, active=name == "fine") for name in names}

    monkeypatch.setattr(timer_state, "ask", ask)
    monkeypatch.setattr(systemd, "booted", lambda: True)
    jobs = [("fine", True), ("off", False), ("idle", True)]
    found = [TimerReport(name=name, schedule="", next_run=None, scheduler="systemd", enabled=on) for name, on in jobs]
    found.append(TimerReport(name="agents", schedule="", next_run=None))
    assert timers._complete([msgspec.to_builtins(timer) for timer in found]) == ["idle"]
    assert text.not_active(["idle"]) == ["timers are not active: idle; run `agentctl timers sync`"]
    assert text.not_active([]) == []


def test_where_systemd_does_not_run_its_jobs_are_shown_and_that_is_told(
    unmanaged: Callable[..., Done], served: Served
) -> None:
    served.jobs = [TimerReport(name="nightly", schedule="daily", next_run=None, scheduler="systemd")]
    done = unmanaged("timers")
    assert re.match(r"nightly +systemd +waiting +- +- +- +- +daily$", done.stdout.splitlines()[1])
    assert done.stderr == "systemd, which is to start nightly, does not run this machine\n"


def test_without_an_agent_the_jobs_of_systemds_come_from_the_declaration(
    unmanaged: Callable[..., Done], declaration: Path
) -> None:
    done = unmanaged("timers")
    assert done.returncode == 0
    _, nightly, often, hint = done.stdout.splitlines()
    assert re.match(r"nightly +systemd +stopped +- +- +- +- +Mon\.\.Fri 02:30$", nightly)
    assert re.match(r"often +systemd +stopped +- +- +- +- +every 1h$", often)
    assert hint == "timers are not as declared: nightly, often; run `agentctl timers sync`"


def test_whom_the_agent_refuses_sees_what_he_sees_where_none_runs(
    unmanaged: Callable[..., Done], declaration: Path, served: Served
) -> None:
    def refuse() -> Timers:
        raise RequestRefused(403, "user joe (1000) may not talk to this agent")

    served.timers = refuse  # type: ignore[method-assign]  # for this one agent
    done = unmanaged("timers")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 4)
    declaration.write_text("")  # and the agent's own jobs are not for him
    done = unmanaged("timers")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "agentctl: user joe (1000) may not talk to this agent\n",
    )


@pytest.mark.parametrize("text", ['scheduler = "agent"', "scheduler = 'neither'", None])
def test_without_an_agent_nobody_starts_the_agents_jobs(
    agentctl: Agentctl, declaration: Path, text: str | None
) -> None:
    if text is None:
        declaration.unlink()
    else:
        declaration.write_text(SYSTEMDS.replace('scheduler = "systemd"', text))
    done = agentctl("timers")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("agentctl: the agent is not running: ") and done.stderr.count("\n") == 1


# -- sync -----------------------------------------------------------------------------------------------------------


def test_files_for_another_root_are_made_and_made_once(agentctl: Agentctl, declaration: Path, root: Path) -> None:
    dry = agentctl("timers", "sync", "--dry-run", "--root", str(root))
    assert dry.stdout == "nightly: would be started\noften: would be started\n"
    assert tree(root) == {}
    first = agentctl("timers", "sync", "--root", str(root))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == "nightly: started\noften: started\n"
    assert "OnCalendar=Mon..Fri *-*-* 02:30:00" in "".join(tree(root).values())
    assert agentctl("timers", "sync", "--root", str(root)).stdout == "2 timers as declared\n"
    declaration.write_text(SYSTEMDS.replace("02:30", "03:30"))
    assert agentctl("timers", "sync", "--root", str(root)).stdout == "nightly: changed\n1 other timer as declared\n"
    declaration.write_text("")
    assert agentctl("timers", "sync", "--root", str(root)).stdout == "nightly: removed\noften: removed\n"
    assert tree(root) == {}
    assert agentctl("timers", "sync", "--root", str(root)).stdout == "0 timers as declared\n"


def test_a_program_is_told_the_same(agentctl: Agentctl, declaration: Path, root: Path) -> None:
    done = agentctl("timers", "sync", "--json", "--root", str(root))
    assert json.loads(done.stdout) == {
        "scheduler": "systemd",
        "dry_run": False,
        "started": ["nightly", "often"],
        "changed": [],
        "removed": [],
        "unchanged": 0,
        "problems": [],
    }


def test_a_wrong_declaration_changes_nothing_and_exits_1(agentctl: Agentctl, declaration: Path, root: Path) -> None:
    agentctl("timers", "sync", "--root", str(root))
    before = tree(root)
    declaration.write_text(SYSTEMDS.replace("Mon..Fri", "Mon..Fry"))
    done = agentctl("timers", "sync", "--root", str(root))
    assert (done.returncode, done.stdout) == (1, "")
    assert "service.nightly.oncalendar" in done.stderr
    assert tree(root) == before


def test_what_is_in_the_way_exits_2_with_one_line(agentctl: Agentctl, declaration: Path, root: Path) -> None:
    drop_in = root / "etc/systemd/system/agent-job@often.timer.d/10-declaration.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Timer]\nOnCalendar=hourly\n")
    done = agentctl("timers", "sync", "--root", str(root))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"agentctl: {drop_in}: was not made by this agent; ") and done.stderr.count("\n") == 1


def test_a_root_that_does_not_exist_exits_1_with_one_line(agentctl: Agentctl, declaration: Path, root: Path) -> None:
    for option in ((), ("--dry-run",)):
        done = agentctl("timers", "sync", "--root", str(root / "nowhere"), *option)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"agentctl: --root {root / 'nowhere'}: is no directory\n"


def test_where_systemd_does_not_run_there_is_nothing_to_sync(unmanaged: Callable[..., Done], declaration: Path) -> None:
    done = unmanaged("timers", "sync")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("agentctl: systemd does not run this machine ") and done.stderr.count("\n") == 1
    assert unmanaged("timers", "sync", "--dry-run").stdout == "nightly: would be started\noften: would be started\n"
