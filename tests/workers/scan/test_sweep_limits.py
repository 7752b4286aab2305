"""Whatever a sweep sends keeps to the limits: canaries and odd ports, too; and it comes to its end all the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as File

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.budget import SECOND, Limits
from agent.workers.scan.budget_file import Budget
from agent.workers.scan.engine import Probe
from agent.workers.scan.grid import Grid
from agent.workers.scan.ledger import Ledger
from agent.workers.scan.sweep import Sweep
from tests.workers.scan.path import Path, made, run
from tests.workers.scan.test_budget import insist

ROW = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "10.0.1.2", "10.0.2.1"]
PORTS = 25
"""So many that who says open to all of them is suspicious."""


@dataclass
class Logged(Path):
    """Notes what was sent when, in nanoseconds, to which place."""

    log: list[tuple[int, int]] = field(default_factory=list)

    def send(self, probes: Sequence[Probe], now: float) -> int:
        taken = super().send(probes, now)
        self.log += [(instant(now), place) for place, _ in probes[:taken]]
        return taken


def instant(now: float) -> int:
    return round((1000.0 + now) * SECOND)


def swept(
    where: File, row: list[str], path: Path, limits: Limits, rate: int, known: Sequence[Probe] = ()
) -> tuple[Sweep, float]:
    """Sweep these within these limits. Returns how long it took, too."""
    grid, clock = Grid("tcp", row, ((1, PORTS),)), 0.0
    ledger = Ledger(where, grid.key(""), grid.size, now=0.0, within=60.0)
    budget = Budget(None, limits, print, clock=lambda: instant(clock))
    share = budget.of(row)

    def at(now: float) -> None:
        nonlocal clock
        clock = now

    def permit(probes: Sequence[Probe]) -> Sequence[int]:
        return share.take([place for place, _ in probes]).positions

    sweep = made(grid, ledger, path, rate, permit=permit, known=known, retries=2)
    took = run(sweep, 0.0, each=at)
    ledger.remove()
    budget.close()
    return sweep, took


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["trap", "closed", "drop", "some", "mute trap"]), min_size=1, max_size=len(ROW)),
    limits=st.builds(Limits, st.integers(10, 2000), st.integers(10, 500), st.integers(5, 100)),
    rate=st.one_of(st.integers(8, 60), st.integers(61, 5000)),
    known=st.sets(st.tuples(st.integers(0, len(ROW) - 1), st.sampled_from([1, 2, 80, 443])), max_size=16),
    most=st.sampled_from([3, 40, 1 << 20]),
    lost=st.sampled_from([0.0, 0.1]),
    dark=st.sampled_from([(0.0, 0.0), (0.0, 3.0), (1.0, 1e9)]),
)
def test_no_window_of_any_length_holds_more_than_the_limits(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    limits: Limits,
    rate: int,
    known: set[Probe],
    most: int,
    lost: float,
    dark: tuple[float, float],
) -> None:
    def says(place: int, port: int) -> str:
        match kinds[place]:
            case "trap":
                return "open"
            case "mute trap":
                return "open" if port <= PORTS else "drop"
            case "some":
                return "open" if port in (2, 80) else "closed"
            case kind:
                return kind

    row = ROW[: len(kinds)]
    path = Logged(says, lost=lost, most=most, dark=dark)
    asked = [probe for probe in sorted(known) if probe[0] < len(row)]
    sweep, _ = swept(tmp_path_factory.mktemp("limits") / "chunk", row, path, limits, rate, asked)
    assert sweep.done
    everything = {(place, port) for place in range(len(row)) for port in range(1, PORTS + 1)}
    assert path.sent.keys() >= everything or sweep.degraded
    insist([at for at, _ in path.log], rate, over=1)
    insist([at for at, _ in path.log], limits.host)
    networks: dict[str, list[int]] = defaultdict(list)
    targets: dict[int, list[int]] = defaultdict(list)
    for at, place in path.log:
        targets[place].append(at)
        networks[row[place].rpartition(".")[0]].append(at)
    for instants in targets.values():
        insist(instants, limits.target)
    for instants in networks.values():
        insist(instants, limits.network)


def test_traps_are_recognised_however_few_odd_ports_may_be_asked_at_once(tmp_path: File) -> None:
    row = [f"10.0.0.{host}" for host in range(1, 65)]
    limits = Limits(1000, 1000, 10)
    sweep, took = swept(tmp_path / "traps", row, Path(lambda place, port: "open", most=200), limits, 1000)
    assert len(sweep.everything) == len(row)
    assert took < 15, "the odd ports of all were asked side by side"
