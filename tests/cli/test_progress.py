"""Steps, told to a person: a line for each thing that matters, and a tree as one."""

from __future__ import annotations

import pytest

from agent.cli.progress import Line, Progress, described, document, refuse
from agent.installation.entry import Directory, File, Link
from agent.installation.install import Outcome, Refused
from agent.installation.record import Record
from agent.installation.steps import (
    Begin,
    CreateUsers,
    DeleteUsers,
    Make,
    Note,
    Point,
    Reload,
    Remove,
    RemoveTree,
    Step,
    Stop,
    Write,
)


def file(path: str, *, replace: bool = False) -> Write:
    return Write(File(path, "0644", "0" * 64), replace=replace)


STEPS: list[Step] = [
    Begin(Record("/srv")),
    Make(Directory("/srv/lib/agent/0.1.0")),
    file("/srv/lib/agent/0.1.0/agentctl"),
    Make(Directory("/srv/lib/agent/0.1.0/lib")),
    file("/srv/lib/agent/0.1.0/lib/x"),
    Point(Link("/srv/lib/agent/0.1.0/lib/y", "x"), replace=False),
    CreateUsers(("agent.conf",)),
    file("/etc/systemd/system/agent.service", replace=True),
    Point(Link("/srv/lib/agent/current", "0.1.0"), replace=True),
    Remove("/srv/lib/agent/0.0.8/agentctl"),
    Remove("/srv/lib/agent/0.0.9/agentctl"),
    Reload(),
    Note(Record("/srv")),
]


@pytest.mark.parametrize(
    ("dry_run", "verbs"),
    [(False, "laid made replaced linked removed reloaded"), (True, "lay make replace link remove reload")],
    ids=["done", "would be"],
)
def test_a_tree_is_one_line_and_everything_else_one_each(dry_run: bool, verbs: str) -> None:
    shown: list[str] = []
    progress = Progress("/srv", dry_run=dry_run, show=shown.append)
    for step in STEPS:
        progress(step)
    progress.close()
    lay, make, replace, link, remove, reload = (verb.ljust(8) for verb in verbs.split())
    assert shown == [
        f"{lay}  /srv/lib/agent/0.1.0 (3 files)",
        f"{make}  user and group agent (systemd-sysusers)",
        f"{replace}  /etc/systemd/system/agent.service",
        f"{link}  /srv/lib/agent/current -> 0.1.0",
        f"{remove}  /srv/lib/agent/0.0.8 (1 file)",
        f"{remove}  /srv/lib/agent/0.0.9 (1 file)",
        f"{reload}  systemd",
    ]


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (Stop(("agent.socket", "agent.service")), Line("stop", "agent.socket, agent.service")),
        (RemoveTree("/srv/log"), Line("remove", "/srv/log and all that was in it")),
        (DeleteUsers(("agent",), ("agent", "ops")), Line("delete", "user agent, group agent, group ops")),
        (Remove("/srv/bin/agentctl"), Line("remove", "/srv/bin/agentctl")),
        (Note(Record("/srv")), None),
    ],
)
def test_each_kind_of_step_has_its_words(step: Step, line: Line | None) -> None:
    assert described(step, "/srv") == line


def test_lines_are_shown_when_they_are_known_and_not_later() -> None:
    shown: list[str] = []
    progress = Progress("/srv", dry_run=False, show=shown.append)
    progress(Reload())
    assert shown == ["reloaded  systemd"]
    progress(file("/srv/lib/agent/0.1.0/x"))
    assert len(shown) == 1
    progress(Reload())
    assert len(shown) == 3


def test_what_a_terminal_would_obey_is_only_displayed() -> None:
    shown: list[str] = []
    Progress("/srv", dry_run=False, show=shown.append)(Remove("/srv/\x1b[2J"))
    assert shown == ["removed   /srv/\\x1b[2J"]


def test_a_document_has_no_records_in_it() -> None:
    found = document(Outcome("/srv", "/", "", "0.1.0", False, tuple(STEPS)))
    assert found["changed"] and [step["step"] for step in found["steps"]][:2] == ["begin", "directory"]
    assert all("record" not in step for step in found["steps"])
    assert not document(Outcome("/srv", "/", "", "0.1.0", True, tuple(STEPS)))["changed"]


def test_all_objections_but_the_last_are_printed_and_that_is_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert str(refuse(Refused(["one", "two", "three"]))) == "three"
    assert capsys.readouterr().err == "agentctl: one\nagentctl: two\n"
