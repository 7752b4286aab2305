"""What was measured of the installed program, as tables with its targets."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.report import MIB, show

TITLE = "The installed program"

INSTALLED, SOURCE = "installed program", "source"
FORMS = (INSTALLED, SOURCE)
"""As what the agent runs in its unit."""

STATUS, SUPERVISORCTL, SYSTEMCTL = "`agentctl status`", "`supervisorctl status`", "`systemctl status agent`"
VERSION, ONE_FILE, PYTHON = "`agentctl --version`", "the same, the one file", "`python3 -c pass`, for comparison"
PROGRAMS = {
    STATUS: ["/srv/bin/agentctl", "status"],
    SUPERVISORCTL: ["/usr/local/bin/supervisorctl", "-c", "/opt/supervisord/supervisord.conf", "status"],
    SYSTEMCTL: ["/usr/bin/systemctl", "status", "agent"],
    VERSION: ["/srv/bin/agentctl", "--version"],
    ONE_FILE: ["/root/agentctl", "--version"],
    PYTHON: ["/usr/bin/python3", "-c", "pass"],
}
"""What takes turns in a round."""

MB = 1_000_000

METHOD = """\
`make bench-installed ARGS=--write` writes this section. The one file installs itself in a container with a systemd of
its own, Debian 12 on a file system in memory; what is measured runs in there, in one run. A figure is a median unless
it says otherwise, and services are `/bin/sleep infinity`:

- *programs*: from start to exit, with a plain pipe as stdout, started and waited for by a process in the container.
  {rounds} rounds in random order, with supervisord {supervisor} supervising as many services beside the agent. Time of
  processor is that of the program itself, not of the daemon that it asks
- *start*: {starts} of each form with 1 service, in random order: `systemctl start agent` until it returns, and between
  the two times that systemd notes (`ExecMainStartTimestamp`, `ActiveEnterTimestamp`). The source runs in the same unit,
  with the Python of the container
- *memory*: PSS of the agent's process, {settle:.0f} s after its start
- *hand-over*: {handovers} times to the other of two versions and back, by `systemctl reload agent`. The pause is what
  the agent says of itself (`GET /v1/handover`); the longest wait is seen from outside, by a client that asks
  `GET /v1/ping` all the time, every 5 ms
- *packets*: frames of 100 bytes, at least {rate:,} per second and 64 at a time (`bench/inside/sender.py`), over a
  veth pair while the hand-overs take place. Counted by the sender, by the capture, and by `tcpdump --count` in the
  files that it has written. Beside it tcpdump, which nobody hands over, captures the same with a ring of the same size:
  what it loses is the machine's doing
"""


class Timing(NamedTuple):
    """Seconds by the clock, and of processor."""

    wall: float
    processor: float


@dataclass
class Handovers:
    """Seconds: the pause that the agent tells of, the longest wait for an answer in each, and all of ``reload``."""

    pauses: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    reloads: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Cable:
    """What became of the packets."""

    sent: int
    rate: float
    lost_on_the_way: int
    received: int
    dropped: int
    written: int
    stored: int
    control_stored: int
    control_dropped: int

    @property
    def lost(self) -> int:
        return self.sent - self.lost_on_the_way - self.stored


@dataclass
class Figures:
    """Bytes and seconds; by number of services and by form where that makes a difference."""

    one_file: int
    installed: list[int]
    programs: dict[int, dict[str, list[Timing]]] = field(default_factory=dict)
    returned: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ready: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    handovers: dict[int, Handovers] = field(default_factory=dict)
    cable: Cable | None = None


def render(figures: Figures, *, many: int, rate: int) -> str:
    """The targets, and every table."""
    return "\n\n".join(
        [
            table(["target", "must reach", "reached", ""], targets(figures, many, rate)),
            table(["program, ms", "1 service", f"{many} services", "time of processor"], programs(figures, many)),
            table(["", *FORMS], forms(figures, many)),
            table(["hand-over", "1 service, and the capture", f"{many} services"], handovers(figures, many)),
            table(["packets", ""], cable(figures.cable)),
        ]
    )


def table(heads: list[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("| --- ", "|---").replace("|  |", "| |") for line in lines)


def targets(figures: Figures, many: int, rate: int) -> list[list[str]]:
    """What we promise, and whether this run kept it: the worst of all hand-overs, medians of the rest."""
    start = ms(figures.returned[INSTALLED])
    pause = max(max(one.pauses) for one in figures.handovers.values()) * 1000
    kept = [
        *(
            (f"{STATUS}, {plural(n)}", "≤ 70 ms", f"{(taken := wall(figures, n, STATUS)):.0f} ms", taken <= 70)
            for n in (1, many)
        ),
        ("size of the one file", "≤ 35 MB", f"{figures.one_file / MB:.1f} MB", figures.one_file <= 35 * MB),
        ("`systemctl start agent`, 1 service", "≤ 400 ms", f"{start:.0f} ms", start <= 400),
        ("longest pause of a hand-over", "≤ 300 ms", f"{pause:.0f} ms", pause <= 300),
    ]
    if (seen := figures.cable) is not None:
        kept += [
            ("packets per second meanwhile", f"{rate:,}", f"{seen.rate:,.0f}", seen.rate >= rate),
            ("of them lost", "0", f"{seen.lost:,} of {seen.sent:,}", seen.lost == 0),
        ]
    return [[what, bound, reached, "yes" if ok else "**no**"] for what, bound, reached, ok in kept]


def programs(figures: Figures, many: int) -> list[list[str]]:
    def processor(name: str) -> float:
        return ms([one.processor for one in figures.programs[many][name]])

    return [
        [name, f"{wall(figures, 1, name):.0f}", f"{wall(figures, many, name):.0f}", f"{processor(name):.0f}"]
        for name in PROGRAMS
    ]


def forms(figures: Figures, many: int) -> list[list[str]]:
    sizes = figures.installed
    return [
        ["`systemctl start agent`, 1 service, ms", *(f"{ms(figures.returned[form]):.0f}" for form in FORMS)],
        ["by systemd's own times, ms", *(f"{ms(figures.ready[form]):.0f}" for form in FORMS)],
        ["memory (PSS), 1 service, MiB", *(show(figures.memory[form][1] / MIB, 1) for form in FORMS)],
        [f"memory (PSS), {many} services, MiB", *(show(figures.memory[form][many] / MIB, 1) for form in FORMS)],
        ["size, MB", f"{sum(sizes) / MB:.1f}, in {len(sizes)} files; the one file {figures.one_file / MB:.1f}", "–"],
    ]


def handovers(figures: Figures, many: int) -> list[list[str]]:
    both = (figures.handovers[1], figures.handovers[many])
    return [
        ["pause of supervision, ms", *(f"{ms(one.pauses):.0f}" for one in both)],
        ["the longest, ms", *(f"{max(one.pauses) * 1000:.0f}" for one in both)],
        ["longest wait of a client for an answer, ms", *(f"{ms(one.waits):.0f}" for one in both)],
        ["the longest of these, ms", *(f"{max(one.waits) * 1000:.0f}" for one in both)],
        ["`systemctl reload agent`, with the self-test, ms", *(f"{ms(one.reloads):,.0f}" for one in both)],
    ]


def cable(seen: Cable | None) -> list[list[str]]:
    if seen is None:
        return []
    return [
        ["sent", f"{seen.sent:,}, {seen.rate:,.0f} per second"],
        ["lost before anybody could capture them", f"{seen.lost_on_the_way:,}"],
        ["received by the capture", f"{seen.received:,}"],
        ["dropped by it", f"{seen.dropped:,}"],
        ["written by it", f"{seen.written:,}"],
        ["found in its segments", f"{seen.stored:,}"],
        ["dropped by tcpdump", f"{seen.control_dropped:,}"],
        ["found in tcpdump's file", f"{seen.control_stored:,}"],
    ]


def wall(figures: Figures, count: int, name: str) -> float:
    return ms([one.wall for one in figures.programs[count][name]])


def ms(samples: Iterable[float]) -> float:
    """The median of ``samples``, which are seconds."""
    return statistics.median(samples) * 1000


def plural(count: int) -> str:
    return f"{count} service{'s' * (count != 1)}"
