"""Whoever waits for a hand-over learns what became of it, and waits no longer than is sensible."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.cli import handover
from agent.cli.handover import Unsettled, awaited
from agent.control.client import Client
from agent.errors import NotRunning, RequestRefused, RuntimeFailure
from agent.paths import Paths
from agent.supervisor.report import HandoverReport, ReloadReport
from tests.cli.served import Served, serving

BEGUN = HandoverReport(id="1", state="begun", before="0.1.0", after="0.2.0")
FOLLOWED = HandoverReport(id="1", state="begun", message="0.1.0 handed over to 0.2.0", pause_ms=9.5)
DONE = HandoverReport(id="1", state="done", message="0.1.0 handed over to 0.2.0", pause_ms=9.5, reload=ReloadReport())


@pytest.fixture
def paths(prefix: Path) -> Paths:
    """Where the agent of that prefix is to be found; whose process it is nobody has written down."""
    return Paths.of(prefix)


def test_it_is_waited_for_until_it_is_done(served: Served, paths: Paths) -> None:
    served.handovers = [BEGUN, BEGUN, FOLLOWED, DONE]
    report = awaited(paths, "1")
    assert (report["state"], report["message"], report["reload"]["unchanged"]) == (
        "done",
        "0.1.0 handed over to 0.2.0",
        0,
    )


def test_one_that_failed_is_a_failure_in_its_own_words(served: Served, paths: Paths) -> None:
    served.handovers = [BEGUN, HandoverReport(id="1", state="failed", message="0.1.0 runs on: no luck")]
    with pytest.raises(RuntimeFailure, match=r"^0.1.0 runs on: no luck$"):
        awaited(paths, "1")


@pytest.mark.parametrize("anew", [HandoverReport(), HandoverReport(id="2", state="done")])
def test_an_agent_that_knows_nothing_of_it_was_started_anew(served: Served, paths: Paths, anew: HandoverReport) -> None:
    served.handovers = [BEGUN, anew]
    with pytest.raises(RuntimeFailure, match="was started anew during the hand-over"):
        awaited(paths, "1")


def test_nobody_on_the_socket_for_a_while_is_what_is_to_be_expected(
    prefix: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = threading.Event()

    class Turned(Client):
        """One that says when it has found nobody."""

        def request(self, method: str, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
            try:
                return super().request(method, path, query)
            except NotRunning:
                alone.set()
                raise

    monkeypatch.setattr(handover, "Client", Turned)
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.append(awaited(paths, "1")["message"]))
    waiting.start()
    assert alone.wait(10)
    with serving(prefix) as agent:
        agent.handovers = [FOLLOWED, DONE]
        waiting.join(10)
    assert answers == ["0.1.0 handed over to 0.2.0"]


def test_nobody_for_longer_is_nobody(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "SILENCE", 0.2)
    begun = time.monotonic()
    with pytest.raises(RuntimeFailure, match="the agent died during the hand-over: the agent is not running") as gone:
        awaited(paths, "1")
    assert 0.2 < time.monotonic() - begun < 3
    assert not isinstance(gone.value, NotRunning), "there was one"


def test_who_has_died_is_not_waited_for(paths: Paths) -> None:
    paths.run.mkdir(parents=True)
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    paths.agent_pid.write_text(f"{gone.pid}\n")
    begun = time.monotonic()
    with pytest.raises(RuntimeFailure, match="the agent died during the hand-over"):
        awaited(paths, "1")
    assert time.monotonic() - begun < 2


def test_a_pipe_where_the_pid_should_be_is_not_waited_for(served: Served, paths: Paths) -> None:
    """It lies where the agent may write, and root asks."""
    paths.run.mkdir(parents=True, exist_ok=True)
    os.mkfifo(paths.agent_pid)
    served.handovers = [DONE]
    assert awaited(paths, "1")["state"] == "done"


def test_who_does_not_answer_is_asked_again(served: Served, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "ANSWER", 0.1)
    asked: list[float] = []

    def slow() -> HandoverReport:
        asked.append(time.monotonic())
        if len(asked) == 1:
            time.sleep(0.3)
        return DONE

    monkeypatch.setattr(served, "handover", slow)
    assert awaited(paths, "1")["state"] == "done"
    assert len(asked) > 1


def test_a_version_that_runs_and_is_not_done_is_told_apart_from_one_that_never_came(
    served: Served, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 0.2)
    served.handovers = [BEGUN]
    with pytest.raises(RuntimeFailure, match=r"the hand-over is not done after 0.2 s") as never:
        awaited(paths, "1")
    assert not isinstance(never.value, Unsettled)
    served.handovers = [BEGUN, FOLLOWED]
    with pytest.raises(
        Unsettled, match=r"0.1.0 handed over to 0.2.0; what is declared anew is not in force after 0.2 s"
    ):
        awaited(paths, "1")


def test_a_crowd_is_no_failure_and_any_other_refusal_is(
    served: Served, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[RequestRefused | HandoverReport] = [RequestRefused(503, "all are taken"), BEGUN, DONE]

    def handover() -> HandoverReport:
        answer = answers.pop(0)
        if isinstance(answer, RequestRefused):
            raise answer
        return answer

    monkeypatch.setattr(served, "handover", handover)
    assert awaited(paths, "1")["state"] == "done"
    answers = [RequestRefused(404, "no such thing")]
    with pytest.raises(RequestRefused, match="no such thing"):
        awaited(paths, "1")
