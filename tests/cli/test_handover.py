"""Whoever waits for a hand-over learns what became of it, and waits no longer than is sensible."""

from __future__ import annotations

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
from agent.supervisor.report import HandoverReport, ReloadReport
from tests.cli.served import Served, serving

BEGUN = HandoverReport(id="1", state="begun", before="0.1.0", after="0.2.0")
FOLLOWED = HandoverReport(id="1", state="begun", message="0.1.0 handed over to 0.2.0", pause_ms=9.5)
DONE = HandoverReport(id="1", state="done", message="0.1.0 handed over to 0.2.0", pause_ms=9.5, reload=ReloadReport())


@pytest.fixture
def client(prefix: Path) -> Client:
    return Client(prefix / "run" / "agent.sock")


def test_it_is_waited_for_until_it_is_done(served: Served, client: Client) -> None:
    served.handovers = [BEGUN, BEGUN, FOLLOWED, DONE]
    report = awaited(client, "1")
    assert (report["state"], report["message"], report["reload"]["unchanged"]) == (
        "done",
        "0.1.0 handed over to 0.2.0",
        0,
    )


def test_one_that_failed_is_a_failure_in_its_own_words(served: Served, client: Client) -> None:
    served.handovers = [BEGUN, HandoverReport(id="1", state="failed", message="0.1.0 runs on: no luck")]
    with pytest.raises(RuntimeFailure, match=r"^0.1.0 runs on: no luck$"):
        awaited(client, "1")


@pytest.mark.parametrize("anew", [HandoverReport(), HandoverReport(id="2", state="done")])
def test_an_agent_that_knows_nothing_of_it_was_started_anew(
    served: Served, client: Client, anew: HandoverReport
) -> None:
    served.handovers = [BEGUN, anew]
    with pytest.raises(RuntimeFailure, match="was started anew during the hand-over"):
        awaited(client, "1")


class Turned(Client):
    """One that says when it has found nobody."""

    alone = threading.Event()

    def request(self, method: str, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        try:
            return super().request(method, path, query)
        except NotRunning:
            self.alone.set()
            raise


def test_nobody_on_the_socket_for_a_while_is_what_is_to_be_expected(prefix: Path) -> None:
    answers: list[str] = []
    client = Turned(prefix / "run" / "agent.sock")
    waiting = threading.Thread(target=lambda: answers.append(awaited(client, "1")["message"]))
    waiting.start()
    assert client.alone.wait(10)
    with serving(prefix) as agent:
        agent.handovers = [FOLLOWED, DONE]
        waiting.join(10)
    assert answers == ["0.1.0 handed over to 0.2.0"]


def test_nobody_for_longer_is_nobody(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "SILENCE", 0.2)
    begun = time.monotonic()
    with pytest.raises(RuntimeFailure, match="the agent is gone since the hand-over: the agent is not running") as gone:
        awaited(client, "1")
    assert 0.2 < time.monotonic() - begun < 3
    assert not isinstance(gone.value, NotRunning), "there was one"


def test_a_version_that_runs_and_is_not_done_is_told_apart_from_one_that_never_came(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 0.2)
    served.handovers = [BEGUN]
    with pytest.raises(RuntimeFailure, match=r"the hand-over is not done after 0.2 s") as never:
        awaited(client, "1")
    assert not isinstance(never.value, Unsettled)
    served.handovers = [BEGUN, FOLLOWED]
    with pytest.raises(
        Unsettled, match=r"0.1.0 handed over to 0.2.0; what is declared anew is not in force after 0.2 s"
    ):
        awaited(client, "1")


def test_a_crowd_is_no_failure_and_any_other_refusal_is(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[RequestRefused | HandoverReport] = [RequestRefused(503, "all are taken"), BEGUN, DONE]

    def handover() -> HandoverReport:
        answer = answers.pop(0)
        if isinstance(answer, RequestRefused):
            raise answer
        return answer

    monkeypatch.setattr(served, "handover", handover)
    assert awaited(client, "1")["state"] == "done"
    answers = [RequestRefused(404, "no such thing")]
    with pytest.raises(RequestRefused, match="no such thing"):
        awaited(client, "1")
