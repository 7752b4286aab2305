"""Rows of drift: how grave they are, and in which order."""

from __future__ import annotations

from pathlib import Path

from agent.telemetry.kinds import DRIFT_KINDS
from agent.workers.watch import row
from agent.workers.watch.row import Row, graver

PAGE = Path(__file__).resolve().parents[3] / "docs" / "drift.md"


def test_no_step_leads_beyond_the_gravest_and_the_least() -> None:
    assert [graver("medium", steps) for steps in (-9, -1, 0, 1, 9)] == ["info", "low", "medium", "high", "critical"]


def test_hosts_are_in_the_order_of_their_addresses() -> None:
    hosts = ["10.0.0.9", "10.0.0.10", "fd00::1", "localhost"]
    made = [Row("host_down", "high", host, "", 0, "", 0.0, (), frozenset()) for host in reversed(hosts)]
    assert [one.host for one in sorted(made, key=lambda one: one.order)] == hosts


def test_every_kind_is_described_here_and_for_operators() -> None:
    page = PAGE.read_text()
    for kind in DRIFT_KINDS:
        assert row.__doc__
        assert f"\n{kind} " in row.__doc__
        assert f"| `{kind}` | " in page
