"""Streams of the control socket: a gap is told apart from what was said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from agent.cli import streams
from agent.cli.base import Session
from agent.control.client import Client

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
