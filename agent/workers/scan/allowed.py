"""The last look before anything is sent: may these very addresses be scanned? Pure.

The declaration was judged when it was loaded, and the plan when it was made. This is the third judgement, made of the
addresses that an engine is about to get and of nothing else: not of the plan, nor with its code. So a mistake in either
cannot send a packet where none was declared.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import ip_address

from agent.declaration.targets import NEVER, OWN, span
from agent.declaration.wording import shown
from agent.errors import ScanFailure

Interval = tuple[int, int]


class Allowed:
    """What may be scanned: what is the organisation's own and ``allow_public``, but never ``exclude``, and no
    broadcast address."""

    def __init__(
        self, allow_public: Iterable[str] = (), exclude: Iterable[str] = (), broadcasts: Iterable[str] = ()
    ) -> None:
        """All in the normal form of ``agent.declaration.targets``. Raises ``ValueError`` for anything else.

        ``broadcasts`` are addresses with which all of a network are addressed: the first and last of those declared,
        and those of the networks that this host is on.
        """
        self._own: dict[int, list[Interval]] = {4: [], 6: []}
        self._never: dict[int, list[Interval]] = {4: [], 6: []}
        self._excluded: dict[tuple[int, str], list[Interval]] = {}
        for network in OWN:
            self._own[network.version].append((int(network[0]), int(network[-1])))
        for text in allow_public:
            public = span(text)
            self._own[public.family].append((public.low, public.high))
        for network, _ in NEVER:
            self._never[network.version].append((int(network[0]), int(network[-1])))
        for text in exclude:
            hole = span(text)
            self._excluded.setdefault((hole.family, hole.zone), []).append((hole.low, hole.high))
        for text in broadcasts:
            one = span(text)
            self._never[one.family].append((one.low, one.high))
        for intervals in (*self._own.values(), *self._never.values(), *self._excluded.values()):
            _merge(intervals)

    def check(self, addresses: Iterable[str]) -> None:
        """Raises ``ScanFailure`` unless each of them may be scanned."""
        for text in addresses:
            plain, percent, zone = text.partition("%")
            try:
                address = ip_address(plain)
                if percent:
                    span(text)
            except ValueError:
                raise ScanFailure(f"{shown(text)} is no address: nothing was sent to it") from None
            family, number = address.version, int(address)
            excluded = (self._excluded.get((family, where), []) for where in {"", zone})
            if not _holds(self._own[family], number) or _holds(self._never[family], number):
                raise ScanFailure(f"{text} must not be scanned: nothing was sent to it")
            if any(_holds(intervals, number) for intervals in excluded):
                raise ScanFailure(f"{text} is excluded: nothing was sent to it")


def _merge(intervals: list[Interval]) -> None:
    """Sort them, and make one of those that touch or overlap."""
    merged: list[Interval] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    intervals[:] = merged


def _holds(intervals: list[Interval], number: int) -> bool:
    place = bisect_right(intervals, number, key=lambda interval: interval[0]) - 1
    return place >= 0 and number <= intervals[place][1]
