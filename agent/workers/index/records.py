"""Where each packet of a stretch of a pcap file begins, found without a step of Python per packet.

The records are a chain: only the length in one tells where the next begins. So the stretch is cut into lanes, a place
in each is found that looks like the begin of a record, and all lanes are walked at once. What a lane looked like is
then proved: it counts only when the chain from the first record on ends exactly where the lane begins. Where no lane
begins, the chain is walked step by step until one does. So whatever the bytes are, the result is the chain, and the
time it takes is linear.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from agent.workers.capture.savefile import LONGEST_CAPTURE, RECORD_HEADER

if TYPE_CHECKING:
    from numpy.typing import NDArray

Order = Literal["<", ">"]

_LANE = 32 * 1024
"""Bytes of a lane: some hundred packets, so that a step over all lanes is worth a call into numpy."""

_LANES = 4096

_STRIDE = 32
"""Steps that all lanes make before it is looked what they came to."""

_SIGHT = 3
"""How many records in a row have to make sense for a lane to begin at the first of them."""

_TRIES = 16

_FEW = 32
"""Fewer lanes than these are not worth calls into numpy: what is left of them is walked step by step."""

_NANOSECONDS = 1_000_000_000


class Records(NamedTuple):
    """``places``: where records begin. The last whole one ends at ``end``. ``damaged``: what follows it is none."""

    places: NDArray[np.int64]
    end: int
    damaged: bool


def find(data: bytes | bytearray, length: int, order: Order) -> Records:
    """The records in the first ``length`` bytes of ``data``, the first of which begins at 0.

    ``order`` is the byte order of the file. What makes no sense as a record is what ``savefile.whole_records`` says.
    """
    if length < RECORD_HEADER:
        return Records(np.empty(0, np.int64), 0, False)
    starts = _starts(data, length, order)
    lanes = _walk(data, starts, length, order)
    return _chain(data, lanes, length, order)


class _Lanes(NamedTuple):
    """Where each lane begins and came to rest, and what was found: some places after the other, with their lanes."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]

    def places(self, proved: NDArray[np.bool_]) -> NDArray[np.int64]:
        """What was found in these lanes."""
        every = bool(proved.all())
        parts = [places[taken if every else taken & proved[lanes]] for places, lanes, taken in self.found]
        return np.concatenate([self.starts[:0], *parts])


def _walk(data: bytes | bytearray, starts: NDArray[np.int64], length: int, order: Order) -> _Lanes:
    """Walk all lanes until each is past the begin of the next, or at what is no whole record, or few are left.

    Some steps are made blindly, for what they cost is the calls; then it is seen how far each of the lanes made sense.
    """
    rest = length - RECORD_HEADER
    captured: NDArray[Any] = np.ndarray((rest + 1,), order + "u4", data, 8, (1,))
    original: NDArray[Any] = np.ndarray((rest + 1,), order + "u4", data, 12, (1,))
    stops = np.append(starts[1:], length)
    ends = starts.copy()
    found = []
    here, lanes = starts, np.arange(len(starts))
    while len(here) >= _FEW:
        places = np.empty((_STRIDE, len(here)), np.int64)
        following = np.empty_like(places)
        cuts = np.empty(places.shape, captured.dtype)
        for place, cut, after in zip(places, cuts, following, strict=True):
            np.minimum(here, rest, out=place)
            cut[:] = captured[place]
            np.add(place, cut, out=after)
            after += RECORD_HEADER
            here = after
        originals = original[places]
        whole = (cuts <= originals) & (originals != 0) & (cuts <= LONGEST_CAPTURE) & (following <= length)
        on = whole & (following < stops[lanes]) & (following <= rest)
        going = on.all(axis=0)
        steps = np.where(going, _STRIDE, np.argmin(on, axis=0))  # the last of a lane that stops is whole, or is none
        last = np.flatnonzero(~going), steps[~going]
        is_whole = whole[last[1], last[0]]
        ends[lanes[last[0]]] = np.where(is_whole, following[last[1], last[0]], places[last[1], last[0]])
        steps[last[0]] += is_whole
        found.append((places, lanes, np.arange(_STRIDE)[:, np.newaxis] < steps))
        here, lanes = here[going], lanes[going]
    ends[lanes] = here
    return _Lanes(starts, ends, found)


def _chain(data: bytes | bytearray, lanes: _Lanes, length: int, order: Order) -> Records:
    """What of the lanes is part of the chain from the first record on, and what is between them."""
    begins = {int(start): lane for lane, start in enumerate(lanes.starts)}
    proved = np.zeros(len(lanes.starts), np.bool_)
    between: list[int] = []
    header = struct.Struct(order + "II")
    place, damaged = 0, False
    while place + RECORD_HEADER <= length:
        lane = begins.get(place)
        if lane is not None and lanes.ends[lane] > place:
            proved[lane] = True
            place = int(lanes.ends[lane])
            continue
        captured, original = header.unpack_from(data, place + 8)
        if captured > original or not original or captured > LONGEST_CAPTURE:
            damaged = True
            break
        following = place + RECORD_HEADER + captured
        if following > length:
            break
        between.append(place)
        place = following
    places = lanes.places(proved)
    if between:
        places = np.concatenate([places, np.array(between, np.int64)])
    return Records(np.sort(places), place, damaged)


def _starts(data: bytes | bytearray, length: int, order: Order) -> NDArray[np.int64]:
    """0, and places behind it at which records seem to begin, ascending."""
    header = struct.Struct(order + "4I")
    step = max(_LANE, length // _LANES)
    starts = [0]
    # Packets of one stretch mostly share the upper half of their seconds, which changes every 18 hours.
    within, mark = (2, bytes(data[2:4])) if order == "<" else (0, bytes(data[:2]))
    for place in range(step, length - RECORD_HEADER, step):
        seen = _seek(data, place, min(place + step, length), length, header, mark, within)
        if seen is not None:
            starts.append(seen)
    return np.array(starts, np.int64)


def _seek(
    data: bytes | bytearray, place: int, limit: int, length: int, header: struct.Struct, mark: bytes, within: int
) -> int | None:
    """The first place before ``limit`` at which some records in a row make sense, unless it takes too many tries."""
    for _ in range(_TRIES):
        found = data.find(mark, place + within, limit)
        if found < 0:
            return None
        place = found - within
        if _sensible(data, place, length, header, mark, within):
            return place
        place += 1
    return None


def _sensible(
    data: bytes | bytearray, place: int, length: int, header: struct.Struct, mark: bytes, within: int
) -> bool:
    for _ in range(_SIGHT):
        if place + RECORD_HEADER > length:
            return False
        _, fraction, captured, original = header.unpack_from(data, place)
        if fraction >= _NANOSECONDS or captured > original or not original or captured > LONGEST_CAPTURE:
            return False
        if data[place + within : place + within + 2] != mark:
            return False
        place += RECORD_HEADER + captured
    return True
