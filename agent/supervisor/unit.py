"""One service as the engine holds it: feeds events to the lifecycle and performs the effects that come back."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import deque
from typing import Any, Protocol

from agent.declaration.model import AgentSettings, AnyService
from agent.errors import AgentError, AlreadyRunning, SpawnFailed
from agent.linux.files import PrefixLock
from agent.linux.notify import Notification, NotifyReceiver
from agent.linux.process import ExitStatus, Identity
from agent.paths import Paths
from agent.supervisor import lifecycle
from agent.supervisor.containment import Containment
from agent.supervisor.launch import launch
from agent.supervisor.lifecycle import Event, Phase, Policy, State, Timer
from agent.supervisor.notices import Notice, understand
from agent.supervisor.prepare import drop_secrets, prepare, tidy
from agent.supervisor.pulse import Pulse
from agent.supervisor.run import Orders, Run, Sink, check_descriptors
from agent.supervisor.schedule import next_run

EVENTS_PER_SECOND = 10.0
EVENTS_BURST = 50.0
LONGEST_SLEEP = 3600.0
"""Calendar timers sleep at most this many seconds, so that a clock that drifts is followed."""


class Host(Protocol):
    """What a unit needs around it; the engine is one."""

    loop: asyncio.AbstractEventLoop
    paths: Paths
    settings: AgentSettings
    environ: dict[str, str]
    lock_follows_child: bool
    """Whether the service's lock is inherited by the child, and so held until the last of it is gone."""

    def contain(self, service: AnyService, mark: str) -> Containment: ...
    def mark(self, name: str) -> str: ...
    def sink(self, service: AnyService) -> Sink: ...
    def record(self, name: str, kind: str, message: str, data: dict[str, Any]) -> None: ...
    def spawned(self, name: str, identity: Identity, mark: str) -> None: ...
    def changed(self, unit: Unit) -> None: ...
    def last_run(self, name: str) -> float | None: ...
    def ran(self, name: str, at: float) -> None: ...


class _Busy(SpawnFailed):
    """Somebody else runs it right now."""


def policy_of(service: AnyService) -> Policy:
    """The lifecycle's view of a declaration."""
    return Policy(
        restart=service.restart,
        max_restarts=service.max_restarts,
        restart_window=service.restart_window,
        stop_timeout=service.stop_timeout,
        start_timeout=service.start_timeout,
        announces_ready=service.ready != "immediate",
        job=service.timer is not None,
        run_timeout=service.run_timeout,
    )


class Unit:
    """A service, its state and its current run."""

    def __init__(self, host: Host, service: AnyService, policy: Policy | None = None) -> None:
        self.service = service
        self.state = State(since=host.loop.time())
        self.run: Run | None = None
        self.since = time.time()
        self.last_exit: str | None = None
        self.last_words = ""
        self.status_text = ""
        self.figures: dict[str, Any] = {}
        self.next_run: float | None = None
        self.pulse: Pulse | None = None
        self.queue = asyncio.Lock()
        self.queued_stops = 0
        self._host = host
        self._policy = policy or policy_of(service)
        self._events: deque[Event] = deque()
        self._busy = False
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._calendar: asyncio.TimerHandle | None = None
        self._last_due: float | None = None
        self._pulse_timer: asyncio.TimerHandle | None = None
        self._receiver: NotifyReceiver | None = None
        self._lock: PrefixLock | None = None
        self._uid = os.getuid()
        self._watchers: set[asyncio.Future[None]] = set()
        self._dropped_before = 0
        self._event_budget = (EVENTS_BURST, host.loop.time())

    # -- what others ask and tell -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def dropped_bytes(self) -> int:
        return self._dropped_before + (self.run.dropped_bytes if self.run else 0)

    def post(self, event: Event) -> None:
        """Handle one event and everything that follows from it, in order."""
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                self._advance(self._events.popleft())
        finally:
            self._busy = False
        self.wake()

    def now(self) -> float:
        """Monotonic seconds, as the lifecycle has them."""
        return self._host.loop.time()

    async def change(self, timeout: float) -> bool:
        """Wait until something changed; ``False`` after ``timeout`` seconds without a change."""
        if timeout <= 0:
            return False
        future: asyncio.Future[None] = self._host.loop.create_future()
        self._watchers.add(future)
        try:
            done, _ = await asyncio.wait((future,), timeout=None if timeout == float("inf") else timeout)
        finally:
            self._watchers.discard(future)
        return bool(done)

    def update(self, service: AnyService) -> None:
        """Take over a declaration that needs no new worker."""
        self.service = service
        self._policy = policy_of(service)
        if self.run is not None:
            self.run.adjust_log(service.log)
        self._plan_next()

    def reschedule(self) -> None:
        """The wall clock was set: what was computed from it is void."""
        self._plan_next()

    def close(self) -> None:
        """Forget everything that outlives a run. Only for a unit without a process."""
        for handle in (*self._timers.values(), self._calendar, self._pulse_timer):
            if handle is not None:
                handle.cancel()
        self._stop_listening()
        tidy(self.name, self._host.paths)

    # -- the state machine and its effects ----------------------------------------------------------------------

    def _advance(self, event: Event) -> None:
        before = self.state
        now = self._host.loop.time()
        jitter = random.uniform(-1.0, 1.0)  # noqa: S311  # spreads retries, guards nothing
        self.state, effects = lifecycle.step(self._policy, before, event, now, jitter)
        for effect in effects:
            self._perform(effect)
        if self.state.phase is not before.phase or self.state.run != before.run:
            self.since = time.time()
            self._plan_next()
            if not self.state.has_process and self._rests_well():
                self._host.paths.heartbeat(self.name).unlink(missing_ok=True)
            self._host.changed(self)

    def _rests_well(self) -> bool:
        """It is down, and should be. A monitor must not find its heartbeat old; that of one that failed it must."""
        verdict = self.state.verdict
        ended_well = verdict is None or verdict.success
        return self.phase in (Phase.STOPPED, Phase.COMPLETED) or (self.phase is Phase.WAITING and ended_well)

    def _perform(self, effect: lifecycle.Effect) -> None:
        match effect:
            case lifecycle.Record(kind, message):
                if kind == "exited" and self.last_words:
                    message = f"{message}; last words: {self.last_words}"
                self._host.record(self.name, kind, message, {"run": self.state.run, "state": self.state.phase.value})
            case lifecycle.Spawn(run):
                self._spawn(run)
            case lifecycle.Signal():
                if self.run is not None:
                    self.run.signal(self.service.stop_signal)
            case lifecycle.Kill():
                if self.run is not None:
                    self.run.kill()
            case lifecycle.Arm(timer, seconds):
                self._arm(timer, seconds)
            case lifecycle.Disarm(timer):
                self._disarm(timer)

    def _arm(self, timer: Timer, seconds: float) -> None:
        self._disarm(timer)
        self._timers[timer] = self._host.loop.call_later(seconds, self._elapsed, timer)

    def _disarm(self, timer: Timer) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def _elapsed(self, timer: Timer) -> None:
        self._timers.pop(timer, None)
        self.post(lifecycle.Elapsed(timer))

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        for future in self._watchers:
            if not future.done():
                future.set_result(None)

    # -- the run ------------------------------------------------------------------------------------------------

    def _spawn(self, run: int) -> None:
        self.status_text = ""
        self.figures = {}
        try:
            self.run = self._start(run)
        except SpawnFailed as error:
            self._release()
            self._stop_listening()
            self.last_exit = str(error)
            busy = isinstance(error, _Busy)
            self._events.append(lifecycle.SpawnFailed(run, str(error), error.permanent, busy))
        except (AgentError, OSError) as error:
            self._release()
            self._stop_listening()
            self.last_exit = f"cannot start: {error}"
            self._events.append(lifecycle.SpawnFailed(run, self.last_exit, permanent=False))
        else:
            self._events.append(lifecycle.Spawned(run, self.run.pid))

    def _start(self, run: int) -> Run:
        host, service = self._host, self.service
        check_descriptors()
        self._lock = PrefixLock(host.paths.service_lock(service.name))
        try:
            self._lock.acquire()
        except AlreadyRunning as error:
            self._lock = None
            raise _Busy(f"it runs already, under process {error.pid}", permanent=False) from error
        self._uid = prepare(service, host.settings, host.paths)
        address = self._listen()
        mark = host.mark(service.name)
        orders = Orders(
            name=service.name,
            launch=launch(service, host.settings, host.paths, mark, address, host.environ),
            user=service.user,
            group=service.group,
            working_directory=service.working_directory,
            pid_file=host.paths.pid(service.name),
            pass_fds=(self._lock.fd,) if host.lock_follows_child else (),
        )
        started = Run(
            host.loop,
            orders,
            host.contain(service, mark),
            host.sink(service),
            on_exit=lambda status: self._exited(run, status),
            on_gone=lambda: self._gone(run),
        )
        host.spawned(service.name, started.identity, mark)
        if service.timer is not None:
            host.ran(service.name, time.time())
        if service.heartbeat is not None:
            self.pulse = Pulse(host.paths.heartbeat(service.name), service.heartbeat, host.loop.time())
            self._pulse_timer = host.loop.call_later(service.heartbeat.interval, self._look_at_pulse, run)
        return started

    def _exited(self, run: int, status: ExitStatus) -> None:
        self.last_exit = str(status)
        asked = self.phase is Phase.STOPPING and self.state.after != "judge"
        self.last_words = self.run.last_line if self.run is not None and not asked and not status.success else ""
        if self.run is not None and self.run.out_of_memory():
            self.last_exit += " (out of memory)"
            limit = self.service.limits.memory
            self._host.record(self.name, "out_of_memory", f"its limit is {limit} bytes of memory", {"limit": limit})
        self._hear()
        self._stop_pulse()
        self.post(lifecycle.Exited(run, status.code, status.signal, self.last_exit))

    def _gone(self, run: int) -> None:
        if self.run is not None:
            self._dropped_before += self.run.dropped_bytes
        self.run = None
        self._release()
        drop_secrets(self.name, self._host.paths)
        self.post(lifecycle.Gone(run))

    def _release(self) -> None:
        self._stop_pulse()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # -- liveness -----------------------------------------------------------------------------------------------

    def _stop_pulse(self) -> None:
        self.pulse = None
        if self._pulse_timer is not None:
            self._pulse_timer.cancel()
            self._pulse_timer = None

    def _look_at_pulse(self, run: int) -> None:
        heartbeat = self.service.heartbeat
        if self.pulse is None or heartbeat is None:
            return
        stale = self.pulse.look(self._host.loop.time())
        if stale is not None:
            cause = f"heartbeat stale: {stale:.1f} s old, timeout {heartbeat.timeout:g} s"
            self._stop_pulse()
            self.post(lifecycle.Hung(run, cause))
            return
        if self.service.ready == "heartbeat" and self.pulse.ever:
            self.post(lifecycle.Ready(run))
        self._pulse_timer = self._host.loop.call_later(heartbeat.interval, self._look_at_pulse, run)

    # -- what the child says ------------------------------------------------------------------------------------

    def _listen(self) -> str:
        """Have a notify socket; returns its address for the child."""
        if self._receiver is None:
            self._receiver = NotifyReceiver(self._host.paths.notify(self.name), owner=self._uid)
            self._host.loop.add_reader(self._receiver.fd, self._hear)
        return self._receiver.address

    def _stop_listening(self) -> None:
        if self._receiver is not None:
            self._host.loop.remove_reader(self._receiver.fd)
            self._receiver.close()
            self._receiver = None

    def _hear(self) -> None:
        if self._receiver is None:
            return
        for notification in self._receiver.receive():
            if self.run is not None and notification.uid in (0, os.getuid(), self._uid):
                self._heed(notification)

    def _heed(self, notification: Notification) -> None:
        notice: Notice = understand(notification.fields)
        now = self._host.loop.time()
        if notice.beat and self.pulse is not None:
            self.pulse.beat(now)
        if notice.ready or (notice.beat and self.service.ready == "heartbeat"):
            self.post(lifecycle.Ready(self.state.run))
        if notice.extend is not None:
            for timer in ("start", "stop"):
                if timer in self._timers:
                    self._arm(timer, notice.extend)
        if notice.figures is not None:
            self.figures = notice.figures
        if notice.status is not None and notice.status != self.status_text:
            self.status_text = notice.status
            self._host.changed(self)
        if notice.event is not None and self._may_record(now):
            self._host.record(self.name, notice.event.kind, notice.event.message, notice.event.data)

    def _may_record(self, now: float) -> bool:
        """A token bucket: a child that floods events must not push the others out of a bounded history."""
        tokens, at = self._event_budget
        tokens = min(EVENTS_BURST, tokens + (now - at) * EVENTS_PER_SECOND)
        allowed = tokens >= 1.0
        self._event_budget = (tokens - 1.0 if allowed else tokens, now)
        return allowed

    # -- the calendar -------------------------------------------------------------------------------------------

    def _plan_next(self) -> None:
        if self._calendar is not None:
            self._calendar.cancel()
            self._calendar = None
        timer = self.service.timer
        if timer is None or self.phase in (Phase.STOPPED, Phase.FAILED):
            self.next_run = None
            return
        now = time.time()
        last = max((at for at in (self._host.last_run(self.name), self._last_due) if at is not None), default=None)
        try:
            self.next_run = next_run(timer, now, last)
        except AgentError as error:
            # Its time zone was there when the declaration was checked, and is no more: the host lost tzdata.
            self.next_run = None
            self._host.record(self.name, "calendar_failed", str(error), {})
        if self.next_run is not None:
            delay = min(max(0.0, self.next_run - now), LONGEST_SLEEP)
            self._calendar = self._host.loop.call_later(delay, self._calendar_elapsed)

    def _calendar_elapsed(self) -> None:
        self._calendar = None
        if self.next_run is not None and time.time() >= self.next_run:
            # Also when the run is skipped: its time has passed all the same.
            self._last_due = time.time()
            self.post(lifecycle.Due())
        if self._calendar is None:
            self._plan_next()
