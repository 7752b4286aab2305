"""What was measured, as a table that says where we are ahead, where not, and whether the targets are met."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

TITLE = "Supervising services"
US = "agent"
MIB = 1024 * 1024

HEARTBEAT = 10.0
"""Seconds between the touches of ``tmp/agent.heartbeat``, the one thing that is due in an idle agent."""

METHOD = """\
`make bench ARGS=--write` writes this section. All contestants run at the same time, each with 1 and then with {many}
services that are `/bin/sleep infinity` and restart always, installed by the bench itself: supervisord and circus from
the Python package index, runit and s6 from Debian. dinit is missing because Debian 12 does not package it. Rounds take
the contestants in turn, in random order, with random pauses; a figure is the median of its rounds. Everything is
watched from outside, through `/proc`, in the same way for all. Nothing is deleted before the end: on ext4, who creates
files within a minute after many were deleted pays for it (`recently_deleted` in fs/ext4/ialloc.c), and that would be
the next contestant:

- *replacement*: from SIGKILL of a worker to its supervisor having another child that has become `sleep` ({kills} kills
  each, watched every 0.2 ms). No worker is killed twice: an agent's service that dies again within a minute waits for
  0.5 s and more, on purpose, and that is not what is measured
- *up*: from starting the supervisor's program to the last of {many} children having become `sleep` ({starts} starts)
- *memory*: PSS of all processes of the supervisor without its workers, after {idle:.0f} s of nothing
- *wake-ups*: voluntary context switches of all their threads in those {idle:.0f} s
- *status*: `agentctl status`, `supervisorctl status`, `circusctl status` and `sv status w0 w1 …`, from start to exit,
  into a pipe ({asks} times each). s6 has no command that shows all services.

An interpreter alone (`python -c pass`) takes {interpreter:.0f} ms here.
"""


@dataclass
class Figures:
    """One contestant's measurements: seconds, bytes and wake-ups per second, most of them by number of services."""

    version: str
    start: list[float] = field(default_factory=list)
    memory: dict[int, int] = field(default_factory=dict)
    processes: dict[int, int] = field(default_factory=dict)
    wakeups: dict[int, float] = field(default_factory=dict)
    replacement: list[float] = field(default_factory=list)
    status: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Row:
    """One line of the table: less is better, and ``None`` is for a contestant that it does not apply to."""

    title: str
    digits: int
    values: dict[str, float | None]


def rows(results: dict[str, Figures], many: int) -> list[Row]:
    """The whole table, for 1 and for ``many`` services."""
    found = []

    def add(title: str, digits: int, values: Iterable[float | None]) -> None:
        found.append(Row(title, digits, dict(zip(results, values, strict=True))))

    everyone = results.values()
    add("SIGKILL of a worker to its replacement running, ms", 1, [milliseconds(of.replacement) for of in everyone])
    add(f"{many} services up, from the start of the supervisor, ms", 0, [milliseconds(of.start) for of in everyone])
    for n, label in ((1, "1 service"), (many, f"{many} services")):
        add(f"{label}: memory (PSS), MiB", 1, [of.memory[n] / MIB for of in everyone])
        add(f"{label}: processes of its own", 0, [of.processes[n] for of in everyone])
        add(f"{label}: wake-ups when idle, /s", 2, [of.wakeups[n] for of in everyone])
        add(f"{label}: status command, whole process, ms", 0, [milliseconds(of.status[n]) for of in everyone])
    return found


def milliseconds(samples: list[float]) -> float | None:
    """The median of ``samples``, which are seconds."""
    return statistics.median(samples) * 1000 if samples else None


def render(results: dict[str, Figures], *, interpreter: float, many: int) -> str:
    """The table, the targets, and the rows in which somebody else is ahead."""
    table = [
        "| | " + " | ".join(f"{name} {figures.version}" for name, figures in results.items()) + " |",
        "|---" * (len(results) + 1) + "|",
    ]
    behind = []
    for row in rows(results, many):
        table.append(f"| {row.title} | " + " | ".join(show(value, row.digits) for value in row.values.values()) + " |")
        ours = row.values[US]
        ahead = [
            f"{name} {show(value, row.digits)}"
            for name, value in row.values.items()
            if value is not None and ours is not None and round(value, row.digits) < round(ours, row.digits)
        ]
        if ahead:
            behind.append(f"- {row.title}: {', '.join(ahead)}; we {show(ours, row.digits)}")
    kept = targets(results, interpreter, many)
    return "\n".join([*kept, "", *table, "", "Where somebody else is ahead:", "", *behind])


def targets(results: dict[str, Figures], interpreter: float, many: int) -> list[str]:
    """What we promise, and whether this run kept it. ``interpreter``: seconds that Python alone takes to start."""
    us = results[US]
    replacement = statistics.median(us.replacement) * 1000
    start = (statistics.median(us.start) - interpreter) * 1000
    memory = max(us.memory.values()) / MIB
    growth = (us.memory[many] - us.memory[1]) / MIB
    besides = max(0.0, max(us.wakeups.values()) - 1 / HEARTBEAT)
    ours, theirs = (statistics.median(results[name].status[many]) * 1000 for name in (US, "supervisord"))
    kept = [
        ("SIGKILL of a worker to its replacement running", "≤ 20 ms", f"{replacement:.1f} ms", replacement <= 20),
        (f"{many} services up, after the interpreter is", "≤ 500 ms", f"{start:.0f} ms", start <= 500),
        ("memory of the agent (PSS)", "≤ 25 MiB", f"{memory:.1f} MiB", memory <= 25),
        (f"its growth from 1 to {many} services", "flat", f"{growth:+.1f} MiB", growth <= 1.5),
        ("idle wake-ups besides due heartbeats", "0 /s", f"{besides:.2f} /s", besides < 0.05),
        (f"`agentctl status`, {many} services", f"< {theirs:.0f} ms (supervisorctl)", f"{ours:.0f} ms", ours < theirs),
    ]
    return [
        "| target | must reach | reached | |",
        "|---|---|---|---|",
        *(f"| {what} | {bound} | {reached} | {'yes' if ok else '**no**'} |" for what, bound, reached, ok in kept),
    ]


def show(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
