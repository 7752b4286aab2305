"""Programs of others: run with what they need, and their failures told in a line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.installation import foreign
from agent.installation.steps import CreateDirectories, CreateUsers, DeleteUsers, Remove, Step
from tests.installation.image import system

USERS = 'u agent - "Agent" /srv\n'


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which programs are found; a program there appends its arguments to ``said``."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(foreign, "DEFAULT_PATH", "/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def program(tools: Path, name: str, code: int = 0, complaint: str = "") -> None:
    complain = f"echo '{complaint}' >&2\n" if complaint else ""
    (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tools}/said\n{complain}exit {code}\n')
    (tools / name).chmod(0o755)


def said(tools: Path) -> list[str]:
    return (tools / "said").read_text().splitlines()


def test_accounts_and_directories_are_made_in_an_image(tmp_path: Path) -> None:
    image = system(tmp_path / "image")
    for name, text in (("sysusers.d", USERS), ("tmpfiles.d", "d /srv/run 0750 agent agent -\n")):
        (image / "etc" / name).mkdir()
        (image / "etc" / name / "agent.conf").write_text(text)
    foreign.create_users(image, ["agent.conf"])
    foreign.create_directories(image, ["agent.conf"])
    entry = next(line for line in (image / "etc/passwd").read_text().splitlines() if line.startswith("agent:"))
    assert (image / "srv/run").stat().st_uid == int(entry.split(":")[2])
    foreign.delete_users(image, ["agent"], ["agent"])
    foreign.delete_users(image, ["agent"], ["agent"])
    assert "agent" not in (image / "etc/passwd").read_text() + (image / "etc/group").read_text()


def test_the_system_itself_needs_no_root(tools: Path) -> None:
    for name in ("systemd-sysusers", "systemd-tmpfiles", "userdel", "groupdel", "systemctl", "journalctl"):
        program(tools, name)
    foreign.create_users(Path("/"), ["a.conf", "b.conf"])
    foreign.create_directories(Path("/"), ["a.conf"])
    foreign.delete_users(Path("/"), ["agent"], ["agent", "ops"])
    foreign.reload()
    foreign.index_catalog(Path("/"))
    assert said(tools) == [
        "systemd-sysusers a.conf b.conf",
        "systemd-tmpfiles --create a.conf",
        "userdel agent",
        "groupdel agent",
        "groupdel ops",
        "systemctl daemon-reload",
        "journalctl --update-catalog",
    ]


def test_a_failure_is_told_with_what_the_program_said_last(tools: Path) -> None:
    program(tools, "systemctl", 1, "Failed to reload:\nAccess denied")
    with pytest.raises(RuntimeFailure) as raised:
        foreign.reload()
    assert str(raised.value) == "systemctl daemon-reload: Access denied"
    program(tools, "systemctl", 3)
    with pytest.raises(RuntimeFailure, match="systemctl daemon-reload: exited 3"):
        foreign.reload()


def test_units_that_are_not_loaded_need_not_be_stopped(tools: Path) -> None:
    program(tools, "systemctl", foreign.NOT_LOADED, "Unit agent.socket not loaded.")
    foreign.stop(["agent.socket", "agent-job@*.timer"])
    assert said(tools) == [
        "systemctl stop agent.socket agent-job@*.timer",
        "systemctl reset-failed agent.socket agent-job@*.timer",
    ]
    program(tools, "systemctl", 1, "Job for agent.service canceled.")
    with pytest.raises(RuntimeFailure, match=r"canceled\."):
        foreign.stop(["agent.service"])


def test_what_starts_others_is_stopped_before_these(tools: Path) -> None:
    program(tools, "systemctl", 0)
    foreign.stop(["agent-job@*.timer", "agent.socket", "agent-job@*.service", "agent.service", "agent.slice"])
    assert said(tools) == [
        "systemctl stop agent-job@*.timer agent.socket",
        "systemctl stop agent-job@*.service agent.service agent.slice",
        "systemctl reset-failed agent-job@*.timer agent.socket agent-job@*.service agent.service agent.slice",
    ]


def test_a_program_that_hangs_is_ended(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tools / "systemctl").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tools / "systemctl").chmod(0o755)
    monkeypatch.setattr(foreign._run, "__kwdefaults__", {"fine": (0,), "timeout": 0.2})
    with pytest.raises(RuntimeFailure, match="systemctl daemon-reload: did not end within 0 s"):
        foreign.reload()


def test_programs_get_none_of_our_variables(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    (tools / "systemctl").write_text(f"#!/bin/sh\nenv > {tools}/said\n")
    (tools / "systemctl").chmod(0o755)
    foreign.reload()
    names = {line.partition("=")[0] for line in said(tools)}
    assert not names & {"LD_PRELOAD", "NOTIFY_SOCKET"} and "PATH" in names


@pytest.mark.parametrize(
    ("steps", "missing"),
    [
        ([CreateUsers(()), CreateDirectories(())], "systemd-tmpfiles cannot be found; on Debian: apt install systemd"),
        ([DeleteUsers((), ())], "groupdel and userdel cannot be found; on Debian: apt install passwd"),
        ([Remove("/x")], None),
    ],
)
def test_what_is_missing_is_known_beforehand(
    tools: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Step], missing: str | None
) -> None:
    monkeypatch.setattr(foreign, "DEFAULT_PATH", str(tools))
    program(tools, "systemd-sysusers")
    if missing is None:
        foreign.check(steps)
    else:
        with pytest.raises(RuntimeFailure) as raised:
            foreign.check(steps)
        assert str(raised.value) == missing
    assert not os.path.lexists(tools / "said")
