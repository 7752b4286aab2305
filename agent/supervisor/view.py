"""What is told about a unit: state, health and figures, as the wire types have them."""

from __future__ import annotations

import time

from agent.linux.process import Relation
from agent.supervisor.lifecycle import Phase
from agent.supervisor.measure import Meter, Usage
from agent.supervisor.report import Health, ServiceReport, TimerReport
from agent.supervisor.unit import Unit


def describe(unit: Unit, meter: Meter, relatives: Relation) -> ServiceReport:
    """The report of one service; its processes, found by ``relatives``, are measured while we are at it."""
    usage = _usage(unit, meter, relatives)
    return ServiceReport(
        name=unit.name,
        kind=unit.service.kind,
        state=unit.phase.value,
        ready=unit.state.ready,
        health=health(unit),
        pid=unit.pid,
        since=unit.since,
        restarts=unit.state.restarts,
        last_exit=unit.last_exit,
        heartbeat_age=round(unit.liveness.age(), 3) if unit.liveness is not None else None,
        next_run=unit.next_run,
        cpu_percent=usage.cpu_percent if usage else None,
        rss_bytes=usage.rss_bytes if usage else None,
        threads=usage.threads if usage else None,
        open_files=usage.open_files if usage else None,
        processes=usage.processes if usage else None,
        message=_told(unit),
        enabled=unit.service.enabled,
        project=unit.service.project,
        log_dropped_bytes=unit.dropped_bytes,
        figures=unit.figures,
        interfaces=unit.interfaces,
    )


def _usage(unit: Unit, meter: Meter, relatives: Relation) -> Usage | None:
    if unit.run is None:
        return None
    try:
        return meter.recent(unit.name) or meter.look(unit.name, unit.run.pids(relatives))
    except OSError:  # no descriptor is left to look with; everything else can be told all the same
        return None


def describe_timer(unit: Unit, last_run: float | None) -> TimerReport:
    """The report of one job."""
    return TimerReport(
        name=unit.name,
        schedule=unit.service.timer.source if unit.service.timer else "",
        next_run=unit.next_run,
        last_run=last_run,
        last_exit=unit.last_exit,
        state=unit.phase.value,
        scheduler="systemd" if unit.times_are_systemds else "agent",
        enabled=unit.service.enabled,
    )


def health(unit: Unit) -> Health:
    """``healthy`` is said only of what proves it: a program that announces nothing is ``unknown`` while it runs."""
    if unit.phase in (Phase.BACKOFF, Phase.FAILED):
        return "unhealthy"
    if unit.phase is Phase.WAITING:
        verdict = unit.state.verdict
        return "unknown" if verdict is None else "healthy" if verdict.success else "unhealthy"
    if unit.phase is Phase.RUNNING and (unit.liveness is not None or unit.service.ready != "immediate"):
        return "healthy"
    return "unknown"


def _told(unit: Unit) -> str:
    """What a person is told of it: of a scan also that it will wait when it is started."""
    if unit.paused and not unit.state.has_process:
        return f"paused by hand; {told}" if (told := message(unit)) else "paused by hand"
    return message(unit)


def message(unit: Unit) -> str:
    """One line for a person: why the service is where it is, or what the worker says of itself."""
    if unit.untouched:
        return "its turn to start is to come"
    if unit.state.reason:
        failed = unit.phase in (Phase.FAILED, Phase.BACKOFF, Phase.WAITING)
        return f"{unit.state.reason}: {unit.last_words}" if failed and unit.last_words else unit.state.reason
    if unit.phase is Phase.WAITING and unit.times_are_systemds:
        return "waits for systemd: agentctl timers" + (f"; last: {unit.status_text}" if unit.status_text else "")
    if unit.phase is Phase.WAITING and unit.service.timer is not None:
        if unit.next_run is None:
            return f"{unit.service.timer.source}: never again"
        return f"next {_moment(unit.next_run)}" + (f"; last: {unit.status_text}" if unit.status_text else "")
    return unit.status_text


def has_failed(unit: Unit) -> bool:
    """Whether it is not up, and should be. What ended well and will be started again has not failed."""
    ended_well = unit.state.verdict is not None and unit.state.verdict.success
    return unit.phase is Phase.FAILED or (unit.phase is Phase.BACKOFF and not ended_well)


def why_at_rest(unit: Unit) -> str:
    """Why no process of it runs, in a few words; nothing when one does."""
    if unit.state.has_process:
        return ""
    if not unit.service.enabled:
        return "disabled"
    if unit.phase is Phase.WAITING and unit.times_are_systemds:
        return "waits for systemd"
    if unit.phase is Phase.WAITING and unit.next_run is not None:
        return f"waits until {_moment(unit.next_run)}"
    return message(unit)


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
