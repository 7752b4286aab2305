"""Which packets of a chunk an expression of pcap-filter(7) means: the index where that is certain, else libpcap.

Of a packet only its flow has to be known, and not what is in it. So the records that libpcap is asked about bear their
number in place of a time, which no filter can see, and what passes is known by that.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agent.declaration.capture_limits import ENDLESS, endless
from agent.declaration.wording import shown
from agent.errors import UsageError
from agent.workers.capture.savefile import LONGEST_CAPTURE, RECORD_HEADER, file_header
from agent.workers.flows.recount import Chosen
from agent.workers.index import numbers, records
from agent.workers.index.build import Kind
from agent.workers.index.model import Chunk
from agent.workers.retrieval.expression import Everything
from agent.workers.retrieval.narrow import truth
from agent.workers.retrieval.offline import Filter
from agent.workers.retrieval.parse import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 8 * 1024 * 1024
"""Bytes of a segment that are read at a time."""

#: Of a file of Ethernet: what an expression is held against when there is no file.
ETHERNET = file_header(numbers.ETHERNET)

_NATIVE: Literal["<", ">"] = "<" if sys.byteorder == "little" else ">"


class Choice:
    """An expression. Raises ``UsageError`` for one that may never end, and when it is used on a file for which libpcap
    refuses it."""

    def __init__(self, expression: str) -> None:
        if endless(expression):
            raise UsageError(f"filter {shown(expression)}: {ENDLESS}")
        self._expression = expression
        self._meaning = parse(expression)
        self._filters: dict[bytes, Filter] = {}

    @property
    def everything(self) -> bool:
        """Whether there is nothing to choose."""
        return isinstance(self._meaning, Everything)

    def check(self, head: bytes = ETHERNET) -> Filter:
        """The filter for files that begin with ``head``. Raises ``UsageError``."""
        found = self._filters.get(head)
        if found is None:
            found = self._filters[head] = Filter(head, self._expression)
        return found

    def of(self, chunk: Chunk, rows: NDArray[np.bool_], fd: int, head: bytes, kind: Kind) -> Chosen:
        """What of ``chunk`` it means. Only ``rows`` are looked at; ``fd`` is the segment, ``head`` its header.

        Raises ``Damaged`` and ``OSError``.
        """
        known = truth(chunk.flows, chunk.link_type, self._meaning)
        judge = self.check(head)
        places = chunk.offsets_of(rows & known.may & ~known.must).astype(np.int64)
        passed = [np.empty(0, np.int64)]
        at = 0
        while at < len(places):
            upto = int(np.searchsorted(places, places[at] + WINDOW))
            passed.append(places[at:upto][_passing(judge, fd, chunk, places[at:upto], kind)])
            at = upto
        return Chosen(known.may, known.must, np.concatenate(passed))


def _passing(judge: Filter, fd: int, chunk: Chunk, places: NDArray[np.int64], kind: Kind) -> NDArray[np.int64]:
    """Which of the records at these places, ascending, pass: by their positions."""
    first = int(places[0])
    end = min(int(places[-1]) + RECORD_HEADER + LONGEST_CAPTURE, chunk.end - chunk.begin)
    data = bytearray(end - first)
    got = os.preadv(fd, [data], chunk.begin + first)
    begins = places - first
    begins = begins[begins + RECORD_HEADER <= got]
    words: Any = np.ndarray((max(0, len(data) - 3),), kind.form.order + "u4", data, 0, (1,))
    ends = begins + RECORD_HEADER + words[begins + 8].astype(np.int64)
    whole = ends <= got
    begins, ends = begins[whole], ends[whole]
    words[begins] = np.arange(len(places))[: len(whole)][whole]
    if not len(begins):
        return np.empty(0, np.int64)
    apart = np.flatnonzero(begins[1:] != ends[:-1])
    starts = begins[np.concatenate(([0], apart + 1))].tolist()
    stops = ends[np.append(apart, len(ends) - 1)].tolist()
    view = memoryview(data)
    taken = bytes(judge.among([view[start:stop] for start, stop in zip(starts, stops, strict=True)]))
    found = records.find(taken, len(taken), _NATIVE).places
    numbers: Any = np.ndarray((max(0, len(taken) - 3),), "=u4", taken, 0, (1,))
    passed: NDArray[np.int64] = numbers[found].astype(np.int64)
    return passed
