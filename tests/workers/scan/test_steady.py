from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from agent.declaration.model import Scanning
from agent.workers.scan import steady
from agent.workers.scan.budget import SECOND, Limits
from agent.workers.scan.budget_file import Budget
from agent.workers.scan.steady import steadily
from tests.workers.scan.bench import Bench, loopback, until

ROW = ["10.0.0.1", "10.0.0.2"]
LIMITS = Limits(1_000, 900, 800)


@contextmanager
def pair(place: Path, clock: Callable[[], int] = time.monotonic_ns) -> Iterator[list[Budget]]:
    """The budgets of two scans."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    made = [Budget(os.open(place / "budget", flags, 0o600), LIMITS, print, clock=clock) for _ in range(2)]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def budgets(tmp_path: Path) -> Iterator[list[Budget]]:
    with pair(tmp_path) as made:
        yield made


def test_it_gets_no_more_than_one_target_may_and_than_is_left(budgets: list[Budget]) -> None:
    one, two = budgets
    rates: list[int] = []

    async def second(rate: int) -> str:
        rates.append(rate)
        return "second"

    async def first(rate: int) -> str:
        rates.append(rate)
        return await steadily(two, two.of(ROW), 2, 5_000, second)

    assert asyncio.run(steadily(one, one.of(ROW), 2, 5_000, first)) == "second"
    assert asyncio.run(steadily(one, one.of(ROW), 2, 300, first)) == "second"
    assert rates == [800, 200, 300, 700]


def test_it_waits_while_too_little_is_left(budgets: list[Budget]) -> None:
    one, two = budgets
    assert two.reserve(1_000) == 1_000
    waited: list[int] = []

    def turn() -> None:
        waited.append(0)
        if len(waited) == 2:
            two.release(79)
        if len(waited) == 3:
            two.release(1)

    async def work(rate: int) -> int:
        return rate

    assert asyncio.run(steadily(one, one.of(ROW), 2, 5_000, work, turn)) == 80
    assert len(waited) == 3


def test_what_it_sends_is_on_the_bill_of_others_and_no_longer_once_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of the test's own, on which each turn of the loop is 10 ms."""
    now = 1000 * SECOND
    told = SimpleNamespace(monotonic=lambda: now / SECOND)
    turned = SimpleNamespace(**{**vars(asyncio), "sleep": lambda _seconds: asyncio.sleep(0)})
    monkeypatch.setattr(steady, "time", told)
    monkeypatch.setattr(steady, "asyncio", turned)

    async def work(rate: int) -> int:
        """As fast as it may, for as long as a burst lasts and some more, after a second without anybody."""
        nonlocal now
        got = 0
        now += SECOND
        for _ in range(20):
            now += SECOND // 100
            got += len(other.take([0] * 100).positions)
            await asyncio.sleep(0)
        return got

    with pair(tmp_path, lambda: now) as (one, two):
        other = two.of(ROW)
        alone = asyncio.run(work(0))
        beside = asyncio.run(steadily(one, one.of(ROW[:1]), 1, 800, work))
        assert beside < alone / 2
        now += SECOND
        assert asyncio.run(work(0)) == alone


def test_whatever_ends_it_nothing_stays_reserved(budgets: list[Budget]) -> None:
    one, two = budgets

    async def fail(rate: int) -> None:
        raise OSError("no")

    async def stop() -> None:
        begun = asyncio.Event()

        async def forever(rate: int) -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(steadily(one, one.of(ROW), 2, 800, forever))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with pytest.raises(OSError, match="no"):
        asyncio.run(steadily(one, one.of(ROW), 2, 800, fail))
    asyncio.run(stop())
    assert two.reserve(1_000) == 1_000


def test_two_workers_at_once_share_the_rate_of_the_host(bench: Bench, tmp_path: Path) -> None:
    """Each by its nmap, which is told what is left; a third has its rate when the first has ended."""
    scan = msgspec.structs.replace(loopback(), rate=1_000, budget=Scanning(rate=1_500))
    script = 'echo "$@" > $HERE/argv; while [ ! -e $HERE/go ]; do sleep 0.05; done; exec "$NMAP" "$@"'
    (tmp_path / "other").mkdir()
    (tmp_path / "other/scan.budget").symlink_to(tmp_path / "scan.budget")
    other = Bench(tmp_path / "other")
    try:
        begun = []
        for one in (bench, other):
            begun.append(one.start(scan, path=one.fake(script)))
            until(lambda one=one: (one.directory / "fake/argv").exists())
        rates = [re.findall(r"--max-rate (\d+)", (one.directory / "fake/argv").read_text()) for one in (bench, other)]
        assert rates == [["1000"], ["500"]]
        for one, process in zip((bench, other), begun, strict=True):
            (one.directory / "fake/go").touch()
            assert one.finish(process).code == 0
        assert other.run(scan, path=other.fake(script)).code == 0
        assert "--max-rate 1000 " in (tmp_path / "other/fake/argv").read_text()
    finally:
        other.close()
