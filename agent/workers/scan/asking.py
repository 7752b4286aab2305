"""One run of nmap that identifies services: allowed, paid for, followed, and judged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from agent.errors import ScanFailure
from agent.workers.scan.argv import ask_argv, target_list
from agent.workers.scan.detect import Task, cost
from agent.workers.scan.found import Host
from agent.workers.scan.nmap import SILENCE, run_nmap
from agent.workers.scan.program import Program
from agent.workers.scan.results import given_as, read_host
from agent.workers.scan.stream import XmlStream

LARGEST: Final = 4 * 1024 * 1024
"""Bytes that one run of nmap may say of one host."""

Redo = Callable[[Callable[[], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]]


async def once(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """No gate: what is begun is not broken off."""
    await make()


async def _free(_address: str) -> None:
    """No limit."""


async def _unpaid(_addresses: Sequence[str], _each: int) -> None:
    """No account."""


def _all(_addresses: Sequence[str]) -> None:
    """No rule."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Who is asked before anything is sent.

    ``permit`` is awaited before each connection of our own to an address; ``pay`` before each run of nmap, with its
    addresses and how many connections it may make to each. ``check`` is called directly before nmap starts, and raises
    ``ScanFailure`` for an address that must not be asked. ``redo`` runs what it is given and may cancel it and do it
    again. ``target_rate`` is how many connections a second one address may get.
    """

    permit: Callable[[str], Awaitable[None]] = _free
    pay: Callable[[Sequence[str], int], Awaitable[None]] = _unpaid
    check: Callable[[Sequence[str]], None] = _all
    redo: Redo = once
    target_rate: int = 1_000_000


FREE: Final = Leave()
"""Nobody."""


async def ask(
    task: Task,
    addresses: tuple[str, ...],
    program: Program,
    leave: Leave,
    *,
    rate: int,
    take: Callable[[Host, bytes], None],
) -> str:
    """Ask some addresses of a task, and hand out each as nmap tells of it, with the bytes; returns nmap's version.

    ``rate`` is in packets per second. Raises ``TimeoutError`` when it takes longer than the task may, ``ScanFailure``
    when nmap fails, hangs, or cannot be trusted, or an address must not be asked.
    """
    given = given_as(addresses)
    await leave.pay(addresses, cost(task))
    leave.check(addresses)
    stream = XmlStream(on_host=lambda element: take(read_host(element, given), element), limit=LARGEST)
    try:
        async with asyncio.timeout(task.limit):
            verdict = await run_nmap(
                partial(ask_argv, task.ask, nmap=program.path, rate=rate, privileged=program.privileged),
                program.environment,
                target_list(addresses),
                capabilities=program.capabilities,
                hosts=len(addresses),
                stream=stream,
                turn=lambda: None,
                turn_every=min(1.0, task.limit / 8),
                # Who reports every second is at work, however long: that is what the limit is for.
                silence=min(SILENCE, 0.75 * task.limit),
            )
    except ScanFailure as error:
        others = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
        raise ScanFailure(f"services of {addresses[0]}{others}: {error}") from error
    return verdict.version
