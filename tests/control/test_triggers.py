"""Events of services make armed captures keep what they saw."""

from __future__ import annotations

import pwd
from pathlib import Path

from agent.control.triggers import Triggers, armed
from agent.declaration.model import AnyService, Capture, Command, Trigger
from agent.paths import Paths
from agent.telemetry.events import Event
from agent.workers.capture import handed, pins

SECOND = 1_000_000_000
NOW = 1_795_183_200 * SECOND

SERVICES: dict[str, AnyService] = {
    service.name: service
    for service in (
        Capture(name="edge", interfaces=("eth0",), trigger=Trigger(before=10, after=5, on=("api.failed", "*.hung"))),
        Capture(name="core", interfaces=("eth1",)),
        Command(name="api", command=("/bin/true",)),
    )
}


def happened(kind: str, service: str | None = "api") -> Event:
    return Event(1, NOW / SECOND, service, kind, "exit code 1", {})


def test_only_captures_that_are_armed_for_it_are_triggered() -> None:
    assert [name for name, _ in armed(SERVICES, happened("failed"))] == ["edge"]
    assert armed(SERVICES, happened("started")) == []
    assert armed(SERVICES, happened("hung", None)) == []


def test_a_capture_is_not_triggered_by_what_happens_to_itself() -> None:
    assert armed(SERVICES, happened("hung", "edge")) == []
    assert [name for name, _ in armed(SERVICES, happened("hung", "core"))] == ["edge"]


def test_what_a_trigger_did_triggers_nothing() -> None:
    wary = {"edge": Capture(name="edge", interfaces=("eth0",), trigger=Trigger(on=("*.*",)))}
    assert [name for name, _ in armed(wary, happened("failed", "core"))] == ["edge"]
    assert armed(wary, happened("triggered", "core")) == []
    assert armed(wary, happened("trigger_failed", "core")) == []


def triggers(prefix: Path, told: list[tuple[str, str, str]], now: list[int]) -> Triggers:
    return Triggers(Paths.of(prefix), lambda: SERVICES, lambda *words: told.append(words), lambda: now[0])


def test_what_happened_is_pinned_from_before_it_until_after_it(tmp_path: Path) -> None:
    store = tmp_path / "spool" / "edge"
    store.mkdir(parents=True)
    told: list[tuple[str, str, str]] = []
    now = [NOW]
    pulled = triggers(tmp_path, told, now)
    pulled.event(happened("failed"))
    (pin,) = pins.read_all(store)
    assert (pin.begin, pin.end, pin.reason) == (NOW - 10 * SECOND, NOW + 5 * SECOND, "api.failed: exit code 1")
    assert told == [("edge", "triggered", f"api.failed: exit code 1; kept as pin {pin.id}")]


def test_what_happens_again_while_it_is_kept_is_one_event_and_later_another(tmp_path: Path) -> None:
    store = tmp_path / "spool" / "edge"
    store.mkdir(parents=True)
    now = [NOW]
    pulled = triggers(tmp_path, [], now)
    for second in range(12):
        now[0] = NOW + second * SECOND
        pulled.event(happened("failed"))
    assert [pin.created for pin in pins.read_all(store)] == [NOW, NOW + 6 * SECOND]


def test_a_trigger_that_cannot_be_pulled_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, str, str]] = []
    triggers(tmp_path, told, [NOW]).event(happened("failed"))
    ((name, kind, message),) = told
    assert (name, kind) == ("edge", "trigger_failed")
    assert str(tmp_path / "spool" / "edge") in message


def test_a_capture_of_another_user_is_told_what_happened_once_while_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    told: list[tuple[str, str, str]] = []
    now = [NOW]
    services: dict[str, AnyService] = {
        "edge": Capture(
            name="edge", user="nobody", interfaces=("eth0",), trigger=Trigger(before=10, after=5, on=("api.failed",))
        )
    }
    pulled = Triggers(Paths.of(tmp_path), lambda: services, lambda *words: told.append(words), lambda: now[0])
    for second in range(12):
        now[0] = NOW + second * SECOND
        pulled.event(happened("failed"))
    path = tmp_path / "run" / "edge.triggers"
    assert path.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert path.stat().st_mode & 0o777 == 0o640
    reason = "api.failed: exit code 1"
    assert handed.read(path) == [handed.Handed(NOW + second * SECOND, reason) for second in (0, 5, 10)]
    assert not (tmp_path / "spool").exists()
    assert told == []
    path.unlink()
    path.parent.rmdir()
    now[0] += 60 * SECOND
    pulled.event(happened("failed"))
    assert [(name, kind) for name, kind, _ in told] == [("edge", "trigger_failed")]
