"""A heartbeat is a change of a file, seen on a monotonic clock."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.model import Heartbeat
from agent.supervisor.pulse import Beat, Pulse

EVERY_SECOND = Heartbeat(interval=1.0, timeout=3.0)


@pytest.fixture
def heartbeat_file(tmp_path: Path) -> Path:
    path = tmp_path / "x.heartbeat"
    path.touch()
    return path


def test_it_is_fresh_while_the_file_is_touched_and_stale_after_its_timeout(heartbeat_file: Path) -> None:
    pulse = Pulse(heartbeat_file, EVERY_SECOND, now=100.0)
    for second in range(1, 5):
        os.utime(heartbeat_file, (second, second))
        assert pulse.look(100.0 + second) is None
    assert pulse.due == 107.0
    assert pulse.look(107.0) is None
    assert pulse.look(107.5) == 3.5


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_wall_clock_that_is_set_makes_nobody_stale(heartbeat_file: Path, step: int) -> None:
    wall = 1_700_000_000
    pulse = Pulse(heartbeat_file, EVERY_SECOND, now=0.0, wall=lambda: wall)
    for second in range(20):
        os.utime(heartbeat_file, (wall, wall))
        assert pulse.look(float(second)) is None
        wall += 1 + (step if second == 10 else 0)


def test_a_beat_between_two_looks_is_as_old_as_the_file_says(heartbeat_file: Path) -> None:
    pulse = Pulse(heartbeat_file, EVERY_SECOND, now=10.0, wall=lambda: 1_700_000_010.0)
    os.utime(heartbeat_file, (1_700_000_008, 1_700_000_008))
    assert pulse.age(13.0) == 2.0
    assert pulse.due == 14.0


@pytest.mark.parametrize("claimed", [-3600, -4, 1, 3600])
def test_a_file_is_not_believed_about_a_time_at_which_nobody_would_have_missed_it(
    heartbeat_file: Path, claimed: int
) -> None:
    pulse = Pulse(heartbeat_file, EVERY_SECOND, now=10.0, wall=lambda: 1_700_000_000.0)
    at = 1_700_000_000 + claimed
    os.utime(heartbeat_file, (at, at))
    assert pulse.age(13.0) == 0.0


def test_a_file_that_vanishes_is_a_heartbeat_that_stops(heartbeat_file: Path) -> None:
    pulse = Pulse(heartbeat_file, EVERY_SECOND, now=0.0)
    heartbeat_file.unlink()
    assert pulse.look(2.0) is None
    assert pulse.look(4.0) == 4.0


def test_a_beat_by_message_touches_the_file_for_outside_monitors(heartbeat_file: Path) -> None:
    os.utime(heartbeat_file, (1, 1))
    pulse = Pulse(heartbeat_file, Heartbeat(), now=0.0)
    before = pulse.ever
    pulse.beat(5.0)
    assert (before, pulse.ever) == (False, True)
    assert heartbeat_file.stat().st_mtime > 1_000_000
    assert pulse.age(7.0) == 2.0


def test_a_restart_forgets_the_silence_before_and_not_that_it_has_beaten(heartbeat_file: Path) -> None:
    pulse = Pulse(heartbeat_file, EVERY_SECOND, now=0.0)
    os.utime(heartbeat_file, (1, 1))
    pulse.restart(100.0)
    assert pulse.ever
    assert pulse.look(102.0) is None
    assert pulse.look(104.0) == 4.0


@given(st.lists(st.floats(0.01, 2.9), min_size=1, max_size=30))
def test_beats_closer_than_the_timeout_are_never_stale(gaps: list[float]) -> None:
    pulse = Pulse(Path("/nowhere/x.heartbeat"), EVERY_SECOND, now=0.0)
    now = 0.0
    for gap in gaps:
        now += gap
        assert pulse.look(now) is None
        pulse.beat(now)


def test_another_program_goes_on_with_the_silence_as_it_was(heartbeat_file: Path) -> None:
    pulse = Pulse(heartbeat_file, EVERY_SECOND, now=100.0)
    pulse.beat(101.0)
    frozen = msgspec.json.encode(pulse.freeze())
    follows = Pulse(heartbeat_file, EVERY_SECOND, now=103.5)
    follows.thaw(msgspec.json.decode(frozen, type=Beat))
    assert (follows.ever, follows.due) == (True, 104.0)
    assert follows.look(104.0) is None
    assert follows.look(104.1) == pytest.approx(3.1)


def test_a_beat_that_nobody_saw_is_seen_by_the_next_program(heartbeat_file: Path) -> None:
    pulse = Pulse(heartbeat_file, EVERY_SECOND, now=100.0, wall=lambda: 1000.0)
    frozen = pulse.freeze()
    os.utime(heartbeat_file, (1002.0, 1002.0))
    follows = Pulse(heartbeat_file, EVERY_SECOND, now=104.0, wall=lambda: 1004.0)
    follows.thaw(frozen)
    assert follows.look(104.0) is None
    assert follows.age(104.0) == pytest.approx(2.0)
    assert follows.ever


def test_a_file_that_was_there_before_a_worker_is_no_beat_for_the_next_program_either(heartbeat_file: Path) -> None:
    frozen = Pulse(heartbeat_file, EVERY_SECOND, now=100.0).freeze()
    heartbeat_file.unlink()
    follows = Pulse(heartbeat_file, EVERY_SECOND, now=101.0)
    follows.thaw(frozen)
    assert follows.age(102.0) == 2.0
    assert not follows.ever
