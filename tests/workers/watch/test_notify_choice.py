"""Who is told of what."""

from __future__ import annotations

from typing import Any

import pytest

from agent.declaration.model import Notify
from agent.telemetry.events import Event
from agent.telemetry.kinds import KINDS
from agent.workers.watch.notify_choice import SEVERITIES, concerns, severity_of


def event(kind: str, service: str | None = "lan", **data: Any) -> Event:
    return Event(1, 1.0, service, kind, "message", data)


@pytest.mark.parametrize(
    ("what", "severity"),
    [
        (event("failed"), "err"),
        (event("hung"), "warning"),
        (event("restarting"), "notice"),
        (event("started"), "info"),
        (event("of_its_own"), "info"),
        (event("of_its_own", severity="err"), "err"),
        (event("drift_found", severity="critical"), "err"),
        (event("drift_found", severity="low"), "notice"),
        (event("drift_gone", severity="info"), "info"),
        (event("failed", severity="info"), "err"),
        (event("of_its_own", severity=["err"]), "info"),
    ],
)
def test_an_event_is_as_grave_as_its_kind_or_its_difference(what: Event, severity: str) -> None:
    assert severity_of(what) == severity


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_as_grave_as_in_the_journal(kind: str) -> None:
    assert {3: "err", 4: "warning", 5: "notice", 6: "info"}[KINDS[kind].priority] == severity_of(event(kind))


@pytest.mark.parametrize(
    ("notify", "what", "told"),
    [
        (Notify("x"), event("failed"), True),
        (Notify("x"), event("started"), False),
        (Notify("x", severity="info"), event("started"), True),
        (Notify("x", kinds=("drift_*", "failed")), event("hung"), False),
        (Notify("x", kinds=("drift_*", "failed")), event("failed"), True),
        (Notify("x", services=("lan_*",)), event("failed"), False),
        (Notify("x", services=("l[a-c]n",)), event("failed"), True),
        (Notify("x", services=("agent",)), event("bug", None), True),
        (Notify("x"), event("notify_failed", "watch", notify="y"), True),
        (Notify("x"), event("notify_failed", "watch", notify="x"), False),
    ],
)
def test_who_is_told(notify: Notify, what: Event, told: bool) -> None:
    assert concerns(notify, what) == told


def test_severities_are_in_order() -> None:
    assert SEVERITIES == ("info", "notice", "warning", "err")
