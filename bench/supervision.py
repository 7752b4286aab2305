"""``make bench``: supervising services, measured side by side in one run.

All contestants run at the same time and do the same thing (keep ``/bin/sleep infinity`` alive), so that a busy moment
of the machine meets all of them: rounds take each in turn, and what is reported are medians. No contestant is asked
about itself; its processes are watched from outside, through proc(5).
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import page, process, report
from bench.contestants import ALL, Contestant, install_peers

MANY = 100
STARTS = 7
KILLS = 15
ASKS = 15
IDLE = 20.0
"""Seconds of doing nothing, to count wake-ups in."""
SETTLE = 5.0
"""Seconds after a start before anything is measured: every contestant calls its services started by then."""
PATIENCE = 30.0


def main() -> None:
    install_peers()
    process.become_subreaper()
    results = {kind.name: report.Figures(kind.version()) for kind in ALL}
    with tempfile.TemporaryDirectory(prefix="bench.") as scratch:
        note(f"interpreter alone, {STARTS} times")
        interpreter = statistics.median(timed([sys.executable, "-c", "pass"]) for _ in range(STARTS))
        for count in (1, MANY):
            for number in range(STARTS - 1 if count == MANY else 0):
                note(f"{count} services, start {number + 1} of {STARTS}")
                with arena(Path(scratch, f"{count}.{number}"), count, results):
                    pass
            note(f"{count} services, all contestants at once")
            with arena(Path(scratch, f"{count}.all"), count, results) as running:
                measure(running, count, results)
    text = report.render(results, interpreter=interpreter, many=MANY)
    print(text)
    if "--write" in sys.argv[1:]:
        page.write(
            "bench",
            report.TITLE,
            text,
            report.METHOD.format(
                many=MANY, kills=KILLS, starts=STARTS, idle=IDLE, asks=ASKS, interpreter=interpreter * 1000
            ),
        )


@contextmanager
def arena(scratch: Path, count: int, results: dict[str, report.Figures]) -> Iterator[list[Contestant]]:
    """Every contestant running ``count`` workers; ended, come what may. How long each took to start is noted.

    Their directories below ``scratch`` stay: on ext4, who creates files soon after somebody deleted many pays for it
    (``recently_deleted`` in fs/ext4/ialloc.c), and that would be the next contestant.
    """
    running: list[Contestant] = []
    try:
        for kind in random.sample(ALL, len(ALL)):
            contestant = kind(scratch / kind.name, count)
            begun = time.perf_counter()
            contestant.start()
            running.append(contestant)
            await_workers(contestant, count)
            if count == MANY:
                results[kind.name].start.append(time.perf_counter() - begun)
        yield running
    finally:
        for contestant in running:
            contestant.stop()


def await_workers(contestant: Contestant, count: int) -> None:
    """Return as soon as all of them run."""
    arrivals = process.Arrivals(contestant.pid)
    process.await_true(
        lambda: arrivals.count() >= count and len(process.workers(contestant.pid)) == count,
        f"{contestant.name}: starting {count} workers",
        within=PATIENCE,
    )


def measure(running: list[Contestant], count: int, results: dict[str, report.Figures]) -> None:
    """Everything that is measured of contestants that run already."""
    time.sleep(SETTLE)
    note(f"{count} services, {IDLE:.0f} s of nothing")
    supervisors = {contestant.name: process.supervisors(contestant.pid) for contestant in running}
    before = {name: process.switches(pids) for name, pids in supervisors.items()}
    time.sleep(IDLE)
    for name, pids in supervisors.items():
        results[name].wakeups[count] = (process.switches(pids) - before[name]) / IDLE
        results[name].memory[count] = process.proportional_memory(pids)
        results[name].processes[count] = len(pids)

    note(f"{count} services, {ASKS} times asking for the status")
    asked = [(contestant, command) for contestant in running if (command := contestant.status_command())]
    for _ in range(ASKS):
        for contestant, command in random.sample(asked, len(asked)):
            results[contestant.name].status[count].append(timed(command, contestant.environment))

    if count < KILLS:
        return
    note(f"{count} services, killing {KILLS} workers of each")
    for _ in range(KILLS):
        for contestant in random.sample(running, len(running)):
            time.sleep(random.random())  # no contestant's own rhythm may meet ours
            results[contestant.name].replacement.append(replacement_time(contestant.name, contestant.pid))


def replacement_time(name: str, root: int) -> float:
    """Seconds from SIGKILL of the eldest worker to another one running in its stead.

    The eldest has never been killed before: what is measured is how soon a death is seen and answered, not the pauses
    that a supervisor makes, and should make, for a service that dies again and again.
    """
    victim = process.workers(root)[0]
    keeper = process.parent(victim)
    known = set(process.children(keeper))
    begun = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    process.await_true(
        lambda: any(process.is_worker(pid) for pid in process.children(keeper) if pid not in known),
        f"{name}: replacing worker {victim}",
        within=PATIENCE,
        every=0.0002,
    )
    return time.perf_counter() - begun


def timed(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> float:
    """Seconds that a whole process takes."""
    begun = time.perf_counter()
    subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=PATIENCE
    )
    return time.perf_counter() - begun


def note(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
