"""The processes that share the packets of a capture's interfaces with it, as the capture keeps them."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from agent.linux.capability_sets import NET_RAW
from agent.telemetry import breakdown
from agent.workers.capture import fanout
from agent.workers.capture.counters import Counters
from agent.workers.capture.interfaces import REMEMBERED
from agent.workers.capture.loop import ROTATE
from agent.workers.capture.member import SEGMENT, WANTING
from agent.workers.capture.report import COUNTED, Flow, Part
from agent.workers.capture.store import FULL
from agent.workers.companion import Companion, Report

_DENIALS = {str(number): OSError(number, os.strerror(number)) for number in FULL}


class Members:
    """``count`` of them. ``closed`` is called with ``INTERFACE/NAME`` of each segment that one has closed, ``ended``
    when one has ended, and may have left one open, and ``wanting`` when the disk would not let one write.
    """

    def __init__(
        self,
        count: int,
        groups: fanout.Groups,
        report: Report,
        closed: Callable[[str], None],
        ended: Callable[[], None],
        wanting: Callable[[OSError], None],
    ) -> None:
        self._report = report
        self._closed = closed
        self._ended = ended
        self._wanting = wanting
        self._gone = Counters()
        self._gone_parts: dict[str, Part] = {}
        self._members = [
            Companion(
                "member",
                functools.partial(self._heard, number),
                variables=lambda: {fanout.VARIABLE: str(groups.fd)},
                capabilities=(NET_RAW,),
                pass_fds=(groups.fd,),
            )
            for number in range(count)
        ]

    def start(self) -> None:
        """Start them; from then on they are kept running."""
        for member in self._members:
            member.start()

    def tend(self) -> None:
        """Look after them. Call once a second or so."""
        for member in self._members:
            member.tend()

    def rotate(self) -> None:
        """Have them close the segments that they are writing."""
        for member in self._members:
            member.signal(ROTATE)

    async def stop(self) -> None:
        """End them: each completes its segments."""
        await asyncio.gather(*(member.stop() for member in self._members))

    @property
    def counters(self) -> Counters:
        """Of all of them since the start, those included that have ended since."""
        return sum((_counters(member.figures) for member in self._members), self._gone)

    @property
    def open_bytes(self) -> int:
        """Bytes of the segments that they are writing."""
        return sum(_whole(member.figures, "open_bytes") for member in self._members)

    def flow(self) -> Flow:
        """How packets get through there."""
        return sum((_flow(member.figures) for member in self._members), Flow())

    def parts(self) -> dict[str, Part]:
        """What they did on each interface, those included that have ended since."""
        found = dict(self._gone_parts)
        for member in self._members:
            _merge(found, member)
        return found

    def _heard(self, number: int, kind: str, message: str) -> None:
        if kind == SEGMENT:
            self._closed(message)
            return
        if kind == WANTING:
            if message in _DENIALS:
                self._wanting(_DENIALS[message])
            return
        if kind == "companion_ended":
            member = self._members[number]
            self._gone += _counters(member.figures)
            _merge(self._gone_parts, member)
            kept = list(self._gone_parts.items())[-REMEMBERED:]
            self._gone_parts = {name: Part(part.counters, Flow()) for name, part in kept}
            member.figures = {}
            member.said.pop(breakdown.FIELD, None)
            self._ended()
        self._report(kind, message)


def _merge(parts: dict[str, Part], member: Companion) -> None:
    for name, figures in (breakdown.decode(member.said.get(breakdown.FIELD)) or {}).items():
        part = Part(_counters(figures), _flow(figures))
        parts[name] = parts[name] + part if name in parts else part


def _counters(figures: Mapping[str, Any]) -> Counters:
    return Counters(**{name: _whole(figures, name) for name in COUNTED})


def _flow(figures: Mapping[str, Any]) -> Flow:
    return Flow(
        _whole(figures, "lag", 10**9),
        _whole(figures, "lag_max", 10**9),
        *(_whole(figures, n) for n in ("ring", "ring_packets")),
    )


def _whole(figures: Mapping[str, Any], name: str, factor: int = 1) -> int:
    value = figures.get(name)
    return round(value * factor) if isinstance(value, int | float) else 0
