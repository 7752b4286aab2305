"""Between wall-clock readings and unix time, as C's ``localtime`` and ``mktime`` do it, for any time zone.

systemd's calendar leans on what ``mktime`` of the GNU C library does with readings that do not exist (clocks set
forward) or come twice (clocks set back). Python's own conversions decide these cases otherwise, and ``time.mktime``
knows only the process's zone and remembers earlier calls. So the conversion stands here, with that memory made
explicit: of two unix times with the same reading, the one whose UTC offset was used last is chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta

from agent.errors import UsageError

Offset = tuple[int, bool]
"""Seconds east of UTC, and whether that is daylight-saving time."""

_EPOCH = date(1970, 1, 1).toordinal()
_ROUNDS = 6
_STRIDE = 601_200
"""Shorter than any period of daylight-saving or standard time on record, so that no probe steps over one."""
_REACH = 268_000_000
"""How far away to look for the other clock: half the longest period without a change on record."""


class WallClock:
    """The clock on the wall of one zone. A reading is ``[year, month, day, hour, minute, second]``, January being 1."""

    def __init__(self, offset_at: Callable[[int], Offset], start: int) -> None:
        self._offset_at = offset_at
        self._offset = offset_at(start)[0]

    def read(self, moment: int) -> list[int]:
        """The reading at a unix time in seconds."""
        return _reading(moment + self._offset_at(moment)[0])

    def is_dst(self, moment: int) -> bool:
        """Whether daylight-saving time is in force at a unix time in seconds."""
        return self._offset_at(moment)[1]

    def weekday(self, moment: int) -> int:
        """The day of the week at a unix time in seconds; Monday is 0."""
        return time.gmtime(moment + self._offset_at(moment)[0]).tm_wday

    def resolve(self, reading: Sequence[int], dst: bool | None) -> int | None:
        """The unix time at which the clock shows ``reading``, whose month and smaller units may be out of range.

        A reading that does not exist is taken forward by the length of the gap. ``dst`` says which of the zone's two
        clocks is meant. ``None``: no such time.
        """
        wall = _seconds(reading)
        moment = self._settle(wall, dst)
        if moment is not None and dst is not None:
            moment = self._switch(wall, moment, dst)
        if moment is not None:
            self._offset = wall - moment
        return moment

    def _settle(self, wall: int, dst: bool | None) -> int | None:
        """Guess with the last offset, and correct the guess by the offset found there until that changes nothing.

        In a gap this swings between the two sides; then the side that is daylight-saving time is preferred.
        """
        moment = before = before_that = wall - self._offset
        was_dst = False
        for _ in range(_ROUNDS):
            offset, is_dst = self._offset_at(moment)
            if wall - offset == moment:
                return moment
            swinging = moment == before and moment != before_that
            if swinging and (was_dst <= is_dst if dst is None else dst != is_dst):
                return moment
            before, before_that, moment, was_dst = before_that, moment, wall - offset, is_dst
        return None

    def _switch(self, wall: int, moment: int, dst: bool) -> int:
        """Read ``wall`` by the offset of the nearest time at which the clock asked for is in force."""
        if self._offset_at(moment)[1] == dst:
            return moment
        for distance in range(_STRIDE, _REACH, _STRIDE):
            for probe in (moment - distance, moment + distance):
                offset, is_dst = self._offset_at(probe)
                if is_dst == dst:
                    return wall - offset
        return moment - 3600 if dst else moment + 3600


def offsets_of(zone: str | None) -> Callable[[int], Offset]:
    """The offset of UTC, of an IANA zone, or of the process's local time zone (``None``) as a function of unix time.

    Raises ``UsageError`` when this host's time zone database has no such zone.
    """
    if zone is None:
        return _local_offset
    if zone == "UTC":
        return _no_offset
    # Imported only where a zone is named: most declarations name none.
    from zoneinfo import ZoneInfo

    try:
        info = ZoneInfo(zone)
    except (OSError, ValueError, LookupError) as error:
        raise UsageError(
            f"unknown time zone {zone!r}: name UTC, or one of this host's zones such as Europe/Helsinki"
        ) from error

    def offset(moment: int) -> Offset:
        there = datetime.fromtimestamp(moment, info)
        return int((there.utcoffset() or timedelta()).total_seconds()), bool(there.dst())

    return offset


def _local_offset(moment: int) -> Offset:
    local = time.localtime(moment)
    return local.tm_gmtoff, local.tm_isdst > 0


def _no_offset(_moment: int) -> Offset:
    return 0, False


def _seconds(reading: Sequence[int]) -> int:
    year, month, day, hour, minute, second = reading
    years, month = divmod(month - 1, 12)
    days = date(year + years, month + 1, 1).toordinal() - _EPOCH + day - 1
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def _reading(seconds: int) -> list[int]:
    return list(time.gmtime(seconds)[:6])
