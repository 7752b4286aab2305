"""An armed capture keeps what was before and after a trigger, and nothing else."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.model import Capture, Reserve, Rotate, Trigger
from agent.workers.capture import handed, pins
from agent.workers.capture.armed import SLACK, Armed, effective
from agent.workers.capture.counters import Counters
from agent.workers.capture.naming import segment_name
from agent.workers.capture.retention import Limits
from agent.workers.capture.settings import settings
from agent.workers.capture.shm import PLACE, stem
from agent.workers.capture.store import Store
from agent.workers.capture.trigger import pull
from tests.workers.capture.lab import Network, Worker, numbers, segments, worker

SECOND = 1_000_000_000
HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


def test_a_capture_that_is_not_armed_is_as_declared() -> None:
    service = Capture(name="edge", interfaces=("eth0",))
    assert effective(service) is service


def test_on_disk_what_nothing_triggers_becomes_too_old() -> None:
    armed = Capture(name="edge", interfaces=("eth0",), trigger=Trigger(before=30))
    assert effective(armed).max_age == 30 + SLACK
    assert effective(Capture(name="edge", interfaces=("eth0",), max_age=10, trigger=Trigger(before=30))).max_age == 10


@given(st.integers(2**20, 2**40), st.floats(1, 86_400), st.integers(1, 64))
def test_in_memory_what_is_declared_always_works(memory: int, before: float, interfaces: int) -> None:
    names = tuple(f"eth{number}" for number in range(interfaces))
    trigger = Trigger(before=before, keep="memory", memory=max(memory, interfaces * 2**20))
    made = effective(Capture(name="edge", interfaces=names, snaplen=2000, trigger=trigger, min_free=Reserve(2**60)))
    found = settings(made)
    assert found.limits.budget == trigger.memory
    assert found.limits.free_bytes == 0
    cut = found.cut(interfaces)
    assert cut.limit * interfaces <= trigger.memory
    assert cut.every <= max(SECOND, round(before / 8 * SECOND))


MEMORY = {"before": 2, "after": 2, "keep": "memory", "memory": 2**24}


def in_memory(capture: Worker) -> list[Path]:
    return list(PLACE.glob(f"{stem(capture.data)}*/far/*"))


def pinned(capture: Worker, **trigger: float) -> pins.Pin:
    pulled = pull(capture.data, Trigger(**trigger), "test", time.time_ns())  # type: ignore[arg-type]  # two numbers
    assert pulled is not None
    return pulled.pin


def test_in_memory_nothing_is_on_disk_until_something_happens_and_then_all_around_it(
    tmp_path: Path, net: Network
) -> None:
    settings = {"interfaces": ["far"], "rotate": {"size": 2**20, "every": 1}, "trigger": MEMORY}
    with worker(tmp_path, net, **settings) as capture:
        net.send("near", 3_000, pace=2_000)
        capture.wait_figure("written", 3_000)
        assert in_memory(capture)
        assert not (capture.data / "far").exists()
        pinned(capture, before=2, after=2)
        net.send("near", 2_000, first=3_000, pace=2_000)
        capture.wait_figure("written", 5_000)
        capture.stop()
        kept = numbers(capture.data, "far")
        assert kept == list(range(kept[0], 5_000))
        assert kept[0] < 3_000
        assert not in_memory(capture)
        assert all(path.with_suffix(".meta").exists() for path in segments(capture.data, "far"))
        assert "storage_error" not in capture.events()


def test_in_memory_what_nothing_happens_to_is_never_on_disk(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, interfaces=["far"], trigger=MEMORY) as capture:
        net.send("near", 1_000)
        capture.wait_figure("written", 1_000)
        capture.stop()
        assert not (capture.data / "far").exists()
        assert not in_memory(capture)


def test_what_waited_in_memory_when_a_capture_was_killed_can_still_be_kept_by_the_next(
    tmp_path: Path, net: Network
) -> None:
    settings = {"interfaces": ["far"], "trigger": {**MEMORY, "before": 60}}
    with worker(tmp_path, net, **settings) as capture:
        net.send("near", 1_000)
        capture.wait_figure("written", 1_000)
        capture.process.kill()
        capture.process.wait()
    with worker(tmp_path, net, **settings) as capture:
        assert capture.events() == ["segment_recovered"]
        pinned(capture, before=60, after=0)
        net.send("near", 10, first=1_000)
        capture.stop()
        assert numbers(capture.data, "far")[:1_000] == list(range(1_000))
        assert not in_memory(capture)


def test_a_figure_that_crosses_a_bound_triggers_once(tmp_path: Path, net: Network) -> None:
    trigger = {"before": 5, "after": 5, "when": ["received > 500"]}
    with worker(tmp_path, net, interfaces=["far"], trigger=trigger) as capture:
        capture.wait_figure("received", 0)
        net.send("near", 4_000, pace=2_000)
        message = capture.wait_event("triggered")["message"]
        capture.stop()
        assert message.startswith("received > 500 (it is ")
        (pin,) = pins.read_all(capture.data)
        assert message.endswith(f"kept as pin {pin.id}")
        assert pin.end - pin.begin == 10 * SECOND
        assert numbers(capture.data, "far") == list(range(4_000))


@pytest.mark.parametrize("kept", ["disk", "memory"])
def test_a_trigger_that_is_pulled_again_and_again_is_one_event(tmp_path: Path, kept: str) -> None:
    trigger = Trigger(before=10, after=5, keep="memory" if kept == "memory" else "disk")
    now = 1_795_183_200 * SECOND
    assert pull(tmp_path, trigger, "first", now) is not None
    assert pull(tmp_path, trigger, "again", now + 5 * SECOND) is None
    assert pull(tmp_path, trigger, "later", now + 6 * SECOND) is not None
    assert [pin.reason for pin in pins.read_all(tmp_path)] == ["first", "later"]


def test_a_pin_of_a_person_is_no_trigger(tmp_path: Path) -> None:
    now = 1_795_183_200 * SECOND
    pins.add(tmp_path, now, now + 60 * SECOND, created=now, by="root")
    assert pull(tmp_path, Trigger(), "it failed", now + SECOND) is not None


def test_rotation_in_memory_is_never_longer_than_declared() -> None:
    declared = Rotate(size=2**20, every=2)
    trigger = Trigger(before=3600, keep="memory", memory=2**30)
    made = effective(Capture(name="edge", interfaces=("eth0",), rotate=declared, trigger=trigger))
    assert made.rotate == declared


def test_when_there_are_too_many_pins_the_oldest_of_a_trigger_makes_way_and_none_of_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "MOST", 3)
    now = 1_795_183_200 * SECOND
    pins.add(tmp_path, 0, now, created=now - 9 * SECOND, by="alice")
    pulled = [pull(tmp_path, Trigger(after=1), str(number), now + number * 10 * SECOND) for number in range(4)]
    first, second, third, fourth = (one for one in pulled if one is not None)
    assert [first.instead, second.instead, third.instead, fourth.instead] == [None, None, first.pin.id, second.pin.id]
    assert [(pin.by, pin.reason) for pin in pins.read_all(tmp_path)] == [
        ("alice", ""),
        ("trigger", "2"),
        ("trigger", "3"),
    ]
    assert fourth.told("it failed").endswith(f"in place of {second.pin.id}")
    monkeypatch.setattr(pins, "MOST", 1)
    for pin in pins.read_all(tmp_path)[1:]:
        pins.remove(tmp_path, pin.id)
    with pytest.raises(pins.TooMany, match="has 1 pins"):
        pull(tmp_path, Trigger(), "in vain", now + 100 * SECOND)


class Reports:
    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, kind: str, message: str) -> None:
        self.all.append((kind, message))


def tended(tmp_path: Path, reports: Reports, handed: Path | None = None) -> Armed:
    store = Store(tmp_path / "edge", Limits(10**6), reports)
    store.adopt()
    armed = Armed(Trigger(before=10, after=5), tmp_path / "edge", store, reports, handed)
    armed.adopt()
    armed.tend(Counters(), 0)
    return armed


def test_pins_of_triggers_go_when_they_keep_nothing_any_more_and_those_of_persons_stay(tmp_path: Path) -> None:
    now = time.time_ns()
    data = tmp_path / "edge"
    place = data / "far"
    place.mkdir(parents=True)
    segment = place / segment_name(now - 3600 * SECOND, ".pcap")
    segment.write_bytes(HEADER)
    for hours, by in ((3, "trigger"), (2, "alice"), (1, "trigger")):
        pins.add(data, now - hours * 3600 * SECOND, now - hours * 3600 * SECOND, created=now, by=by)
    pins.add(data, now, now + SECOND, created=now, by="trigger")  # what it keeps is still to come
    first, *_ = pins.read_all(data)
    reports = Reports()
    tended(tmp_path, reports)
    assert reports.all == [("pin_expired", f"nothing of what triggers kept is left: {first.id}")]
    assert [pin.by for pin in pins.read_all(data)] == ["alice", "trigger", "trigger"]
    segment.unlink()
    tended(tmp_path, reports)
    assert [(pin.by, pin.end > now) for pin in pins.read_all(data)] == [("alice", False), ("trigger", True)]


def test_what_the_agent_hands_to_a_capture_of_another_user_is_pulled_once_and_not_when_it_is_old(
    tmp_path: Path,
) -> None:
    now = time.time_ns()
    path = handed.place(tmp_path / "edge.json")
    events = [handed.Handed(now - 60 * SECOND, "long ago"), handed.Handed(now - SECOND, "api.failed: exit code 1")]
    handed.write(path, events, (os.getuid(), os.getgid()))
    reports = Reports()
    armed = tended(tmp_path, reports, path)
    (pin,) = pins.read_all(tmp_path / "edge")
    assert (pin.begin, pin.reason) == (now - 11 * SECOND, "api.failed: exit code 1")
    assert reports.all == [("triggered", f"api.failed: exit code 1; kept as pin {pin.id}")]
    pins.remove(tmp_path / "edge", pin.id)
    armed.tend(Counters(), 0)
    handed.write(path, [*events, handed.Handed(now, "again")], (os.getuid(), os.getgid()))
    armed.tend(Counters(), 0)
    assert [pin.reason for pin in pins.read_all(tmp_path / "edge")] == ["again"]


@pytest.mark.parametrize(
    "content", [b"", b"[", b'[{"at": 1e300, "reason": ""}]', b'[{"at": -1, "reason": ""}]', b"\xff"]
)
def test_what_was_not_left_by_the_agent_triggers_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "edge.triggers"
    path.write_bytes(content)
    reports = Reports()
    tended(tmp_path, reports, path)
    assert reports.all == []
