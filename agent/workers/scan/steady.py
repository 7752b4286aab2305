"""A program that cannot ask before it sends, nmap, within the budget of all scans.

It is given a rate that is left over by others of its kind, and while it runs all that it may send at this rate is put
on the bill, so that sweeps wait for it. The rate is no higher than the limit of a single target: in which order it asks
its hosts is its own affair, and it may be at one of them alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from agent.workers.scan.budget_file import Budget, Share

EVERY = 0.1
"""Seconds between two entries on the bill."""

LEAST = 0.1
"""The part of the rate that it asks for with which it begins: with less it waits for more."""

WAIT = 0.2
"""Seconds between two looks at what others have left."""

_T = TypeVar("_T")


async def steadily(
    shared: Budget,
    share: Share,
    addresses: int,
    rate: int,
    make: Callable[[int], Coroutine[Any, Any, _T]],
    turn: Callable[[], None] = lambda: None,
) -> _T:
    """The result of what ``make`` begins with the rate that it is given, in probes per second.

    ``share`` is for the ``addresses`` that it asks, ``rate`` what it would like. ``turn`` is called while others have
    to be waited for. Raises what it raises.
    """
    wanted = min(rate, *shared.limits)
    while not (granted := shared.reserve(wanted, max(1, int(wanted * LEAST)))):
        turn()
        await asyncio.sleep(WAIT)
    bill = asyncio.ensure_future(_pay(share, addresses, granted))
    try:
        return await make(granted)
    finally:
        bill.cancel()
        with suppress(asyncio.CancelledError):
            await bill
        shared.release(granted)


async def _pay(share: Share, addresses: int, rate: int) -> None:
    """Charge for what goes at a rate, to each of the addresses in turn."""
    began, paid = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began + EVERY) * rate)
        # Of what a process that was held up for long has missed, the bill remembers no more than that anyway.
        share.charge([number % addresses for number in range(max(paid, due - 2 * rate), due)])
        paid = due
        await asyncio.sleep(EVERY)
