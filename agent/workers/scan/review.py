"""After a round of a sweep: of which hosts the silence is believed, and which are asked once more."""

from __future__ import annotations

from collections.abc import Iterator

from agent.workers.scan.grid import Grid
from agent.workers.scan.ledger import ANSWERED, Ledger, decode
from agent.workers.scan.rounds import enough

_AT_ONCE = 65_536  # bytes of the ledger between two breaks


def review(
    grid: Grid, ledger: Ledger, finished: list[bool], *, attempts: int, retries: int, elsewhere: float, patient: bool
) -> Iterator[None]:
    """Set ``finished`` for each place that needs no further round after that many ``attempts``; a few at a time.

    ``retries``, ``elsewhere`` and ``patient`` as in ``rounds.enough``.
    """
    width, counted = grid.width, 0
    for place in range(len(grid.addresses)):
        if finished[place]:
            continue
        answered, silent = [0] * 8, 0
        for byte, count in ledger.tally(place * width, (place + 1) * width).items():
            if byte < ANSWERED:
                silent += count
            elif tells_loss(byte):
                answered[byte & 7] += count
        if enough(answered, silent, attempts, retries, elsewhere, patient=patient):
            finished[place] = True
            ledger.believe(place * width, (place + 1) * width)
        counted += width
        if counted >= _AT_ONCE:
            counted = 0
            yield


def tells_loss(byte: int) -> bool:
    """Whether the attempt at which this answer came says anything of what gets lost on the way.

    That a neighbour is not there the kernel says itself, and it is never believed the first time.
    """
    return (decode(byte) or ("", ""))[1] != "host-unreach"
