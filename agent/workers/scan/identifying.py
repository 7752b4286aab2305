"""Phase 2 within a run: the hosts that were swept are identified and stored, and silent ports put under quarantine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Any

from agent.workers.scan.allowed import Allowed
from agent.workers.scan.budget_file import Budget
from agent.workers.scan.figures import Figures
from agent.workers.scan.identify import Clock, Identified, Progress, Redo, Want, identify
from agent.workers.scan.memory.reading import Quarantined
from agent.workers.scan.program import Program
from agent.workers.scan.results import document
from agent.workers.scan.store import DETECTED, SWEPT, Run, ScanStore

Quarantine = dict[tuple[str, str, int], Quarantined]


async def identify_waiting(
    store: ScanStore,
    run: Run,
    want: Want,
    program: Program,
    *,
    silent_again: float,
    figures: Figures,
    permit: Callable[[str], Coroutine[Any, Any, None]],
    charge: Callable[[Sequence[str], int], None],
    redo: Redo,
    turn: Callable[[], None],
    turn_every: float,
) -> None:
    """Identify what listens on the open ports of all hosts of the run that were swept and no more.

    ``silent_again`` is how many seconds pass until a port that said nothing is asked at length again. Raises what
    ``identify`` and the store raise; what was learned by then is stored.
    """
    # Those that were discovered and not swept yet are not at that: a host is identified once.
    waiting = [host for host in store.waiting(run, DETECTED) if host.ports or host.rest]
    if not waiting:
        return
    quarantine: Quarantine = {(one.address, one.protocol, one.number): one for one in store.silent()}
    began = time.time()

    def clock(address: str, protocol: str, number: int) -> Clock:
        one = quarantine.get((address, protocol, number))
        return "new" if one is None else "due" if one.next_try <= began else "held"

    def on_host(found: Identified) -> None:
        raw = document(found.raw, figures.nmap_version) if found.raw else b""
        store.store(run, [found.host], time.time(), stage=DETECTED if found.complete else SWEPT, raw=raw)
        if found.complete:
            _keep(store, found, quarantine, time.time(), silent_again)

    def told(progress: Progress) -> None:
        figures.learning(progress)
        turn()

    await identify(
        waiting,
        want,
        program,
        on_host=on_host,
        clock=clock,
        permit=permit,
        charge=charge,
        redo=redo,
        turn=told,
        turn_every=turn_every,
    )


def permit_of(budget: Budget, allowed: Allowed) -> Callable[[str], Coroutine[Any, Any, None]]:
    """Waits until a connection may be made to an address. Raises ``ScanFailure`` when it must never be."""

    async def permit(address: str) -> None:
        allowed.check([address])
        share = budget.of([ip_address(address.partition("%")[0])])
        while not (granted := share.take([0])).positions:
            await asyncio.sleep(max(0.001, min(0.2, granted.again - time.monotonic())))

    return permit


def charge_of(budget: Budget) -> Callable[[Sequence[str], int], None]:
    """Puts connections that nmap makes on the bill: so many to each of these addresses."""

    def charge(addresses: Sequence[str], each: int) -> None:
        share = budget.of([ip_address(address.partition("%")[0]) for address in addresses])
        share.charge(range(len(addresses)), each)

    return charge


def _keep(store: ScanStore, found: Identified, known: Quarantine, now: float, silent_again: float) -> None:
    """Whoever said nothing is asked at length once in a long while; who spoke is free."""
    address = found.host.address
    held = {(address, one.protocol, one.number): one for one in found.held}
    ports = []
    for key, one in held.items():
        old = known.get(key)
        if old is None:
            ports.append(Quarantined(*key, now, int(one.tried), now + silent_again))
        elif one.tried:
            ports.append(Quarantined(*key, old.since, old.tries + 1, now + silent_again))
    heard = [key for key in known if key[0] == address and key not in held]
    if ports or heard:
        store.silence(ports, heard)
