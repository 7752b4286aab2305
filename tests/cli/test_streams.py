"""Streams of the control socket: a gap is told apart from what was said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import pytest

from agent.cli import streams
from agent.cli.base import Session
from agent.control.client import Client
from agent.control.routes import ROUTES
from tests.cli.harness import Agentctl

RECORDS = [
    {"gap": True, "cursor": 4, "message": "events before this one are no longer stored\x1b"},
    {"cursor": 5, "message": "ready"},
]


class Replay(Session):
    """A session whose agent has just these records."""

    def client(self, timeout: float | None = None) -> Client:
        return cast(Client, self)

    def stream(self, path: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        return iter(RECORDS)


def test_a_gap_is_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    streams.show(Replay(), "/v1/events", {}, lambda record: str(record["message"]))
    shown = capsys.readouterr()
    assert shown.out == "ready\n"
    assert shown.err == "-- events before this one are no longer stored\\x1b\n"


def test_json_passes_a_gap_on(capsys: pytest.CaptureFixture[str]) -> None:
    streams.show(Replay(json=True), "/v1/events", {}, lambda record: "")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == RECORDS


class Changing(Replay):
    """One whose agent becomes another version of itself, and again, in the middle of a stream."""

    asked: ClassVar[list[dict[str, str]]] = []

    def stream(self, path: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        self.asked.append(query)
        number = len(self.asked)
        yield {"cursor": number, "message": f"said by {number}"}
        if number < 3:
            yield {"again": True, "cursor": f"{number}:x", "message": "ask again"}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_stream_goes_on_with_the_next_version_where_it_was(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    Changing.asked.clear()
    streams.show(Changing(json=as_json), "/v1/logs/api", {"follow": "true", "n": "5"}, lambda each: each["message"])
    shown = capsys.readouterr()
    lines = [json.loads(line)["message"] if as_json else line for line in shown.out.splitlines()]
    assert (lines, shown.err) == (["said by 1", "said by 2", "said by 3"], "")
    first = {"follow": "true", "n": "5"}
    assert Changing.asked == [first, {**first, "after": "1:x"}, {**first, "after": "2:x"}]


@pytest.mark.parametrize("command", ["events", "logs api"])
def test_more_than_the_agent_gives_is_refused_by_the_option_that_was_typed(agentctl: Agentctl, command: str) -> None:
    parameters = [parameter for route in ROUTES for parameter in route.parameters]
    assert {one.maximum for one in parameters if one.name in ("limit", "n")} == {streams.MOST}
    done = agentctl(*command.split(), "-n", "10001")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("agentctl: Invalid value for '-n' / '--lines': 10001 is not in the range 0<=x<=10000")
    assert "0<=x<=10000" in agentctl(command.split()[0], "--help").stdout
