"""What a run must not say is settled in steps, however many hosts there are; what comes of it: ``test_blind_paths``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.workers.scan import withholding
from agent.workers.scan.found import Host, Port
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.pausing import Ended
from agent.workers.scan.plan import Chunk, make_plan
from agent.workers.scan.store import ScanStore, Task
from agent.workers.scan.withholding import Withholding


def test_the_signs_of_many_hosts_are_looked_at_in_steps_and_an_order_is_heeded_between_any_two_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withholding, "_AT_ONCE", 10)
    plan = make_plan(["10.0.0.0/25"])
    addresses = [f"10.0.0.{last}" for last in range(100)]
    breaths, limit = 0, 3

    async def breathe() -> None:
        nonlocal breaths
        breaths += 1
        if breaths == limit:
            raise Ended

    async def chunks() -> AsyncIterator[Chunk]:
        for chunk in plan.chunks():
            yield chunk

    with closing(ScanStore(tmp_path / "scan.db")) as store:
        first = store.begin(Task(plan.plan_hash, 128, 2), time.time())
        port = Port("tcp", 9, "open", "syn-ack")
        store.store(first, [Host(address, "up", "syn-ack", ports=(port,)) for address in addresses], time.time())
        store.end(first, "finished", time.time())
        second = store.begin(Task(plan.plan_hash, 128, 2), time.time())
        store.store(second, [], time.time(), asked=asked(addresses))
        why: list[str] = []
        judging = Withholding(store, second, {"tcp": ((1, 99),)}, [], why.append)
        with pytest.raises(Ended):
            asyncio.run(judging.judge(chunks, breathe))
        assert why == []
        breaths, limit = 0, 0
        asyncio.run(judging.judge(chunks, breathe))
        assert (why, breaths) == (["none of 100 known hosts answered"], 10)
