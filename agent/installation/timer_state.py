"""How the jobs that systemd starts are doing: from the properties of their units to what ``agentctl timers`` shows.

Properties are those of org.freedesktop.systemd1(5), as ``systemctl show`` prints them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from agent.installation.timers import unit
from agent.linux import systemctl
from agent.linux.systemctl import Properties, parse_timespan, parse_timestamp

PROPERTIES = (
    *("ActiveState", "SubState", "NextElapseUSecRealtime", "NextElapseUSecMonotonic", "LastTriggerUSec"),
    *("Result", "ExecMainCode", "ExecMainStatus", "ExecMainStartTimestamp", "ExecMainExitTimestamp", "StatusText"),
)

_EXITED = "1"  # CLD_EXITED, waitid(2)
_RESULTS = {
    "timeout": "ended by systemd: it took longer than its unit allows",
    "oom-kill": "out of memory",
    "start-limit-hit": "not started: systemd has started it too often",
    "resources": "not started: systemd lacks what it takes",
    "watchdog": "ended by systemd: its watchdog",
}
"""Of Result= those where the main process has less to say, systemd.exec(5) under $SERVICE_RESULT."""


class JobState(NamedTuple):
    """One job; times in unix seconds. ``stopped``: its timer is not ``active``, so nobody starts it."""

    state: Literal["waiting", "running", "stopping", "stopped"]
    next_run: float | None
    last_run: float | None
    last_exit: str | None
    active: bool = True


def ask(names: Sequence[str]) -> dict[str, JobState]:
    """What systemd knows about these jobs. Anybody may ask. Raises ``RuntimeFailure`` when nobody answers."""
    units = [unit(name, suffix) for name in names for suffix in ("timer", "service")]
    told = systemctl.show(units, PROPERTIES) if units else {}
    return read(names, told, time.time(), time.clock_gettime(time.CLOCK_MONOTONIC))


def read(names: Sequence[str], told: Mapping[str, Properties], now: float, monotonic: float) -> dict[str, JobState]:
    """The same from what ``systemctl show`` told at unix time ``now`` and CLOCK_MONOTONIC ``monotonic``. Pure."""
    return {name: _read(told[unit(name, "timer")], told[unit(name, "service")], now, monotonic) for name in names}


def _read(timer: Properties, service: Properties, now: float, monotonic: float) -> JobState:
    began = parse_timestamp(service.get("ExecMainStartTimestamp", ""))
    return JobState(
        state=_state(timer, service),
        next_run=_next_run(timer, now, monotonic),
        # Of a job that has not run since the boot, systemd knows when its timer elapsed last, if that is persistent.
        last_run=began or parse_timestamp(timer.get("LastTriggerUSec", "")),
        last_exit=_last_exit(service) if began else None,
        active=timer.get("ActiveState") == "active",
    )


def _state(timer: Properties, service: Properties) -> Literal["waiting", "running", "stopping", "stopped"]:
    if service.get("ActiveState") in ("activating", "active", "reloading"):
        return "running"
    if service.get("ActiveState") == "deactivating":
        return "stopping"
    return "waiting" if timer.get("ActiveState") == "active" else "stopped"


def _next_run(timer: Properties, now: float, monotonic: float) -> float | None:
    if timer.get("SubState") != "waiting":
        return None
    found = [parse_timestamp(timer.get("NextElapseUSecRealtime", ""))]
    if since_boot := parse_timespan(timer.get("NextElapseUSecMonotonic", "")):
        found.append(now + since_boot - monotonic)
    return min((at for at in found if at is not None), default=None)


def _last_exit(service: Properties) -> str | None:
    """As the agent puts it: ``exited 0``, ``killed by SIGKILL``. ``run-once`` tells more than its exit code can."""
    result, code, status = (service.get(name, "") for name in ("Result", "ExecMainCode", "ExecMainStatus"))
    if parse_timestamp(service.get("ExecMainExitTimestamp", "")) is None:
        return None
    if result in _RESULTS:
        return _RESULTS[result]
    if code != _EXITED:
        return f"killed by {_signal(status)}"
    told = service.get("StatusText", "")
    if status == "0" or not told:
        return f"exited {status}"
    return told if told.startswith("exited ") else f"exited {status}: {told}"


def _signal(number: str) -> str:
    try:
        return signal.Signals(int(number)).name
    except ValueError:
        return f"signal {number}"
