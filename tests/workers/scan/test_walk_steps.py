"""The steps of a run, by the real worker: what is discovered together, and what a late find costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.declaration.model import Scan, Scanning
from agent.workers.scan.budget import Limits
from agent.workers.scan.walk import at_once
from tests.workers.scan import lab
from tests.workers.scan.test_worker import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("rate", "limits", "together"),
    [
        (5000, Limits(20_000, 10_000, 200), 1250),
        (5000, Limits(20_000, 2000, 5000), 500),
        (5000, Limits(1000, 2000, 5000), 250),
        (1_000_000, Limits(1_000_000, 1_000_000, 1), 4096),
        (100, Limits(1, 1, 1), 64),
    ],
)
def test_a_quarter_of_the_rate_is_discovered_together_whatever_one_target_may_get(
    rate: int, limits: Limits, together: int
) -> None:
    assert at_once(rate, limits) == together


def test_hosts_that_may_be_asked_slowly_are_discovered_with_the_others(net: lab.Network, bench: Bench) -> None:
    path = bench.fake('echo run >> $HERE/runs; exec "$NMAP" "$@"')
    budget = Scanning(rate=100_000, network_rate=100_000, target_rate=500)
    service = Scan(name="lan", targets=("10.97.16.0/25",), profile="discovery", rate=1024, budget=budget)
    ended = bench.run(service, path=path, prefix=tuple(net.inside()))
    assert ended.code == 0, ended.stderr
    assert bench.rows("SELECT chunks_total, chunks_done, hosts_up FROM runs") == [(2, 2, 8)]
    assert (bench.directory / "fake/runs").read_text() == "run\n"
