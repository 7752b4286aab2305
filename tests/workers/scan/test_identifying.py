"""What phase 2 sends is within the budget of all scans."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from agent.errors import ScanFailure
from agent.workers.scan.allowed import Allowed
from agent.workers.scan.budget import Limits
from agent.workers.scan.budget_file import Budget
from agent.workers.scan.identifying import pay_of, permit_of

HERE, THERE = "10.0.0.1", "fd00::1%lo"


@pytest.fixture
def budget() -> Iterator[Budget]:
    made = Budget(None, Limits(100_000, 100_000, 200), print)
    yield made
    made.close()


def test_a_connection_waits_for_what_nmap_was_given_leave_to_make(budget: Budget) -> None:
    permit = permit_of(budget, Allowed())
    asyncio.run(pay_of(budget)([HERE, THERE], 41))  # of which 40 are a fifth of a second's worth, and 10 a burst
    began = time.monotonic()
    asyncio.run(permit("10.0.0.2"))
    aside = time.monotonic() - began
    asyncio.run(permit(HERE))
    assert time.monotonic() - began >= 0.14
    assert aside < time.monotonic() - began


def test_what_must_not_be_asked_is_not_waited_for(budget: Budget) -> None:
    with pytest.raises(ScanFailure, match=r"8\.8\.8\.8 must not be scanned"):
        asyncio.run(permit_of(budget, Allowed())("8.8.8.8"))
