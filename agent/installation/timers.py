"""Jobs as systemd's timers: what the units of a job say that follows from its declaration. Pure.

The templates ``agent-job@.timer`` and ``agent-job@.service`` are shipped, and hold for every job. What is particular to
one is a drop-in for its instance, ``agent-job@NAME.timer.d/`` and ``agent-job@NAME.service.d/``: an instance file would
stand in for the whole template, as it was when it was written, whatever an upgrade or an operator changes there.

Formats: systemd.timer(5), systemd.service(5), systemd.exec(5), systemd.resource-control(5); which file wins:
systemd.unit(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from agent.declaration.calendar import Calendar
from agent.declaration.model import AnyService, Command, Declaration, Limits, Timer
from agent.declaration.units import format_duration
from agent.declaration.wording import printable
from agent.linux.capability_sets import NET_RAW

Suffix = Literal["timer", "service"]

DROP_IN = "10-declaration.conf"
"""Before the ``override.conf`` of ``systemctl edit``: an operator has the last word."""

AGENT_USER = "agent"
"""Who jobs run as under ``agent-job@.service``, unless they are declared to be somebody else's."""

ENDING = 15.0
"""Seconds that ``run-once`` is given on top of ``stop_timeout``, to see to the last process and to say how it went."""

OWN_MEMORY = 32 * 1024 * 1024
OWN_TASKS = 2
"""What ``run-once`` itself takes, in bytes and tasks: limits of a unit hold for it too, and are meant for the job."""

_NAME = re.compile(r"agent-job@(?P<name>[a-z][a-z0-9_]{0,62})\.(?P<suffix>timer|service)\.d", re.ASCII)

_OF_ANOTHER = ("CAP_CHOWN", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID")
"""What a job of another user takes: to become that user, to end it, to give it its directory and settings."""


class JobUnits(NamedTuple):
    """The texts of a job's two drop-ins."""

    timer: str
    service: str


def unit(name: str, suffix: Suffix) -> str:
    """``agent-job@NAME.timer``."""
    return f"agent-job@{name}.{suffix}"


def place(name: str, suffix: Suffix) -> str:
    """Where the drop-in of a job lies, below a directory of units."""
    return f"{unit(name, suffix)}.d/{DROP_IN}"


def parse_place(directory: str) -> tuple[str, Suffix] | None:
    """The job and the kind of unit that a directory of drop-ins belongs to; ``None`` when it is for no job."""
    found = _NAME.fullmatch(directory)
    if found is None:
        return None
    return found["name"], "timer" if found["suffix"] == "timer" else "service"


def mark(prefix: Path) -> str:
    """The first line of every file that is made here: by it the agent of one prefix knows its own from all others."""
    return (
        f"# Made by `agentctl timers sync` from what is declared below {printable(str(prefix))}; changes do not last."
    )


def is_persistent(timer: str) -> bool:
    """Whether the text of a timer's drop-in makes systemd remember when it elapsed last."""
    return "\nPersistent=true\n" in timer


def has_calendar(timer: str) -> bool:
    """Whether the text of a timer's drop-in names calendar times."""
    return "\nOnUnitActiveSec=" not in timer


def schedule(timer: str) -> str:
    """The times in the text of a timer's drop-in, for people: as ``Timer.source``, in normal form."""
    settings = [line.partition("=") for line in timer.splitlines()]
    times = [value for name, _, value in settings if name == "OnCalendar" and value]
    return "; ".join(times) or next((f"every {value}" for name, _, value in settings if name == "OnUnitActiveSec"), "")


def render(declaration: Declaration, prefix: Path) -> dict[str, JobUnits]:
    """The drop-ins of every job that systemd is to start, by name; none when jobs are the agent's to start."""
    if declaration.agent.scheduler != "systemd":
        return {}
    first = mark(prefix)
    return {
        name: JobUnits(f"{first}\n{_timer(service.timer)}", f"{first}\n{_service(service)}")
        for name, service in declaration.services.items()
        if service.timer is not None and service.enabled
    }


def calendars(calendar: Calendar) -> list[str]:
    """The normal form of each event of a calendar: systemd's grammar has no unions, but a timer has many lines."""
    alone = msgspec.structs.replace(calendar, also=())
    return [alone.normalized(), *(text for other in calendar.also for text in calendars(other))]


def _timer(timer: Timer) -> str:
    # The empty one takes back what the template says.
    lines = ["[Timer]", "OnCalendar="]
    if timer.calendar is not None:
        lines += [f"OnCalendar={text}" for text in calendars(timer.calendar)]
    if timer.every is not None:
        # At once, and at each boot. OnActiveSec= would be counted anew, and the job be started, whenever systemd reads
        # its units: at every daemon-reload.
        lines += ["OnBootSec=0", f"OnUnitActiveSec={format_duration(timer.every)}"]
    lines += [
        f"RandomizedDelaySec={format_duration(timer.randomized_delay)}",
        f"Persistent={'true' if timer.persistent else 'false'}",
        # A time that is declared is meant: by default systemd is up to a minute late, to save laptops a wake-up.
        "AccuracySec=1us",
    ]
    return "\n".join(lines) + "\n"


def _service(service: AnyService) -> str:
    lines = ["[Service]", f"TimeoutStartSec={_start_timeout(service)}"]
    lines.append(f"TimeoutStopSec={format_duration(service.stop_timeout + ENDING)}")
    lines += _limits(service.limits)
    capabilities = " ".join(sorted(_capabilities(service)))
    for setting in ("CapabilityBoundingSet", "AmbientCapabilities"):
        # The empty one takes back what the template says.
        lines += [f"{setting}=", *([f"{setting}={capabilities}"] if capabilities else [])]
    if _is_anothers(service):
        # It takes calls that the template's filter refuses, and what does not end has to be seen to be ended.
        lines += ["SystemCallFilter=@setuid @chown capset", "ProtectProc=default"]
    return "\n".join(lines) + "\n"


def _start_timeout(service: AnyService) -> str:
    """``run-once`` keeps ``timeout`` itself, in the job's own way to stop, and says so. This is for when it cannot.

    Retries are not bounded by the ``timeout`` of one run.
    """
    timeout = service.run_timeout
    if timeout is None or service.restart == "on-failure":
        return "infinity"
    return format_duration(timeout + service.stop_timeout + ENDING)


def _limits(limits: Limits) -> list[str]:
    lines = []
    if limits.memory is not None:
        # As under the agent, what is over its limit is over as a whole.
        lines += [f"MemoryMax={limits.memory + OWN_MEMORY}", "OOMPolicy=stop"]
    if limits.cpus is not None:
        lines.append(f"CPUQuota={limits.cpus:.2%}")
    if limits.pids is not None:
        lines.append(f"TasksMax={limits.pids + OWN_TASKS}")
    return lines


def _capabilities(service: AnyService) -> set[str]:
    wanted = set(service.capabilities or ()) if isinstance(service, Command) else {NET_RAW}
    if _is_anothers(service):
        wanted |= set(_OF_ANOTHER)
    return wanted


def _is_anothers(service: AnyService) -> bool:
    return any(who not in (None, AGENT_USER) for who in (service.user, service.group))


def differing(wanted: Mapping[str, JobUnits], there: Mapping[str, JobUnits | None]) -> list[str]:
    """The jobs whose units are not as they are wanted, or not wanted any more, by name.

    What is ``there`` of a job is ``None`` as long as that is not all of it.
    """
    names = wanted.keys() | there.keys()
    return sorted(name for name in names if name not in wanted or wanted[name] != there.get(name))
