"""The order of time, whatever overlaps, and no more in memory than has to be."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.catalogue import Segment
from agent.workers.retrieval.merge import merge
from agent.workers.retrieval.search import Batch, Piece, Stretch
from agent.workers.retrieval.snapshot import Source

SOURCE = Source(Segment(0, "eth0", Path("/edge/eth0/x.pcap")), 0)

Times = list[int]


def piece(times: Times, number: int, early: int = 0) -> Piece:
    """A piece whose packets are known by ``number``; it promises them up to ``early`` too soon."""
    return Piece(min(times, default=0) - early, max(times, default=0), SOURCE, number, number, ())  # type: ignore[arg-type]  # no index is read


def merged(groups: list[list[Times]], early: int = 0) -> tuple[list[tuple[int, int, int]], int]:
    """The packets in the order that they come in, by time, piece and number, and how many pieces were open at most."""
    flat = [times for group in groups for times in group]
    numbers = iter(range(len(flat)))
    parts: list[Stretch | Piece] = []
    for group in groups:
        pieces = [piece(times, next(numbers), early) for times in group]
        if len(pieces) == 1:
            parts += pieces
        elif pieces:
            first, last = min(each.first for each in pieces), max(each.last for each in pieces)
            parts.append(Stretch(first, last, SOURCE, lambda pieces=pieces: pieces))  # type: ignore[misc]  # bound at once
    left: dict[int, int] = {}
    most = 0

    def batch(wanted: Piece) -> Batch | None:
        nonlocal most
        times = sorted(flat[wanted.begin])
        if not times:
            return None
        left[wanted.begin] = len(times)
        most = max(most, len(left))
        return Batch(SOURCE, wanted.begin, b"", list(range(len(times))), times, True)

    found = []
    for run in merge(parts, batch):
        assert run.begin < run.end
        number = run.batch.link_type
        found += [(run.batch.times[each], number, each) for each in range(run.begin, run.end)]
        left[number] -= run.end - run.begin
        if not left[number]:
            del left[number]
    return found, most


@given(st.lists(st.lists(st.lists(st.integers(0, 60), max_size=8), max_size=4), max_size=6), st.integers(0, 20))
def test_packets_come_in_order_of_time_and_then_of_where_they_stood(groups: list[list[Times]], early: int) -> None:
    flat = [times for group in groups for times in group]
    wanted = sorted(
        (time, number, each) for number, times in enumerate(flat) for each, time in enumerate(sorted(times))
    )
    assert merged(groups, early)[0] == wanted


def test_only_what_overlaps_is_open_at_once() -> None:
    groups = [[[second * 10 + packet for packet in range(10)] for second in range(50)] for _ in range(2)]
    found, most = merged(groups)
    assert len(found) == 1000
    assert most == 2
