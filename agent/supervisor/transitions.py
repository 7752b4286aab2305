"""The life of one service as a pure state machine: ``step(policy, state, event, now) -> (state, effects)``.

Nothing here does I/O, reads a clock or draws a random number, so its laws are tested by the thousand:

* a run is spawned only after every process of the run before it is gone;
* after ``STOPPED`` nothing is spawned until somebody asks for a start;
* every ``BACKOFF`` has a timer armed that ends it;
* exit code 1 (the configuration is wrong) is never retried by a restart policy.

::

              start, due                ready                  exited, hung, too late
    STOPPED ──────────▶ STARTING ───────────────▶ RUNNING ───────────────▶ STOPPING
       ▲                  ▲   │ exited, not ready in time ─────────────────▶ │  │
       │                  │   ▼                                              │  │ all processes gone:
       │   backoff elapsed│  spawn failed: judged like an exit               │  │ judge the exit
       │                  │                                                  │  ▼
       │                BACKOFF ◀──────── retry later ◀──────────────────────┤ COMPLETED, FAILED,
       └────────────────────────────────── asked to stop ◀───────────────────┘ WAITING (jobs)

Retry delays: the first retry is immediate, then 0.5 s doubling to 30 s with 10 % jitter, and from the start again
once a run was ready for a minute. More than ``max_restarts`` of them within ``restart_window`` end in ``FAILED``.
"""

from __future__ import annotations

import msgspec

from agent.supervisor.lifecycle import (
    After,
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
    Step,
    Stop,
    Timer,
    Verdict,
)

BACKOFF_BASE = 0.5
BACKOFF_LIMIT = 30.0
BACKOFF_JITTER = 0.1
STABLE_AFTER = 60.0
"""Seconds a run must have been ready for its end to count as the first failure again."""
KILL_AGAIN = 5.0
"""Seconds between two SIGKILLs of processes that do not die (uninterruptible sleep)."""


def step(policy: Policy, state: State, event: Event, now: float, jitter: float = 0.0) -> Step:
    """One event. ``now`` is monotonic seconds, ``jitter`` a number in [-1, 1] that spreads retries.

    Events of an earlier run and timers that no longer mean anything change nothing: late news is not an error.
    """
    match event:
        case Boot():
            return _boot(policy, state, now)
        case Start():
            return _start(policy, state, now)
        case Stop(reason):
            return _stop(policy, state, now, reason)
        case Restart():
            return _restart(policy, state, now)
        case Due():
            return _due(policy, state, now)
        case Elapsed(timer):
            return _elapsed(policy, state, timer, now, jitter)
    if event.run != state.run or not state.has_process:
        return state, []
    match event:
        case Spawned(_, pid):
            return _spawned(policy, state, pid, now)
        case SpawnFailed():
            return _spawn_failed(policy, state, event, now, jitter)
        case Ready():
            return _ready(policy, state, now)
        case Hung(_, cause):
            # Until it is ready, it has as long as its start may take.
            if state.phase is not Phase.RUNNING:
                return state, []
            return _end(policy, state, now, cause, "judge", "hung")
        case Exited(_, code, signal, text):
            return _exited(state, Verdict(code, signal, text), now)
        case Gone():
            if state.phase is not Phase.STOPPING or not state.exited:
                return state, []
            settled, effects = _settle(policy, state, now, jitter)
            return settled, [*_disarm_all(), *effects]


def _boot(policy: Policy, state: State, now: float) -> Step:
    if state.phase is not Phase.STOPPED:
        return state, []
    if policy.job:
        return _to(state, Phase.WAITING, now, ""), []
    return _spawn(policy, state, now)


def _start(policy: Policy, state: State, now: float) -> Step:
    if state.phase in (Phase.STARTING, Phase.RUNNING):
        return state, []
    if state.phase is Phase.STOPPING:
        return msgspec.structs.replace(_forgive(state), after="restart"), []
    return _spawn(policy, _forgive(state), now, [Disarm("backoff")])


def _stop(policy: Policy, state: State, now: float, reason: str) -> Step:
    if state.phase is Phase.STOPPING:
        return msgspec.structs.replace(state, after="stop", reason=reason or state.reason), []
    if state.has_process:
        return _end(policy, state, now, "", "stop", "stopping", reason)
    stopped = _to(_forgive(state), Phase.STOPPED, now, reason)
    effects: list[Effect] = [Disarm("backoff")]
    if state.phase is not Phase.STOPPED:
        effects.append(Record("stopped", reason or "stopped"))
    return stopped, effects


def _restart(policy: Policy, state: State, now: float) -> Step:
    if state.phase in (Phase.STARTING, Phase.RUNNING):
        return _end(policy, _forgive(state), now, "", "restart", "stopping", "restart asked for")
    return _start(policy, state, now)


def _due(policy: Policy, state: State, now: float) -> Step:
    if state.phase in (Phase.WAITING, Phase.BACKOFF):
        return _spawn(policy, _forgive(state), now, [Disarm("backoff")])
    if state.has_process and not state.skipped:
        # Once for each run: a job that outlasts a thousand of its times must not fill the history with that.
        skipped = msgspec.structs.replace(state, skipped=True)
        return skipped, [Record("skipped", "its time came while the run before was still going")]
    return state, []


def _elapsed(policy: Policy, state: State, timer: Timer, now: float, jitter: float) -> Step:
    match timer, state.phase:
        case "start", Phase.STARTING:
            cause = f"not ready within {policy.start_timeout:g} s"
            return _end(policy, state, now, cause, "judge", "start_timeout")
        case "run", Phase.STARTING | Phase.RUNNING:
            cause = f"ran longer than its timeout of {policy.run_timeout or 0:g} s"
            return _end(policy, state, now, cause, "judge", "run_timeout")
        case "backoff", Phase.BACKOFF:
            return _spawn(policy, state, now)
        case "stop", Phase.STOPPING:
            text = f"still running {policy.stop_timeout:g} s after the stop signal: SIGKILL"
            return state, [Record("killed", text), Kill(state.run), Arm("kill", KILL_AGAIN)]
        case "kill", Phase.STOPPING:
            stuck = msgspec.structs.replace(state, reason="still running after SIGKILL")
            effects: list[Effect] = [Kill(state.run), Arm("kill", KILL_AGAIN)]
            if state.reason != stuck.reason:
                effects.append(Record("unkillable", "still running after SIGKILL: in uninterruptible sleep?"))
            return stuck, effects
    return state, []


def _spawn(policy: Policy, state: State, now: float, before: list[Effect] | None = None) -> Step:
    run = state.run + 1
    spawning = msgspec.structs.replace(
        _to(state, Phase.STARTING, now, ""),
        run=run,
        ready_since=None,
        exited=False,
        after="judge",
        verdict=None,
        skipped=False,
    )
    effects: list[Effect] = [*(before or []), Spawn(run)]
    if policy.announces_ready:
        effects.append(Arm("start", policy.start_timeout))
    if policy.run_timeout is not None:
        effects.append(Arm("run", policy.run_timeout))
    return spawning, effects


def _spawn_failed(policy: Policy, state: State, event: SpawnFailed, now: float, jitter: float) -> Step:
    if state.ready or state.exited:
        return state, []
    if event.busy and policy.job and state.after == "judge":
        return _to(state, Phase.WAITING, now, ""), [*_disarm_all(), Record("skipped", event.text)]
    verdict = Verdict(code=1 if event.permanent else None, text=event.text)
    gone = msgspec.structs.replace(state, exited=True, verdict=verdict)
    settled, effects = _settle(policy, gone, now, jitter)
    return settled, [*_disarm_all(), Record("spawn_failed", event.text), *effects]


def _spawned(policy: Policy, state: State, pid: int, now: float) -> Step:
    if state.phase is not Phase.STARTING:
        return state, []
    started: list[Effect] = [Record("started", f"pid {pid}", {"pid": pid})]
    if policy.announces_ready:
        return state, started
    running, effects = _ready(policy, state, now)
    return running, started + effects


def _ready(policy: Policy, state: State, now: float) -> Step:
    if state.phase is not Phase.STARTING:
        return state, []
    running = msgspec.structs.replace(_to(state, Phase.RUNNING, now, ""), ready_since=now)
    effects: list[Effect] = [Disarm("start")]
    if policy.announces_ready:
        effects.append(Record("ready", f"ready after {now - state.since:.2f} s"))
    return running, effects


def _exited(state: State, verdict: Verdict, now: float) -> Step:
    """The worker is gone; whatever it left behind goes too before anything follows."""
    if state.exited:
        return state, []
    asked = state.phase is Phase.STOPPING and state.after != "judge"
    how = {"code": verdict.code, "signal": verdict.signal, "asked": True if asked else None}
    exited = Record("exited", verdict.text, {name: number for name, number in how.items() if number is not None})
    if state.phase is Phase.STOPPING:
        cause = state.verdict.cause if state.verdict else ""
        verdict = msgspec.structs.replace(verdict, cause=cause)
        return msgspec.structs.replace(state, exited=True, verdict=verdict), [exited]
    stopping = _to(msgspec.structs.replace(state, exited=True, verdict=verdict, after="judge"), Phase.STOPPING, now, "")
    return stopping, [
        exited,
        Disarm("start"),
        Disarm("run"),
        Kill(state.run),
        Arm("kill", KILL_AGAIN),
    ]


def _end(policy: Policy, state: State, now: float, cause: str, after: After, kind: str, reason: str = "") -> Step:
    """Ask a live run to stop, and see to it."""
    stopping = msgspec.structs.replace(
        _to(state, Phase.STOPPING, now, cause or reason), after=after, verdict=Verdict(cause=cause)
    )
    effects: list[Effect] = [Record(kind, cause or reason or "asked to stop"), Disarm("start"), Disarm("run")]
    return stopping, [*effects, Signal(state.run), Arm("stop", policy.stop_timeout)]


def _settle(policy: Policy, state: State, now: float, jitter: float) -> Step:
    """Nothing of the run remains: decide what follows."""
    verdict = state.verdict or Verdict()
    match state.after:
        case "stop":
            return _to(_forgive(state), Phase.STOPPED, now, state.reason), [
                Record("stopped", str(verdict) or "stopped")
            ]
        case "restart":
            return _spawn(policy, msgspec.structs.replace(state, restarts=state.restarts + 1), now)
    if verdict.success:
        if policy.job:
            return _to(_forgive(state), Phase.WAITING, now, ""), [Record("completed", str(verdict))]
        if policy.restart not in ("always", "unless-stopped"):
            return _to(_forgive(state), Phase.COMPLETED, now, str(verdict)), [Record("completed", str(verdict))]
    elif verdict.permanent:
        return _give_up(policy, state, now, f"{verdict} (configuration error: not retried)")
    elif policy.restart == "no":
        return _give_up(policy, state, now, str(verdict))
    return _retry(policy, state, verdict, now, jitter)


def _retry(policy: Policy, state: State, verdict: Verdict, now: float, jitter: float) -> Step:
    recent = tuple(t for t in state.recent if now - t < policy.restart_window)
    if len(recent) >= policy.max_restarts:
        why = f"{verdict}; gave up after {len(recent)} restarts within {policy.restart_window:g} s"
        return _give_up(policy, msgspec.structs.replace(state, recent=recent), now, why)
    # Up to the moment at which its end began: how long it took to die is nothing to its credit.
    stable = state.ready_since is not None and state.since - state.ready_since >= STABLE_AFTER
    failures = 0 if stable else state.failures
    delay = 0.0
    if failures:
        delay = min(BACKOFF_LIMIT, BACKOFF_BASE * 2.0 ** min(failures - 1, 16)) * (1.0 + BACKOFF_JITTER * jitter)
    counted = msgspec.structs.replace(state, failures=failures + 1, restarts=state.restarts + 1, recent=(*recent, now))
    if not delay:
        return _spawn(policy, counted, now, [Record("restarting", f"{verdict}; restarting now")])
    again = "started again" if verdict.success else "retry"
    waiting = _to(counted, Phase.BACKOFF, now, f"{verdict}; {again} in {delay:.1f} s")
    return waiting, [Record("backoff", waiting.reason), Arm("backoff", delay)]


def _give_up(policy: Policy, state: State, now: float, reason: str) -> Step:
    """A job waits for its next time; anything else stays down until somebody looks."""
    phase = Phase.WAITING if policy.job else Phase.FAILED
    failed = msgspec.structs.replace(
        _to(state, phase, now, f"last run failed: {reason}" if policy.job else reason), failures=0
    )
    return failed, [Record("failed", reason)]


def _forgive(state: State) -> State:
    """Somebody asked, or a run went well: earlier failures no longer count."""
    return msgspec.structs.replace(state, failures=0, recent=())


def _to(state: State, phase: Phase, now: float, reason: str) -> State:
    return msgspec.structs.replace(state, phase=phase, since=now, reason=reason)


def _disarm_all() -> list[Effect]:
    return [Disarm("start"), Disarm("run"), Disarm("stop"), Disarm("kill")]
