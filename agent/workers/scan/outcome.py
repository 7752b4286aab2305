"""From the bytes of a ledger to hosts and their ports. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

from agent.workers.scan import spans
from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.grid import Grid
from agent.workers.scan.ledger import ANSWERED, SKIPPED, Ledger, decode

SILENT: Final = "no-response"
ON_EVERY_PORT: Final = "syn-ack; answers on every port"
"""The reason of all open ports of a host that says open to everything."""

_NOT_THERE: Final = frozenset({"host-unreach", "net-unreach"})


def outcome(
    grid: Grid, ledger: Ledger, everything: Collection[int] = (), before: Mapping[str, Host] | None = None
) -> Iterator[Host]:
    """The hosts of a chunk that was swept, in the order of its addresses, without those that were not asked.

    ``everything`` are the places of those that say open to everything: their open ports are told of together.
    ``before`` is what was known of them earlier in this run (a MAC, a name, other ports), which is added.
    """
    width = grid.width
    for place, address in enumerate(grid.addresses):
        states = bytes(ledger.states[place * width : (place + 1) * width])
        if states[0] == SKIPPED:
            continue
        by_answer: dict[tuple[str, str], list[int]] = {}
        for byte in set(states) - {0}:  # what was never sent, because the scan had become blind, was not asked
            answer = decode(byte) or ("open|filtered" if grid.protocol == "udp" else "filtered", SILENT)
            if byte >= ANSWERED and place in everything and answer[0] == "open":
                answer = ("open", ON_EVERY_PORT)
            by_answer.setdefault(answer, []).extend(_places_of(byte, states))
        if not by_answer:
            continue
        known = before.get(address) if before else None
        yield _host(grid, address, by_answer, place in everything, known)


def _host(
    grid: Grid, address: str, by_answer: dict[tuple[str, str], list[int]], everything: bool, known: Host | None
) -> Host:
    ports: list[Port] = []
    rest: list[Rest] = []
    reasons: dict[str, str] = {}
    for (state, reason), slots in sorted(by_answer.items()):
        numbers = [grid.ports[slot] for slot in slots]
        if reason != SILENT and reason not in _NOT_THERE:
            reasons.setdefault(state, reason)
        if state == "open" and not everything:
            ports += (Port(grid.protocol, number, state, reason) for number in numbers)
        else:
            rest.append(Rest(grid.protocol, state, reason, spans.of(numbers)))
    up = reasons.get("open") or reasons.get("closed") or reasons.get("filtered", "")
    silence = next((reason for _, reason in by_answer if reason in _NOT_THERE), SILENT)
    found = Host(
        address,
        "up" if up else "down",
        up.partition(";")[0] or silence,
        ports=tuple(sorted(ports, key=lambda port: port.number)),
        rest=tuple(rest),
    )
    if known is None:
        return found
    alive = known.state == "up"
    return replace(
        known,
        state=known.state if alive else found.state,
        reason=known.reason if alive else found.reason,
        ports=(*known.ports, *found.ports),
        rest=(*known.rest, *found.rest),
    )


def _places_of(byte: int, states: bytes) -> Iterator[int]:
    at = states.find(byte)
    while at >= 0:
        yield at
        at = states.find(byte, at + 1)
