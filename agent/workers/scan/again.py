"""A second look, in the same run, at what one look left open: so that it is told now, and not after the next run.

Whatever a run saw that is not as it was believed is doubted: a packet may have been lost, or a port may have answered
by mistake. What is doubted is asked once more, a while after the first look, together for as many hosts as may be.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from agent.errors import StorageFailure
from agent.workers.scan.found import PROTOCOLS, Host, Protocol
from agent.workers.scan.memory.place import Line, order, place
from agent.workers.scan.memory.settling import Doubt, together
from agent.workers.scan.memory.state import Key
from agent.workers.scan.spans import Ranges, holds
from agent.workers.scan.store import Run, ScanStore

MOST: Final = 65_536
"""Probes of one lot: some seconds at the rate that a scan usually has."""

STEP: Final = 100
"""Hosts of a lot that are stored at once."""


class Lot(NamedTuple):
    """Addresses and the ports that all of them are asked for: more than is doubted, where that saves asking apart."""

    protocol: Protocol
    addresses: tuple[str, ...]
    ports: tuple[int, ...]


Within = Mapping[Protocol, Ranges]
"""Ports by protocol."""

Ask = Callable[[int, Lot], Awaitable[Iterable[Host]]]
"""``ask(number, lot)`` gives every host of the lot, those that did not answer as ``down``; lots count from 0."""

Breathe = Callable[[], Awaitable[None]]
"""Awaited every 50 ms or so of work: to beat, to wait while the scan is held, and to raise when it is to end."""


async def look_again(
    store: ScanStore, run: Run, within: Within, ask: Ask, breathe: Breathe, *, most: int = MOST
) -> int:
    """Ask once more for all that the run has left in doubt, and keep what that found; returns how many lots it took.

    ``within`` are the ports that the scan may ask: others are known of, from captures and from other times. Before
    ``ScanStore.end``. Raises what ``ask`` and ``breathe`` do, and ``StorageFailure``; what was asked by then is kept.

    Which lots there are is settled once: whoever continues the run goes on with those that are left of them, and the
    one that was under way has the number, and so the file, that it had.
    """
    waiting = store.again(run)
    if not waiting:
        written: list[str] = []
        for lot in lots(await _doubts(store, run, within, breathe), most):
            written.append(msgspec.json.encode(lot).decode())
            await breathe()
        store.intend(run, written)
        waiting = store.again(run)
    for number, text in waiting:
        hosts = iter(await ask(number, _read(text)))
        while part := list(islice(hosts, STEP)):  # a kill between two of them repeats them, which does no harm
            store.recheck(run, part, time.time())
            await breathe()
        store.recheck(run, (), time.time(), number)
    return len(waiting)


async def _doubts(store: ScanStore, run: Run, within: Within, breathe: Breathe) -> list[Doubt]:
    found: list[Doubt] = []
    for some in store.doubts(run):
        for one in some:
            found.append(one._replace(ports=tuple(key for key in one.ports if _asked(within, key))))
        await breathe()
    return found


def _read(written: str) -> Lot:
    try:
        return msgspec.json.decode(written, type=Lot)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise StorageFailure(f"the database holds {written[:40]!r} where a second look should be") from error


def lots(doubts: Iterable[Doubt], most: int = MOST) -> Iterator[Lot]:
    """Every doubted port of every host, in lots of at most ``most`` probes (a single port of one host, at least).

    The addresses of a lot are of one family, and on one interface where they name it. A host of which no port is known
    is in none: it has the next run to answer. Pure.
    """
    lines: dict[Line, list[Doubt]] = {}
    for doubt in doubts:
        lines.setdefault(place(doubt.address).line, []).append(doubt)
    for line in sorted(lines):
        groups = sorted(together(lines[line]).items())
        for protocol in PROTOCOLS:
            yield from _lots(protocol, groups, most)


def _lots(protocol: Protocol, groups: Iterable[tuple[tuple[Key, ...], list[str]]], most: int) -> Iterator[Lot]:
    addresses: set[str] = set()
    ports: set[int] = set()
    for keys, those in groups:
        for part in _parts({number for name, number in keys if name == protocol}, those, most):
            more = len(part.addresses - addresses)  # not their union: it would be copied for each group
            if len(ports | part.ports) * (len(addresses) + more) > most:
                yield Lot(protocol, tuple(sorted(addresses, key=order)), tuple(sorted(ports)))
                addresses, ports = set(), set()
            addresses |= part.addresses
            ports |= part.ports
    if addresses:
        yield Lot(protocol, tuple(sorted(addresses, key=order)), tuple(sorted(ports)))


def _asked(within: Within, key: Key) -> bool:
    return any(protocol == key[0] and holds(found, key[1]) for protocol, found in within.items())


class _Part(NamedTuple):
    addresses: set[str]
    ports: set[int]


def _parts(ports: set[int], addresses: list[str], most: int) -> Iterator[_Part]:
    """A group in pieces that are no larger than a lot."""
    numbers = sorted(ports)
    width = max(1, min(most, len(numbers)))
    height = max(1, most // width)
    for low in range(0, len(numbers), width):
        for start in range(0, len(addresses), height):
            yield _Part(set(addresses[start : start + height]), set(numbers[low : low + width]))
