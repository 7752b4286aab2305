"""The lifecycle's laws, under generated histories and a simulated clock; and its story, told case by case."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.supervisor.lifecycle import (
    Arm,
    Boot,
    Disarm,
    Due,
    Effect,
    Elapsed,
    Event,
    Exited,
    Gone,
    Hung,
    Kill,
    Phase,
    Policy,
    Ready,
    Record,
    Restart,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    State,
    Stop,
)
from agent.supervisor.transitions import BACKOFF_LIMIT, KILL_AGAIN, STABLE_AFTER, step

POLICIES = st.builds(
    Policy,
    restart=st.sampled_from(["no", "always", "on-failure", "unless-stopped"]),
    max_restarts=st.integers(0, 6),
    restart_window=st.floats(1, 600),
    stop_timeout=st.floats(0.1, 20),
    start_timeout=st.floats(0.1, 100),
    announces_ready=st.booleans(),
    job=st.booleans(),
    run_timeout=st.none() | st.floats(0.1, 100),
)


@dataclass
class World:
    """A machine that performs effects: it has processes, timers and a clock, and breaks a law never silently."""

    policy: Policy
    state: State = field(default_factory=State)
    now: float = 1000.0
    alive: set[int] = field(default_factory=set)
    """Runs of which a process exists."""
    workers: set[int] = field(default_factory=set)
    """Runs whose main process exists."""
    timers: dict[str, float] = field(default_factory=dict)
    spawned: list[int] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    def tell(self, event: Event, jitter: float = 0.0) -> list[Effect]:
        self.state, effects = step(self.policy, self.state, event, self.now, jitter)
        for effect in effects:
            self.perform(effect)
        return effects

    def perform(self, effect: Effect) -> None:
        match effect:
            case Spawn(run):
                assert not self.alive, f"run {run} spawned while {self.alive} live"
                assert run not in self.spawned
                self.spawned.append(run)
                self.alive.add(run)
                self.workers.add(run)
            case Signal(run):
                assert run == self.state.run
            case Kill(run):
                assert run == self.state.run
                self.killed.add(run)
            case Arm(timer, seconds):
                assert seconds >= 0
                self.timers[timer] = self.now + seconds
                if timer == "backoff":
                    self.delays.append(seconds)
            case Disarm(timer):
                self.timers.pop(timer, None)
            case Record():
                self.records.append(effect)

    def advance(self, seconds: float) -> None:
        """Let time pass, with every timer that runs out on the way."""
        until = self.now + seconds
        while due := [(at, name) for name, at in self.timers.items() if at <= until]:
            at, name = min(due)
            self.now = max(self.now, at)
            del self.timers[name]
            self.tell(Elapsed(name))  # type: ignore[arg-type]  # a key of timers is a Timer
        self.now = until

    def phase(self) -> Phase:
        return self.state.phase

    def kinds(self) -> list[str]:
        return [record.kind for record in self.records]

    # What a real worker does.

    def come_up(self) -> None:
        self.tell(Spawned(self.state.run, 4242))

    def exit(self, code: int | None = None, signal: int | None = None, *, clean: bool = True) -> None:
        run = self.state.run
        self.workers.discard(run)
        self.tell(Exited(run, code, signal, f"exited {code}" if code is not None else f"killed by {signal}"))
        if clean:
            self.vanish(run)

    def vanish(self, run: int) -> None:
        self.workers.discard(run)
        self.alive.discard(run)
        self.tell(Gone(run))


CHOICES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "boot",
                "start",
                "stop",
                "restart",
                "due",
                "spawned",
                "failed",
                "ready",
                "hung",
                "exit0",
                "exit1",
                "exit2",
                "killed",
                "gone",
                "stale",
                "time",
                "timer",
            ]
        ),
        st.floats(0, 120),
        st.floats(-1, 1),
    ),
    max_size=60,
)


def play(world: World, choice: str, amount: float, jitter: float) -> None:
    """One thing that can happen to a real machine now; what cannot is left out."""
    run = world.state.run
    match choice:
        case "boot":
            world.tell(Boot(), jitter)
        case "start":
            world.tell(Start(), jitter)
        case "stop":
            world.tell(Stop("by hand"), jitter)
        case "restart":
            world.tell(Restart(), jitter)
        case "due":
            world.tell(Due(), jitter)
        case "spawned":
            world.tell(Spawned(run, 1), jitter)
        case "failed" if run in world.workers and world.phase() in (Phase.STARTING, Phase.STOPPING):
            world.workers.discard(run)
            world.alive.discard(run)
            world.tell(SpawnFailed(run, "no such program", permanent=amount > 60, busy=amount < 30), jitter)
        case "ready" if run in world.workers:
            world.tell(Ready(run), jitter)
        case "hung" if run in world.workers:
            world.tell(Hung(run, "heartbeat stale"), jitter)
        case "exit0" | "exit1" | "exit2" | "killed" if run in world.workers:
            world.workers.discard(run)
            code = {"exit0": 0, "exit1": 1, "exit2": 2}.get(choice)
            world.tell(Exited(run, code, 9 if code is None else None, choice), jitter)
        case "gone" if run in world.alive and run not in world.workers:
            world.alive.discard(run)
            world.tell(Gone(run), jitter)
        case "stale":
            for event in (Ready(run - 1), Exited(run - 1, 0), Gone(run - 1), Hung(run - 1, "old"), Spawned(run - 1, 1)):
                assert step(world.policy, world.state, event, world.now) == (world.state, [])
        case "time":
            world.advance(amount)
        case "timer" if world.timers:
            world.advance(min(world.timers.values()) - world.now)
        case _:
            pass


@settings(max_examples=600, deadline=None)
@given(POLICIES, CHOICES)
def test_no_history_breaks_a_law(policy: Policy, choices: list[tuple[str, float, float]]) -> None:
    world = World(policy)
    held_down = False
    for choice, amount, jitter in choices:
        spawned_before = len(world.spawned)
        before = world.state
        play(world, choice, amount, jitter)
        state = world.state
        # Never two workers for one service (and World.perform refuses a spawn while anything lives).
        assert len(world.alive) <= 1
        # A manual stop is never undone by a restart policy, a timer or the calendar.
        if choice in ("start", "restart", "boot"):
            held_down = False
        elif choice == "stop":
            held_down = True
        if held_down:
            assert len(world.spawned) == spawned_before
        # At rest means without a process, and the other way round.
        assert state.has_process == bool(world.alive)
        # Every backoff ends, every stop is enforced, every start that must announce itself is bounded.
        assert (state.phase is Phase.BACKOFF) == ("backoff" in world.timers)
        if state.phase is Phase.STOPPING:
            assert "stop" in world.timers or "kill" in world.timers
        elif not state.has_process:
            assert set(world.timers) <= {"backoff"}
        if state.phase is Phase.STARTING and policy.announces_ready:
            assert "start" in world.timers
        # Jobs have no FAILED and no COMPLETED: they wait for their next time.
        if policy.job:
            assert state.phase not in (Phase.FAILED, Phase.COMPLETED)
        assert all(0.4 <= delay <= BACKOFF_LIMIT * 1.1 for delay in world.delays)
        assert state.restarts >= before.restarts
        assert len(state.recent) <= policy.max_restarts


@settings(max_examples=300, deadline=None)
@given(POLICIES, CHOICES)
def test_from_anywhere_a_stop_ends_in_stopped(policy: Policy, choices: list[tuple[str, float, float]]) -> None:
    world = World(policy)
    for choice, amount, jitter in choices:
        play(world, choice, amount, jitter)
    world.tell(Stop())
    run = world.state.run
    if run in world.alive:
        world.advance(policy.stop_timeout + KILL_AGAIN + 1)
        assert run in world.killed or run not in world.workers
        if run in world.workers:
            world.exit(signal=9)
        else:
            world.vanish(run)
    assert world.phase() is Phase.STOPPED
    world.advance(10_000)
    world.tell(Due())
    assert world.phase() is Phase.STOPPED
    assert not world.timers


@settings(max_examples=300, deadline=None)
@given(POLICIES, st.lists(st.sampled_from([0, 2, 9]), min_size=1, max_size=40))
def test_a_service_that_keeps_dying_is_up_or_has_a_stated_reason(policy: Policy, codes: list[int]) -> None:
    world = World(msgspec.structs.replace(policy, job=False))
    world.tell(Boot())
    for code in codes:
        world.advance(BACKOFF_LIMIT * 1.2)
        if world.phase() in (Phase.FAILED, Phase.COMPLETED):
            break
        assert world.phase() in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING)
        world.exit(code)
    if world.phase() in (Phase.FAILED, Phase.BACKOFF, Phase.COMPLETED):
        assert world.state.reason


def running(policy: Policy) -> World:
    world = World(policy)
    world.tell(Boot())
    world.come_up()
    assert world.phase() is Phase.RUNNING
    return world


def test_the_first_respawn_is_immediate_and_the_delays_double_up_to_the_limit() -> None:
    world = running(Policy(max_restarts=100, restart_window=10_000))
    for _ in range(10):
        world.exit(signal=9)
        if world.phase() is Phase.BACKOFF:
            world.advance(world.timers["backoff"] - world.now)
        assert world.phase() is Phase.STARTING
        world.come_up()
    assert world.delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_jitter_spreads_a_delay_by_a_tenth() -> None:
    state = State(phase=Phase.STOPPING, run=3, exited=True, failures=3)
    for jitter, seconds in ((-1.0, 1.8), (0.0, 2.0), (1.0, 2.2)):
        _, effects = step(Policy(), state, Gone(3), 5.0, jitter)
        armed = [effect.seconds for effect in effects if isinstance(effect, Arm) and effect.timer == "backoff"]
        assert armed == [pytest.approx(seconds)]


def test_a_stable_minute_starts_the_backoff_from_the_beginning() -> None:
    world = running(Policy(max_restarts=100, restart_window=10_000))
    for _ in range(3):
        world.exit(2)
        world.advance(5)
        world.come_up()
    world.advance(STABLE_AFTER)
    world.exit(2)
    assert world.phase() is Phase.STARTING
    assert world.state.failures == 1


def test_the_time_that_a_run_took_to_die_does_not_make_it_stable() -> None:
    world = running(Policy(max_restarts=100, restart_window=10_000, stop_timeout=STABLE_AFTER))
    for _ in range(3):
        world.exit(2)
        world.advance(5)
        world.come_up()
    world.advance(STABLE_AFTER / 2)
    world.tell(Hung(world.state.run, "heartbeat stale"))
    world.advance(STABLE_AFTER * 0.9)
    world.exit(signal=9)
    assert world.phase() is Phase.BACKOFF


def test_more_restarts_than_allowed_in_the_window_end_in_failed_with_the_reason() -> None:
    world = running(Policy(max_restarts=3, restart_window=600))
    for _ in range(4):
        world.exit(2)
        world.advance(5)
        if world.phase() is Phase.STARTING:
            world.come_up()
    assert world.phase() is Phase.FAILED
    assert world.state.reason == "exited 2; gave up after 3 restarts within 600 s"
    assert len(world.spawned) == 4


def test_restarts_that_lie_outside_the_window_are_forgotten() -> None:
    world = running(Policy(max_restarts=2, restart_window=60))
    for _ in range(20):
        world.advance(40)
        world.exit(2)
        world.advance(BACKOFF_LIMIT)
        assert world.phase() is Phase.STARTING
        world.come_up()


@pytest.mark.parametrize("restart", ["always", "on-failure", "unless-stopped", "no"])
def test_exit_code_1_is_never_retried(restart: str) -> None:
    world = running(msgspec.convert({"restart": restart}, Policy))
    world.exit(1)
    assert world.phase() is Phase.FAILED
    assert world.state.reason == "exited 1 (configuration error: not retried)"
    world.advance(10_000)
    assert world.spawned == [1]


@pytest.mark.parametrize(
    ("restart", "after_success", "after_failure"),
    [
        ("no", Phase.COMPLETED, Phase.FAILED),
        ("on-failure", Phase.COMPLETED, Phase.STARTING),
        ("always", Phase.STARTING, Phase.STARTING),
        ("unless-stopped", Phase.STARTING, Phase.STARTING),
    ],
)
def test_what_follows_an_exit_is_the_restart_policys_word(
    restart: str, after_success: Phase, after_failure: Phase
) -> None:
    for code, expected in ((0, after_success), (2, after_failure), (77, after_failure)):
        world = running(msgspec.convert({"restart": restart}, Policy))
        world.exit(code)
        assert world.phase() is expected


def test_nothing_follows_an_exit_until_the_whole_run_is_gone() -> None:
    world = running(Policy())
    world.exit(signal=9, clean=False)
    assert world.phase() is Phase.STOPPING
    assert world.killed == {1}
    world.advance(KILL_AGAIN * 3)
    assert world.spawned == [1]
    world.vanish(1)
    assert world.spawned == [1, 2]


def test_a_stop_signals_waits_and_then_kills() -> None:
    world = running(Policy(stop_timeout=3))
    effects = world.tell(Stop())
    assert Signal(1) in effects
    world.advance(2.9)
    assert not world.killed
    world.advance(0.2)
    assert world.killed == {1}
    world.exit(signal=9)
    assert world.phase() is Phase.STOPPED


def test_what_survives_sigkill_is_killed_again_and_said_once() -> None:
    world = running(Policy(stop_timeout=1))
    world.tell(Stop())
    world.advance(60)
    assert world.phase() is Phase.STOPPING
    assert world.state.reason == "still running after SIGKILL"
    assert world.kinds().count("unkillable") == 1


def test_a_stale_heartbeat_restarts_with_that_reason() -> None:
    world = running(Policy())
    world.tell(Hung(1, "heartbeat stale: 31 s old, timeout 30 s"))
    assert world.phase() is Phase.STOPPING
    world.exit(signal=15)
    assert world.spawned == [1, 2]
    assert "heartbeat stale: 31 s old, timeout 30 s; killed by 15; restarting now" in [
        record.message for record in world.records
    ]


def test_what_is_not_ready_yet_may_take_its_time_to_beat() -> None:
    world = World(Policy(announces_ready=True, start_timeout=90))
    world.tell(Boot())
    world.come_up()
    world.tell(Hung(1, "heartbeat stale: 31 s old, timeout 30 s"))
    assert world.phase() is Phase.STARTING
    world.tell(Ready(1))
    world.tell(Hung(1, "heartbeat stale: 31 s old, timeout 30 s"))
    assert world.phase() is Phase.STOPPING


def test_a_service_that_announces_itself_is_not_ready_before_and_fails_when_it_is_late() -> None:
    world = World(Policy(announces_ready=True, start_timeout=5, restart="no"))
    world.tell(Boot())
    world.come_up()
    assert world.phase() is Phase.STARTING
    world.advance(6)
    assert world.phase() is Phase.STOPPING
    world.exit(0)
    assert world.phase() is Phase.FAILED
    assert world.state.reason == "not ready within 5 s; exited 0"


def test_a_job_waits_for_its_time_runs_and_waits_again() -> None:
    world = World(Policy(job=True, restart="no"))
    world.tell(Boot())
    assert world.phase() is Phase.WAITING
    world.tell(Due())
    world.come_up()
    world.exit(0)
    assert world.phase() is Phase.WAITING
    assert world.spawned == [1]


def test_a_job_never_overlaps_itself() -> None:
    world = World(Policy(job=True))
    world.tell(Boot())
    world.tell(Due())
    world.come_up()
    world.tell(Due())
    assert world.spawned == [1]
    assert "skipped" in world.kinds()


def test_a_job_that_outlasts_many_of_its_times_says_so_once_for_each_run() -> None:
    world = World(Policy(job=True, restart="no"))
    world.tell(Boot())
    for _ in range(2):
        world.tell(Due())
        world.come_up()
        for _ in range(100):
            world.tell(Due())
        world.exit(0)
    assert world.kinds().count("skipped") == 2


def test_a_job_that_somebody_else_runs_is_skipped_and_a_service_is_tried_again() -> None:
    for job, phase in ((True, Phase.WAITING), (False, Phase.STARTING)):
        world = World(Policy(job=job))
        world.tell(Boot())
        world.tell(Start())
        world.alive.clear()
        world.workers.clear()
        world.tell(SpawnFailed(1, "it runs already, under process 7", busy=True))
        assert world.phase() is phase
        assert ("skipped" in world.kinds()) == job
        assert ("failed" in world.kinds()) is False


def test_a_job_that_fails_says_so_and_waits_for_its_next_time() -> None:
    world = World(Policy(job=True, restart="no"))
    world.tell(Boot())
    world.tell(Due())
    world.come_up()
    world.exit(2)
    assert world.phase() is Phase.WAITING
    assert world.state.reason == "last run failed: exited 2"
    world.tell(Due())
    assert world.spawned == [1, 2]


def test_a_job_is_ended_at_its_timeout() -> None:
    world = World(Policy(job=True, restart="no", run_timeout=7))
    world.tell(Boot())
    world.tell(Due())
    world.come_up()
    world.advance(7.1)
    assert world.phase() is Phase.STOPPING
    world.exit(signal=15)
    assert world.state.reason == "last run failed: ran longer than its timeout of 7 s; killed by 15"


def test_a_start_that_comes_while_it_stops_is_done_afterwards() -> None:
    world = running(Policy())
    world.tell(Stop())
    world.tell(Start())
    world.exit(0)
    assert world.spawned == [1, 2]


def test_a_stop_that_comes_while_it_restarts_wins() -> None:
    world = running(Policy())
    world.tell(Restart())
    world.tell(Stop())
    world.exit(0)
    assert world.phase() is Phase.STOPPED
    assert world.spawned == [1]


def test_a_start_while_it_stops_forgives_as_any_start_does() -> None:
    world = running(Policy(max_restarts=1))
    world.exit(2)
    world.come_up()
    world.tell(Stop())
    world.tell(Start())
    world.exit(0)
    world.come_up()
    world.exit(2)
    assert world.phase() is Phase.STARTING


def test_what_was_to_be_stopped_before_it_could_not_be_started_is_stopped() -> None:
    world = World(Policy(job=True))
    world.tell(Boot())
    world.tell(Due())
    world.tell(Stop())
    world.alive.clear()
    world.tell(SpawnFailed(1, "it runs already", busy=True))
    assert world.phase() is Phase.STOPPED


def test_events_have_their_numbers_for_programs() -> None:
    world = running(Policy(restart="no"))
    world.exit(signal=9)
    numbers = {record.kind: record.data for record in world.records}
    assert numbers["started"] == {"pid": 4242}
    assert numbers["exited"] == {"signal": 9}


def test_an_end_that_was_asked_for_says_so() -> None:
    world = running(Policy())
    world.tell(Stop())
    world.exit(signal=15)
    assert world.records[-2].data == {"signal": 15, "asked": True}
    hangs = running(Policy(restart="no"))
    hangs.tell(Hung(1, "heartbeat stale"))
    hangs.exit(signal=15)
    assert {record.kind: record.data for record in hangs.records}["exited"] == {"signal": 15}


def test_a_start_by_hand_forgives_earlier_failures() -> None:
    world = running(Policy(max_restarts=1))
    world.exit(2)
    world.come_up()
    world.exit(2)
    assert world.phase() is Phase.FAILED
    world.tell(Start())
    world.come_up()
    world.exit(2)
    assert world.phase() is Phase.STARTING


def test_a_program_that_cannot_exist_is_not_retried_and_a_shortage_is() -> None:
    for permanent, phase in ((True, Phase.FAILED), (False, Phase.STARTING)):
        world = World(Policy())
        world.tell(Boot())
        world.alive.clear()
        world.workers.clear()
        world.tell(SpawnFailed(1, "no such program: /nowhere", permanent))
        assert world.phase() is phase
