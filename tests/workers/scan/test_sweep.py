"""The sweep against a model of a network: what it finds, how often it asks, and how it is continued."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path as File

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.engine import Probe
from agent.workers.scan.grid import Grid
from agent.workers.scan.ledger import Ledger, decode
from agent.workers.scan.outcome import outcome
from agent.workers.scan.pace import Pace
from agent.workers.scan.payloads import questions
from agent.workers.scan.sweep import Sweep
from tests.workers.scan.path import Path, Says, made, run

OPEN = frozenset(random.Random(3).sample(range(1, 16_384), 60))


@pytest.fixture
def grid() -> Grid:
    return Grid("tcp", ["10.0.0.1"], ((1, 16_384),))


@pytest.fixture
def ledger(tmp_path: File, grid: Grid) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "chunk", grid.key("plan"), grid.size, now=0.0, within=60.0)
    yield opened
    opened.close()


def closed(place: int, port: int) -> str:
    return "open" if port in OPEN else "closed"


def silent(place: int, port: int) -> str:
    return "open" if port in OPEN else "drop"


def found(grid: Grid, ledger: Ledger, state: str) -> set[int]:
    return {grid.probe(n)[1] for n in range(grid.size) if (decode(ledger.states[n]) or ("",))[0] == state}


def judged(grid: Grid, ledger: Ledger, says: Says) -> None:
    """Everything was found, and nothing that is not there."""
    assert found(grid, ledger, "open") == OPEN
    assert found(grid, ledger, "closed") == {p for p in grid.ports if says(0, p) == "closed"}


@pytest.mark.parametrize("patient", [False, True])
def test_a_few_probes_on_a_lossy_path_are_asked_to_the_end_where_much_rests_on_each(
    tmp_path: File, patient: bool
) -> None:
    """Five answers cannot tell that a tenth of all is lost. Whoever looks a second time must not take loss for news."""
    grid, missed = Grid("tcp", ["10.0.0.1"], ((1, 5),)), 0
    for seed in range(140):
        ledger = Ledger(tmp_path / "lot", grid.key(f"{seed}"), grid.size, now=0.0, within=60.0)
        path = Path(lambda place, port: "open", lost=0.05, seed=seed)
        run(made(grid, ledger, path, 1000, patient=patient), 0.0)
        missed += len(found(grid, ledger, "open")) < 5
        ledger.remove()
    assert missed == 0 if patient else missed > 1


@pytest.mark.parametrize("says", [closed, silent])
@pytest.mark.parametrize("lost", [0.0, 0.05])
def test_loss_hides_nothing(grid: Grid, ledger: Ledger, says: Says, lost: float) -> None:
    path = Path(says, lost=lost)
    sweep = made(grid, ledger, path, 20_000)
    took = run(sweep, 0.0)
    judged(grid, ledger, says)
    assert sweep.degraded == ""
    assert took < 12
    assert max(path.sent[probe] for probe in path.sent if probe[1] not in OPEN) <= 5
    if says is closed:
        assert sweep.loss == pytest.approx(1 - (1 - lost) ** 2, abs=0.02)
    assert not [probe for probe, times in path.repeated.items() if times and probe[1] not in OPEN]


def test_what_is_never_answered_is_sent_twice_where_nothing_gets_lost(grid: Grid, ledger: Ledger) -> None:
    path = Path(silent)
    run(made(grid, ledger, path, 20_000), 0.0)
    assert {path.sent[(0, port)] for port in grid.ports if port not in OPEN} == {2}


@pytest.mark.parametrize("cap", [1000, 5000])
def test_a_device_that_passes_less_than_was_declared_is_found_out(grid: Grid, ledger: Ledger, cap: int) -> None:
    path = Path(closed, cap=cap)
    sweep = made(grid, ledger, path, 100_000)
    took = run(sweep, 0.0)
    judged(grid, ledger, closed)
    assert sweep.degraded == ""
    assert took < 2.5 * grid.size / cap + 4
    assert sum(path.sent.values()) < 1.7 * grid.size


def test_a_silent_host_behind_such_a_device_is_seen_through_by_its_open_ports(grid: Grid, ledger: Ledger) -> None:
    path = Path(silent, cap=2000)
    sweep = made(grid, ledger, path, 20_000, known=[(0, min(OPEN)), (0, max(OPEN))])
    run(sweep, 0.0)
    assert found(grid, ledger, "open") == OPEN


def test_a_host_that_answers_slower_than_it_is_asked_is_still_told_right(grid: Grid, ledger: Ledger) -> None:
    path = Path(closed, resets=1500)
    run(made(grid, ledger, path, 50_000), 0.0)
    assert found(grid, ledger, "open") == OPEN
    assert len(found(grid, ledger, "closed")) > 0.999 * (grid.size - len(OPEN))


def test_random_loss_does_not_slow_it_down(grid: Grid, ledger: Ledger) -> None:
    pace = Pace(20_000, 0.0)
    sweep = Sweep(grid, ledger, Path(closed, lost=0.05), pace, 0.0, seed=b"", retries=4)
    fastest = 0.0

    def look(now: float) -> None:
        nonlocal fastest
        fastest = max(fastest, pace.rate)

    run(sweep, 0.0, each=look)
    assert fastest == 20_000
    assert not pace.saturated


def test_it_never_sends_faster_than_declared(grid: Grid, ledger: Ledger) -> None:
    path = Path(closed)
    took = run(made(grid, ledger, path, 3000), 0.0)
    assert sum(path.sent.values()) <= 3000 * took
    assert took < 1.3 * grid.size / 3000 + 2


@pytest.mark.parametrize("rate", [1, 2, 5, 10, 11])
def test_a_low_rate_ends_though_a_port_is_open(tmp_path: File, rate: int) -> None:
    """Whoever waits for its turn for longer than a stall takes is not stalled."""
    grid = Grid("tcp", ["10.0.0.1"], ((1, 30),))
    ledger = Ledger(tmp_path / "slow", grid.key(""), grid.size, now=0.0, within=60.0)
    path = Path(lambda place, port: "open" if port == 7 else "closed")
    sweep = made(grid, ledger, path, rate)
    took = run(sweep, 0.0)
    assert sweep.done
    assert found(grid, ledger, "open") == {7}
    assert len(found(grid, ledger, "closed")) == grid.size - 1
    assert took < 1.3 * grid.size / rate + 5


def test_a_probe_of_two_packets_counts_as_two(tmp_path: File) -> None:
    grid = Grid("udp", [f"10.0.0.{host}" for host in range(1, 251)], ((161, 162),))
    ledger = Ledger(tmp_path / "two", grid.key(""), grid.size, now=0.0, within=60.0)
    path = Path(lambda place, port: "open")
    took = run(made(grid, ledger, path, 50, packets=questions), 0.0)
    assert sum(path.sent.values()) >= grid.size
    assert sum(questions(port) * times for (_, port), times in path.sent.items()) <= 50 * took + 2


def test_a_full_engine_holds_nothing_up_for_ever(grid: Grid, ledger: Ledger) -> None:
    path = Path(silent, most=500)
    run(made(grid, ledger, path, 20_000), 0.0)
    assert found(grid, ledger, "open") == OPEN


def test_a_path_that_goes_dark_for_a_while_loses_nothing(grid: Grid, ledger: Ledger) -> None:
    path = Path(silent, dark=(2.0, 4.0))
    sweep = made(grid, ledger, path, 4000, known=[(0, port) for port in sorted(OPEN)[:4]])
    run(sweep, 0.0)
    assert found(grid, ledger, "open") == OPEN
    assert sweep.redone
    assert sweep.degraded == ""


def test_a_path_that_stays_dark_is_degraded_and_closes_nothing(grid: Grid, ledger: Ledger) -> None:
    path = Path(closed, dark=(1.0, 1e9))
    sweep = made(grid, ledger, path, 4000, known=[(0, port) for port in sorted(OPEN)[:4]])
    took = run(sweep, 0.0)
    assert "open ports" in sweep.degraded
    assert took < 60
    [host] = outcome(grid, ledger)
    asked = {port for rest in host.rest for low, high in rest.ports for port in range(low, high + 1)}
    assert asked | {port.number for port in host.ports} < {port for _, port in path.sent}, "or it fell into the hole"
    assert found(grid, ledger, "closed") <= {port for _, port in path.answered}


@pytest.mark.parametrize(
    ("dark", "how"),
    [((0.0, 0.0), "steady"), ((0.0, 3.5), "came"), ((0.5, 1e9), "went"), ((0.0, 1e9), "never")],
)
def test_canaries_bear_witness_of_the_way_at_the_start_and_at_the_end(
    tmp_path: File, dark: tuple[float, float], how: str
) -> None:
    """Those of a host that is not asked for anything else, and at a port that nobody else is asked for, among them."""
    grid = Grid("tcp", ["10.0.0.1", "10.0.0.2", "10.0.0.3"], ((1, 100),))
    ledger = Ledger(tmp_path / "three", grid.key(""), grid.size, now=0.0, within=60.0)
    ledger.skip(2 * grid.width, 3 * grid.width)
    known = [(0, 22), (1, 443), (2, 80)]

    def says(place: int, port: int) -> str:
        return "open" if (place, port) in known else "drop"

    path = Path(says, dark=dark)
    sweep = made(grid, ledger, path, 1000, known=known)
    run(sweep, 0.0)
    assert sweep.witnesses == dict.fromkeys(known, how)
    assert {probe for probe in path.sent if probe[0] == 2} == {(2, 80)}
    assert bool(sweep.degraded) == (how == "went")


def test_a_port_that_is_closed_now_shows_that_the_way_is_open(tmp_path: File) -> None:
    grid = Grid("tcp", ["10.0.0.1"], ((1, 50),))
    ledger = Ledger(tmp_path / "one", grid.key(""), grid.size, now=0.0, within=60.0)
    sweep = made(grid, ledger, Path(closed), 1000, known=[(0, 22)])
    run(sweep, 0.0)
    assert sweep.witnesses[0, 22] == "steady"


def test_who_says_open_to_everything_is_recognised_and_who_has_many_ports_is_not(tmp_path: File) -> None:
    grid = Grid("tcp", ["10.0.0.1", "10.0.0.2", "10.0.0.3"], ((1, 300),))
    ledger = Ledger(tmp_path / "three", grid.key(""), grid.size, now=0.0, within=60.0)

    def says(place: int, port: int) -> str:
        return "open" if place == 1 or (place == 2 and port <= 200) else "closed"

    path = Path(says, lost=0.02)
    sweep = made(grid, ledger, path, 5000)
    run(sweep, 0.0)
    assert sweep.everything == {1}
    assert {port for place, port in path.sent if place == 1 and port > 300}  # odd ones were asked
    assert not {port for place, port in path.sent if place == 0 and port > 300}


def test_a_neighbour_that_is_slow_to_be_found_is_asked_again(tmp_path: File) -> None:
    grid = Grid("tcp", ["10.0.0.1"], ((1, 20),))
    ledger = Ledger(tmp_path / "one", grid.key(""), grid.size, now=0.0, within=60.0)
    path = Path(lambda place, port: "host-unreach")
    run(made(grid, ledger, path, 1000), 0.0)
    assert set(path.sent.values()) == {2}
    assert {decode(byte) for byte in ledger.states} == {("filtered", "host-unreach")}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.001, 1.5), min_size=1, max_size=4), st.integers(0, 99), st.sampled_from([0.0, 0.1]))
def test_killed_at_any_moments_it_is_continued_and_asks_nothing_twice_that_was_answered(
    tmp_path_factory: pytest.TempPathFactory, lives: list[float], seed: int, lost: float
) -> None:
    grid = Grid("tcp", ["10.0.0.1", "10.0.0.2"], ((1, 700),))
    where = tmp_path_factory.mktemp("killed") / "chunk"
    heard: set[tuple[int, int]] = set()
    opens = {port for port in OPEN if port <= 700} | {7}

    def says(place: int, port: int) -> str:
        return "drop" if port % 7 == 1 and port != 7 else "open" if port in opens else "closed"

    sent: list[Path] = []
    for life in [*lives, 3600.0]:
        ledger = Ledger(where, grid.key(""), grid.size, now=0.0, within=60.0)
        assert ledger.fresh == (not sent)
        path = Path(says, lost=lost, seed=seed + len(sent))
        path.answered |= heard
        sweep = made(grid, ledger, path, 2000)
        run(sweep, 0.0, until=life)
        heard = set(path.answered)
        sent.append(path)
        # Killed: the file stays as it is at this moment, and what is on its way answers nobody.
        ledger.close()
    assert sweep.done
    for path in sent:
        assert not [probe for probe, times in path.repeated.items() if times and says(*probe) != "open"]
    ledger = Ledger(where, grid.key(""), grid.size, now=0.0, within=60.0)
    for number in range(grid.size):
        place, port = grid.probe(number)
        state = (decode(ledger.states[number]) or ("silent",))[0]
        truth = {"drop": "silent"}.get(says(place, port), says(place, port))
        assert state in (truth, "silent")  # never another answer than was given
        if not lost:
            assert state == truth
    ledger.close()


def test_held_it_sends_nothing_and_goes_on_as_if_nothing_had_been(grid: Grid, ledger: Ledger) -> None:
    path = Path(closed)
    pace = Pace(5000, 0.0)
    sweep = Sweep(grid, ledger, path, pace, 0.0, seed=b"", retries=4)
    now = run(sweep, 0.0, until=1.0)
    sent = sum(path.sent.values())
    for _ in range(500):
        now += sweep.hold(now)
    assert sum(path.sent.values()) == sent
    run(sweep, now)
    judged(grid, ledger, closed)
    assert not pace.saturated
    assert sweep.degraded == ""


def test_what_was_in_flight_when_it_was_held_is_not_taken_for_silent(grid: Grid, ledger: Ledger) -> None:
    """Though everything is asked once only."""
    path = Path(closed, rtt=0.2)
    sweep = Sweep(grid, ledger, path, Pace(5000, 0.0), 0.0, seed=b"", retries=0)
    now = 0.0
    while not sweep.done:
        now = run(sweep, now, until=now + 0.5)
        for _ in range(100):
            now += sweep.hold(now)
    judged(grid, ledger, closed)


def test_limits_of_others_are_kept(tmp_path: File) -> None:
    grid = Grid("tcp", ["10.0.0.1"], ((1, 2000),))
    ledger = Ledger(tmp_path / "small", grid.key(""), grid.size, now=0.0, within=60.0)
    path = Path(closed)
    asked: list[int] = []

    def permit(probes: Sequence[Probe]) -> Sequence[int]:
        asked.append(len(probes))
        return [len(probes) - 1] if len(asked) % 2 else []  # every other time one, and that the last

    sweep = made(grid, ledger, path, 100_000, permit=permit)
    run(sweep, 0.0)
    assert found(grid, ledger, "open") == {port for port in OPEN if port <= 2000}
    assert grid.size <= sum(path.sent.values()) - sum(path.repeated.values()) <= len(asked)


@pytest.mark.parametrize("limit", [4.0, 16.0])
def test_canaries_leave_a_tight_limit_of_a_target_to_what_is_to_be_asked(tmp_path: File, limit: float) -> None:
    grid = Grid("tcp", ["10.0.0.1"], ((1, 120),))
    ledger = Ledger(tmp_path / "small", grid.key(""), grid.size, now=0.0, within=60.0)
    path = Path(lambda place, port: "open" if port <= 8 else "closed")
    now = paid = 0.0

    def permit(probes: Sequence[Probe]) -> Sequence[int]:
        nonlocal paid
        if not probes or paid > now:
            return []
        paid = max(paid, now) + 1 / limit
        return [0]

    def at(then: float) -> None:
        nonlocal now
        now = then

    sweep = made(grid, ledger, path, 1000, permit=permit, known=((0, 1), (0, 2)))
    assert run(sweep, 0.0, each=at) < 2 * grid.size / limit + 10
    assert found(grid, ledger, "open") == set(range(1, 9))


def test_progress_only_rises_and_ends_at_all(grid: Grid, ledger: Ledger) -> None:
    sweep = made(grid, ledger, Path(silent, lost=0.05), 5000)
    seen: list[float] = []
    now = run(sweep, 0.0, each=lambda now: seen.append(sweep.progress(now).fraction))
    assert seen == sorted(seen)
    last = sweep.progress(now)
    assert (last.fraction, last.left, last.open) == (1.0, 0.0, len(OPEN))
