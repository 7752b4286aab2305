"""One service as the engine holds it: feeds events to the lifecycle and performs the effects that come back."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from agent.declaration.model import AgentSettings, AnyService
from agent.declaration.model import Timer as Times
from agent.errors import AgentError, AlreadyRunning, SpawnFailed
from agent.linux.process import ExitStatus, Identity
from agent.paths import Paths
from agent.supervisor import lifecycle
from agent.supervisor.agenda import Agenda, Plan
from agent.supervisor.budget import Budget
from agent.supervisor.containment import Containment, Held
from agent.supervisor.handed import handed
from agent.supervisor.launch import launch
from agent.supervisor.lifecycle import Event, Phase, Policy, State, Timer
from agent.supervisor.liveness import Liveness
from agent.supervisor.notices import Notice
from agent.supervisor.premises import Premises, Tenancy
from agent.supervisor.prepare import write_settings
from agent.supervisor.pulse import Beat, Pulse
from agent.supervisor.run import Orders, Run, RunState, Sink, check_descriptors
from agent.supervisor.transitions import step

EVENTS_PER_SECOND = 10.0
EVENTS_BURST = 75.0
"""What a service may tell at once: a scan tells up to 50 changes one by one, and then that it has finished."""


class Host(Protocol):
    """What a unit needs around it; the engine is one."""

    loop: asyncio.AbstractEventLoop
    paths: Paths
    settings: AgentSettings
    environ: dict[str, str]
    lock_follows_child: bool
    """Whether the service's lock is inherited by the child, and so held until the last of it is gone."""

    def contain(self, service: AnyService, mark: str, held: Held | None = None) -> Containment: ...
    def mark(self, name: str) -> str: ...
    def sink(self, service: AnyService) -> Sink: ...
    def record(self, name: str, kind: str, message: str, data: dict[str, Any]) -> None: ...
    def spawned(self, name: str, identity: Identity, mark: str) -> None: ...
    def exited(self, name: str) -> None: ...
    def changed(self, unit: Unit) -> None: ...
    def last_run(self, name: str) -> float | None: ...
    def ran(self, name: str, at: float) -> None: ...
    def served(self, name: str) -> float | None: ...
    def serve(self, name: str, at: float) -> None: ...


class UnitState(msgspec.Struct, frozen=True, kw_only=True):
    """One unit between two programs in one process. Times are monotonic, but for ``since`` and those of ``plan``."""

    service: AnyService
    state: State
    run: RunState | None
    tenancy: Tenancy
    beat: Beat | None
    timers: dict[Timer, float]
    plan: Plan
    since: float
    last_exit: str | None
    last_words: str
    status_text: str
    figures: dict[str, Any]
    dropped_bytes: int
    interfaces: dict[str, dict[str, Any]] = {}


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
        self.interfaces: dict[str, dict[str, Any]] = {}
        self.liveness: Liveness | None = None
        self.queue = asyncio.Lock()
        """Who asks something of the unit does it one after the other: see ``agent.supervisor.command``."""
        self.impatient = 0
        """How many wait in the queue who would rather not see a start out."""
        self._host = host
        self._policy = policy or policy_of(service)
        self._events: deque[Event] = deque()
        self._busy = False
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._agenda = Agenda(host.loop, service.name, host, lambda: self.post(lifecycle.Due()), self._no_calendar)
        self._premises = Premises(host.loop, host.paths, service.name, self._heed)
        self._watchers: set[asyncio.Future[None]] = set()
        self._dropped_before = 0
        self._event_budget = Budget(EVENTS_PER_SECOND, EVENTS_BURST, host.loop.time())

    # -- what others ask and tell -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def pid(self) -> int | None:
        """The worker's PID, while it lives."""
        return self.run.pid if self.run is not None and not self.run.exited else None

    @property
    def untouched(self) -> bool:
        """Whether nobody has asked anything of it yet."""
        return self.phase is Phase.STOPPED and not self.state.run and not self.state.reason

    @property
    def next_run(self) -> float | None:
        """When the job is due next, in unix seconds."""
        return self._agenda.next_run

    @property
    def paused(self) -> bool:
        """Whether it is a scan that somebody has paused: it sends nothing, be it started or not."""
        return self.service.kind == "scan" and self._host.paths.paused(self.name).exists()

    @property
    def times_are_systemds(self) -> bool:
        """Whether it is a job that systemd starts at its times: we only do when somebody asks for it."""
        return self.service.timer is not None and self._host.settings.scheduler == "systemd"

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

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        for future in self._watchers:
            if not future.done():
                future.set_result(None)

    def update(self, service: AnyService) -> None:
        """Take over another declaration. A worker that runs goes on, and is told what there is to tell."""
        self.service = service
        self._policy = policy_of(service)
        if self.run is not None:
            self.run.adjust_log(service.log)
            with suppress(AgentError, OSError):
                write_settings(service, self._host.paths)
        self.plan_next()

    def clock_was_set(self) -> None:
        """What was computed from the wall clock is void."""
        self._agenda.look()

    def freeze(self) -> UnitState:
        """All of it, for another program in this process that is to go on with it."""
        return UnitState(
            service=self.service,
            state=self.state,
            run=self.run.freeze() if self.run is not None else None,
            tenancy=self._premises.freeze(),
            beat=self.liveness.freeze() if self.liveness is not None else None,
            timers={timer: handle.when() for timer, handle in self._timers.items()},
            plan=self._agenda.freeze(),
            since=self.since,
            last_exit=self.last_exit,
            last_words=self.last_words,
            status_text=self.status_text,
            figures=self.figures,
            dropped_bytes=self._dropped_before,
            interfaces=self.interfaces,
        )

    def thaw(self, frozen: UnitState) -> None:
        """Go on where an earlier program was frozen; for a unit that has just been made of the same service."""
        host = self._host
        self.state, self.since = frozen.state, frozen.since
        self.last_exit, self.last_words, self.status_text = frozen.last_exit, frozen.last_words, frozen.status_text
        self.figures, self.interfaces = frozen.figures, frozen.interfaces
        self._dropped_before = frozen.dropped_bytes
        self._premises.thaw(frozen.tenancy)
        if frozen.run is not None:
            run = self.state.run
            self.run = self._hold(run, frozen.run, host.contain(self.service, frozen.run.mark, frozen.run.held))
            if not self.run.exited:
                host.spawned(self.name, self.run.identity, frozen.run.mark)
        if frozen.beat is not None and (liveness := self._watch(self.service, self.state.run)) is not None:
            self.liveness = liveness
            liveness.resume(frozen.beat, ready=self.state.ready, expected=self.service.ready == "heartbeat")
        for timer, when in frozen.timers.items():
            self._timers[timer] = host.loop.call_at(when, self._elapsed, timer)
        if self._times is not None:
            self._agenda.thaw(self._times, frozen.plan)

    def close(self) -> None:
        """Let go of everything, and of every file but data and logs. Only for a unit without a process."""
        for timer in tuple(self._timers):
            self._disarm(timer)
        self._agenda.plan(None)
        self._end_liveness()
        self._premises.close()

    # -- the state machine and its effects ----------------------------------------------------------------------

    def _advance(self, event: Event) -> None:
        before = self.state
        jitter = random.uniform(-1.0, 1.0)  # noqa: S311  # spreads retries, guards nothing
        self.state, effects = step(self._policy, before, event, self.now(), jitter)
        for effect in effects:
            try:
                self._perform(effect)
            except Exception as error:
                # One effect that fails must not cost the others, least of all the timer that would try again.
                context = {"message": f"{self.name}: cannot perform {effect}", "exception": error}
                self._host.loop.call_exception_handler(context)
        if self.state.phase is not before.phase or self.state.run != before.run:
            self.since = time.time()
            self.plan_next()
            if not self.state.has_process:
                if before.has_process or self.service.heartbeat is not None:
                    self._come_to_rest()
            elif self.state.ready and self.liveness is not None:
                self.liveness.watch()
            self._host.changed(self)

    def _perform(self, effect: lifecycle.Effect) -> None:
        match effect:
            case lifecycle.Record(kind, message, data):
                if kind == "exited" and self.last_words:
                    message = f"{message}; last words: {self.last_words}"
                now = {"run": self.state.run, "state": self.state.phase.value}
                self._host.record(self.name, kind, message, now | data)
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

    def plan_next(self) -> None:
        """Find out when it is due next, by its declaration, the agent's settings and the clock as they are now."""
        self._agenda.plan(self._times, self._host.last_run(self.name))

    @property
    def _times(self) -> Times | None:
        """A job's times, while it is for us to start it at them."""
        idle = self.phase in (Phase.STOPPED, Phase.FAILED) or self.times_are_systemds
        return None if idle else self.service.timer

    def _no_calendar(self, why: str) -> None:
        self._host.record(self.name, "calendar_failed", why, {})

    # -- the run ------------------------------------------------------------------------------------------------

    def _spawn(self, run: int) -> None:
        self.status_text = self.last_words = ""
        self.figures, self.interfaces = {}, {}
        mark = self._host.mark(self.name)
        try:
            self.run = self._start(run, mark)
        except Exception as error:
            if not isinstance(error, AgentError | OSError):
                self._host.loop.call_exception_handler({"message": f"cannot start {self.name}", "exception": error})
            self._not_started(run, error)
            return
        self._events.append(lifecycle.Spawned(run, self.run.pid))
        self._host.spawned(self.name, self.run.identity, mark)
        if self.service.timer is not None:
            self._host.ran(self.name, time.time())
        if self.liveness is not None and self.service.ready == "heartbeat":
            self.liveness.expect()

    def _start(self, run: int, mark: str) -> Run:
        """Everything up to a process. When it raises there is none."""
        host, service = self._host, self.service
        check_descriptors()
        address = self._premises.take(service)
        self.liveness = self._watch(service, run)  # before the process: its very first heartbeat counts
        lock = (self._premises.lock_fd,) if host.lock_follows_child else ()
        with handed(service, host.paths) as files:
            orders = Orders(
                name=service.name,
                launch=launch(service, host.settings, host.paths, mark, address, host.environ, files),
                user=service.user,
                group=service.group,
                working_directory=service.working_directory,
                mark=mark,
                pass_fds=(*lock, *files.values()),
            )
            return self._hold(run, orders, host.contain(service, mark))

    def _hold(self, run: int, orders: Orders | RunState, containment: Containment) -> Run:
        return Run(
            self._host.loop,
            orders,
            self._host.paths.pid(self.name),
            containment,
            self._host.sink(self.service),
            on_exit=lambda status: self._exited(run, status),
            on_gone=lambda: self._gone(run),
        )

    def _watch(self, service: AnyService, run: int) -> Liveness | None:
        """The heartbeat of a run, for a service that promises one."""
        if service.heartbeat is None:
            return None
        pulse = Pulse(self._host.paths.heartbeat(service.name), service.heartbeat, self.now())
        return Liveness(
            self._host.loop,
            pulse,
            on_first=lambda: self.post(lifecycle.Ready(run)),
            on_stale=lambda age: self._went_stale(run, age),
        )

    def _not_started(self, run: int, error: Exception) -> None:
        self._end_liveness()
        self._premises.listener.close()
        match error:
            case AlreadyRunning():
                self.last_exit = f"it runs already, under process {error.pid}"
            case SpawnFailed():
                self.last_exit = str(error)
            case _:
                self.last_exit = f"cannot start: {error}"
        permanent = isinstance(error, SpawnFailed) and error.permanent
        busy = isinstance(error, AlreadyRunning)
        self._events.append(lifecycle.SpawnFailed(run, self.last_exit, permanent, busy))

    def _exited(self, run: int, status: ExitStatus) -> None:
        self._host.exited(self.name)
        self.last_exit = str(status)
        asked = self.phase is Phase.STOPPING and self.state.after != "judge"
        self.last_words = self.run.last_line if self.run is not None and not asked and not status.success else ""
        if self.run is not None and self.run.out_of_memory():
            self.last_exit += " (out of memory)"
            limit = self.service.limits.memory
            self._host.record(self.name, "out_of_memory", f"its limit is {limit} bytes of memory", {"limit": limit})
        self._premises.listener.hear()
        self._end_liveness()
        self.post(lifecycle.Exited(run, status.code, status.signal, self.last_exit))

    def _gone(self, run: int) -> None:
        self._premises.listener.hear_out()
        if self.run is not None:
            self._dropped_before += self.run.dropped_bytes
        self.run = None
        self.post(lifecycle.Gone(run))

    def _come_to_rest(self) -> None:
        """No process: whoever runs it next, ``run-once`` perhaps, finds nothing in the way and nothing secret."""
        self._premises.leave(clear=self.phase is not Phase.BACKOFF, heartbeat=self._rests_well())

    def _rests_well(self) -> bool:
        """It is down, and should be. A monitor must not find its heartbeat old; that of one that failed it must."""
        verdict = self.state.verdict
        ended_well = verdict is None or verdict.success
        return self.phase in (Phase.STOPPED, Phase.COMPLETED) or (self.phase is Phase.WAITING and ended_well)

    # -- what the child says ------------------------------------------------------------------------------------

    def _heed(self, notice: Notice) -> None:
        if self.run is None:
            return
        if notice.beat and self.liveness is not None:
            self.liveness.beat()
        if notice.ready or (notice.beat and self.service.ready == "heartbeat"):
            self.post(lifecycle.Ready(self.state.run))
        if notice.extend is not None:
            self._extend(notice.extend)
        if notice.figures is not None:
            self.figures = notice.figures
        if notice.interfaces is not None:
            self.interfaces = notice.interfaces
        if notice.status is not None and notice.status != self.status_text:
            self.status_text = notice.status
            self._host.changed(self)
        if notice.event is not None and self._event_budget.spend(self.now()):
            self._host.record(self.name, notice.event.kind, notice.event.message, notice.event.data)

    def _extend(self, seconds: float) -> None:
        """More time to start or to stop; as with systemd never less than there was, sd_notify(3).

        To a scan also more time to run: that for which it is paused does not count.
        """
        timers: tuple[Timer, ...] = ("start", "stop", "run") if self.service.kind == "scan" else ("start", "stop")
        for timer in timers:
            handle = self._timers.get(timer)
            if handle is not None and handle.when() < self.now() + seconds:
                self._arm(timer, seconds)

    # -- liveness -----------------------------------------------------------------------------------------------

    def _went_stale(self, run: int, age: float) -> None:
        timeout = self.service.heartbeat.timeout if self.service.heartbeat is not None else 0.0
        self._end_liveness()
        self.post(lifecycle.Hung(run, f"heartbeat stale: {age:.1f} s old, timeout {timeout:g} s"))

    def _end_liveness(self) -> None:
        if self.liveness is not None:
            self.liveness.close()
            self.liveness = None
