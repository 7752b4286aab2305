"""``upgrade``: a version is tried out, installed and followed; or what was there before goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import handover
from agent.cli import upgrade as module
from agent.cli.base import Session
from agent.cli.upgrade import upgrade
from agent.errors import AgentError, RequestRefused, RuntimeFailure, UsageError
from agent.installation import candidate
from agent.installation.record import Record, encode
from agent.supervisor.report import AgentState, HandoverReport
from tests.cli.harness import Agentctl
from tests.cli.served import Served

FAILED = HandoverReport(id="1", state="failed", message="0.1.0 runs on: the version to follow could not take over: no")
DONE = HandoverReport(id="1", state="done", message="version 0.1.0 handed over to 0.2.0", pause_ms=9.5)

# -- what is installed already ----------------------------------------------------------------------------------------


def test_the_agent_becomes_what_is_installed(agentctl: Agentctl, served: Served) -> None:
    served.handovers = [DONE]
    done = agentctl("upgrade")
    assert (done.returncode, done.stdout) == (0, "version 0.1.0 handed over to 0.2.0\n")
    assert done.stderr == "agentctl: version 0.1.0 hands over\n"
    as_json = agentctl("upgrade", "--json")
    assert (as_json.returncode, as_json.stderr) == (0, "")
    assert json.loads(as_json.stdout)["pause_ms"] == 9.5


def test_one_that_cannot_take_over_is_a_failure_while_running(agentctl: Agentctl, served: Served) -> None:
    served.handovers = [FAILED]
    done = agentctl("upgrade")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"agentctl: {FAILED.message}"


def test_one_that_refuses_the_declaration_has_followed_and_says_so(agentctl: Agentctl, served: Served) -> None:
    served.handovers = [HandoverReport(id="1", state="done", message="handed over", refused="env.toml:3: no \x1b")]
    done = agentctl("upgrade")
    assert (done.returncode, done.stdout) == (2, "handed over\n")
    told = "agentctl: it refuses the declaration, and goes on with what was declared: env.toml:3: no \\x1b"
    assert done.stderr.splitlines()[-1] == told


def test_what_the_agent_refuses_is_told_in_its_words(agentctl: Agentctl, served: Served) -> None:
    served.upgraded = RequestRefused(503, "the agent is stopping")
    done = agentctl("upgrade")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"agentctl: {served.upgraded}\n")


def test_without_an_agent_there_is_nothing_to_do(agentctl: Agentctl) -> None:
    done = agentctl("upgrade")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the agent is not running" in done.stderr


# -- a file -----------------------------------------------------------------------------------------------------------


def program(file: Path, version: str, selftest: str = "exit 0", install: str = "exit 0") -> Path:
    """What behaves like a version of agentctl, and writes down what it is asked."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f'#!/bin/sh\necho "{version} $*" >> {file.parent}/asked\n'
        f"case $1 in --version) echo agentctl {version} ;; selftest) {selftest} ;; install) {install} ;; esac\n"
    )
    file.chmod(0o755)
    return file


@pytest.fixture
def offered(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 0.2.0 in a file; 0.1.0 is installed below the prefix. They are scripts, which no version really is."""
    monkeypatch.setattr(candidate, "examine", lambda file: None)
    library = prefix / "lib" / "agent"
    program(library / "0.1.0" / "agentctl", "0.1.0")
    (library / "install.json").write_bytes(encode(Record(str(prefix), "0.1.0")))
    return program(tmp_path / "offer" / "agentctl-0.2.0", "0.2.0")


@pytest.fixture
def run(prefix: Path) -> Callable[..., None]:
    """The command in this process, where ``examine`` has been told to let scripts pass."""
    return lambda *arguments: upgrade.main(
        list(arguments), obj=Session(prefix=prefix, json=False), standalone_mode=False
    )


def asked(file: Path) -> list[str]:
    found = file.parent / "asked"
    return found.read_text().splitlines() if found.exists() else []


def old(prefix: Path) -> Path:
    return prefix / "lib" / "agent" / "0.1.0" / "agentctl"


def test_a_file_is_tried_out_installed_and_followed_in_that_order(
    prefix: Path, offered: Path, served: Served, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    served.handovers = [DONE]
    run(str(offered))
    assert asked(offered) == ["0.2.0 --version", "0.2.0 selftest --json", f"0.2.0 install --prefix {prefix}"]
    shown = capsys.readouterr()
    assert shown.out == "version 0.1.0 handed over to 0.2.0\n"
    assert shown.err.splitlines() == [
        "agentctl: 0.2.0: trying it out",
        f"agentctl: 0.2.0: installing it below {prefix}",
        "agentctl: version 0.1.0 hands over",
    ]
    assert asked(old(prefix)) == []


def test_one_that_fails_its_self_test_is_not_installed(
    prefix: Path, offered: Path, served: Served, run: Callable[..., None]
) -> None:
    program(offered, "0.2.0", selftest="echo no good; exit 2")
    with pytest.raises(RuntimeFailure, match="fails its self-test: no good; nothing was changed"):
        run(str(offered))
    assert asked(offered) == ["0.2.0 --version", "0.2.0 selftest --json"]


def test_one_that_cannot_be_installed_is_not_followed(
    prefix: Path, offered: Path, served: Served, run: Callable[..., None]
) -> None:
    program(offered, "0.2.0", install="echo 'agentctl: the disk is full' >&2; exit 2")
    served.upgraded = RuntimeFailure("nobody should have asked")
    with pytest.raises(RuntimeFailure, match=r"^the disk is full$"):
        run(str(offered))
    program(offered, "0.2.0", install="echo 'agentctl: no such prefix' >&2; exit 1")
    with pytest.raises(UsageError, match=r"^no such prefix$"):
        run(str(offered))
    assert asked(old(prefix)) == []


def test_without_an_agent_it_is_installed_all_the_same(
    offered: Path, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run(str(offered))
    assert capsys.readouterr().out == "0.2.0 is installed; no agent runs\n"
    assert len(asked(offered)) == 3


def test_an_agent_that_is_of_that_version_need_not_follow_itself(
    offered: Path, served: Served, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    served.report.version = "0.2.0"  # systemd has just started it, because we asked
    served.upgraded = RuntimeFailure("nobody should have asked")
    run(str(offered))
    assert capsys.readouterr().out == "0.2.0 is installed, and runs\n"


def test_an_agent_that_is_starting_is_waited_for(
    offered: Path, served: Served, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    states: Iterator[AgentState] = iter(["starting", "starting", "running"])
    status = served.status

    def seen(name: str | None = None) -> Any:
        served.report.state = next(states, "running")
        return status(name)

    monkeypatch.setattr(served, "status", seen)
    served.handovers = [DONE]
    run(str(offered))
    assert next(states, None) is None


@pytest.mark.parametrize("refusal", [None, RequestRefused(503, "it stops"), RuntimeFailure("its self-test")])
def test_what_does_not_follow_is_not_left_installed(
    prefix: Path, offered: Path, served: Served, run: Callable[..., None], refusal: AgentError | None
) -> None:
    served.handovers = [FAILED]
    if refusal is not None:
        served.upgraded = refusal
    with pytest.raises(RuntimeFailure) as failure:
        run(str(offered))
    why = FAILED.message if refusal is None else str(refusal)
    assert str(failure.value) == f"{why}; 0.1.0 is installed again"
    assert asked(old(prefix)) == [f"0.1.0 install --prefix {prefix} --force"]


def test_an_agent_that_is_busy_is_waited_for(
    offered: Path, served: Served, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = [RequestRefused(409, "ask again afterwards"), RequestRefused(409, "ask again afterwards")]
    begun = served.upgraded

    async def begin() -> HandoverReport:
        if busy:
            raise busy.pop()
        assert isinstance(begun, HandoverReport)
        return begun

    monkeypatch.setattr(served, "upgrade", begin)
    served.handovers = [DONE]
    run(str(offered))
    assert not busy


def test_one_that_somebody_else_has_had_it_become_meanwhile_runs(
    prefix: Path, offered: Path, served: Served, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    async def begin() -> HandoverReport:
        served.report.version = "0.2.0"
        raise RequestRefused(409, "being upgraded: ask again afterwards")

    served.upgrade = begin  # type: ignore[method-assign]  # for this one agent
    run(str(offered))
    assert capsys.readouterr().out == "0.2.0 is installed, and runs\n"
    assert asked(old(prefix)) == []


def test_an_agent_that_stays_busy_is_not_waited_for_for_ever(
    prefix: Path, offered: Path, served: Served, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    served.upgraded = RequestRefused(409, "ask again afterwards")
    with pytest.raises(RuntimeFailure, match=r"ask again afterwards; 0\.1\.0 is installed again"):
        run(str(offered))
    assert len(asked(old(prefix))) == 1


def test_a_version_that_was_started_anew_and_runs_is_told(
    prefix: Path, offered: Path, served: Served, run: Callable[..., None]
) -> None:
    def crash() -> HandoverReport:
        served.report.version = "0.2.0"
        return HandoverReport(id="1", state="failed", message="the agent died; version 0.2.0 was started anew")

    served.handover = crash  # type: ignore[method-assign]  # for this one agent
    with pytest.raises(RuntimeFailure) as failure:
        run(str(offered))
    told = "0.1.0 is installed again, and 0.2.0 runs: `agentctl upgrade` replaces it"
    assert str(failure.value).endswith(told)


def test_one_that_has_followed_and_is_still_at_it_stays_installed(
    prefix: Path, offered: Path, served: Served, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 0.2)
    served.handovers = [HandoverReport(id="1", state="begun", message="handed over", pause_ms=9.5)]
    with pytest.raises(RuntimeFailure, match=r"handed over; what is declared anew is not in force after 0.2 s"):
        run(str(offered))
    assert asked(old(prefix)) == []


def test_where_there_was_no_version_before_none_is_put_back(
    prefix: Path, offered: Path, served: Served, run: Callable[..., None]
) -> None:
    served.handovers = [FAILED]
    (prefix / "lib" / "agent" / "install.json").unlink()
    with pytest.raises(RuntimeFailure, match=r"could not take over: no$"):
        run(str(offered))
    (prefix / "lib" / "agent" / "install.json").write_bytes(encode(Record(str(prefix), "0.2.0")))
    with pytest.raises(RuntimeFailure, match=r"could not take over: no$"):
        run(str(offered))
    assert asked(old(prefix)) == []


@pytest.mark.parametrize("kept", [True, False], ids=["installed beside it", "not installed"])
def test_an_older_one_is_refused_before_anything_with_the_way_back(
    prefix: Path,
    offered: Path,
    served: Served,
    run: Callable[..., None],
    kept: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program(offered, "0.0.9")
    if kept:
        program(prefix / "lib" / "agent" / "0.0.9" / "agentctl", "0.0.9")
    with pytest.raises(UsageError) as failure:
        run(str(offered))
    way = f"{prefix}/lib/agent/0.0.9/agentctl" if kept else f"{offered} --prefix {prefix}"
    assert str(failure.value) == (
        f"0.1.0 is installed below {prefix}, and {offered} is 0.0.9: go back with `{way} install --force`, "
        "then `systemctl reload agent`"
    )
    assert asked(offered) == ["0.0.9 --version"]
    assert capsys.readouterr().err == ""


def test_who_is_not_root_is_refused_before_anything(
    offered: Path, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(RuntimeFailure, match=r"takes root: do it as root \(sudo\)$"):
        run(str(offered))
    assert asked(offered) == []


def test_a_file_is_named_from_where_the_person_is(
    offered: Path, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(offered.parent)
    run(offered.name)
    assert len(asked(offered)) == 3


def test_what_is_no_program_is_refused_before_anything(agentctl: Agentctl, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("not a program")
    done = agentctl("upgrade", str(notes))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"agentctl: {notes}: is no agentctl, nor any other program; give the one file of another version\n"
    )
