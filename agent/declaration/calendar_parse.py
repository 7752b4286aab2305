"""``Mon..Fri *-*-* 02:30 Europe/Helsinki``: the grammar of calendar events of systemd.time(7), as systemd 252 has it.

That includes what its manual leaves out: ``@`` with a unix time, ``Mon-Fri`` for ``Mon..Fri``, a weekday list that ends
in a comma, and the names of the local zone's own clocks (``EET``, ``EEST``) as time zones.
"""

from __future__ import annotations

import time

import msgspec

from agent.declaration.calendar import Calendar, Span, local_zone_names
from agent.declaration.calendar_search import LAST_YEAR, MICROSECONDS
from agent.declaration.wall_clock import offsets_of
from agent.errors import UsageError

_FIRST_YEAR = 1970
_LAST_SECOND = 7_258_118_399
"""The end of 2199, UTC."""
_LIMITS = {
    "year": (_FIRST_YEAR, LAST_YEAR, 1),
    "month": (1, 12, 1),
    "day": (1, 31, 1),
    "last day": (1, 28, 1),
    "hour": (0, 23, 1),
    "minute": (0, 59, 1),
    "second": (0, 59, MICROSECONDS),
}
"""The smallest and largest value of each unit, and how many steps one is stored as."""
_MOST_ITEMS = 241
"""The longest list systemd takes."""
_LARGEST = 2**31 - 1
_MOST_DIGITS = 12
_LONGEST = 8192
_SHOWN = 80

_EXAMPLE = "'Mon..Fri *-*-* 02:30' or 'daily'"
_ZERO = (Span(0),)
_MIDNIGHT = Calendar(hours=_ZERO, minutes=_ZERO)
_NEW_YEAR = Calendar(months=(Span(1),), days=(Span(1),), hours=_ZERO, minutes=_ZERO)
_HALF_YEARS = Calendar(months=(Span(1), Span(7)), days=(Span(1),), hours=_ZERO, minutes=_ZERO)

_WORDS = {
    "minutely": Calendar(),
    "hourly": Calendar(minutes=_ZERO),
    "daily": _MIDNIGHT,
    "weekly": Calendar(weekdays=(0,), hours=_ZERO, minutes=_ZERO),
    "monthly": Calendar(days=(Span(1),), hours=_ZERO, minutes=_ZERO),
    "quarterly": Calendar(months=(Span(1), Span(4), Span(7), Span(10)), days=(Span(1),), hours=_ZERO, minutes=_ZERO),
    "semiannually": _HALF_YEARS,
    "semi-annually": _HALF_YEARS,
    "biannually": _HALF_YEARS,
    "bi-annually": _HALF_YEARS,
    "yearly": _NEW_YEAR,
    "annually": _NEW_YEAR,
    "anually": _NEW_YEAR,
}

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DIGITS = "0123456789"
_ZONE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_+/"


def parse_calendar(text: str) -> Calendar:
    """Read one calendar event. Raises ``UsageError``: one line with the part that is wrong and what would be right."""
    if len(text) > _LONGEST or not text.isascii() or not text.isprintable():
        raise _error(text, f"must be at most {_LONGEST} printable ASCII characters, such as {_EXAMPLE}")
    event, zone, dst = _split_zone(text)
    if event.lower() in _WORDS:
        return msgspec.structs.replace(_WORDS[event.lower()], zone=zone, dst=dst)
    return _Parser(text, event, zone, dst).parse()


def _error(text: str, what: str) -> UsageError:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return UsageError(f"calendar {shown!r}: {what}")


def _split_zone(text: str) -> tuple[str, str | None, bool | None]:
    """Take a time zone off the end: ``UTC``, a name of the local zone's own clocks, or an IANA name."""
    event, space, zone = text.rpartition(" ")
    if space and zone.lower() == "utc":
        return event, "UTC", None
    for name, dst in zip(local_zone_names(), (False, True), strict=True):
        if event and zone.lower() == name.lower():
            return event, None, dst
    if space and _is_zone(zone):
        return event, zone, None
    return text, None, None


def _is_zone(name: str) -> bool:
    """Whether this host knows the zone. Looks no further at what cannot be one, to leave the database alone."""
    if not any(character.isalpha() for character in name) or not all(character in _ZONE for character in name):
        return False
    try:
        offsets_of(name)
    except UsageError:
        return False
    return True


class _Parser:
    """Reads from left to right; ``_at`` is how far it has come."""

    def __init__(self, text: str, event: str, zone: str | None, dst: bool | None) -> None:
        self._text = text
        self._event = event
        self._zone = zone
        self._dst = dst
        self._at = 0

    def parse(self) -> Calendar:
        if not self._event:
            raise self._fail(f"is empty; write for example {_EXAMPLE}")
        weekdays = self._weekdays()
        if self._take("@"):
            return self._unix_time(weekdays)
        years, months, days, from_month_end = self._date()
        hours, minutes, microseconds = self._time()
        return Calendar(
            weekdays=weekdays,
            years=self._checked("year", years),
            months=self._checked("month", months),
            days=self._checked("last day" if from_month_end else "day", days),
            from_month_end=from_month_end and bool(days),
            hours=self._checked("hour", hours),
            minutes=self._checked("minute", minutes),
            microseconds=self._checked("second", microseconds),
            zone=self._zone,
            dst=self._dst,
        )

    def _weekdays(self) -> tuple[int, ...]:
        """Names in a list or in ranges. All seven are none: every day. A comma may end the list."""
        found: set[int] = set()
        start: int | None = None
        while (day := self._weekday_name()) is not None:
            if start is not None and start > day:
                raise self._fail(
                    f"a range of weekdays goes from Monday towards Sunday; list the days instead{self._here()}"
                )
            found.update(range(day if start is None else start, day + 1))
            if self._peek() in ("", " "):
                self._blanks()
                break
            opened = start is not None
            start = day if self._take("..") or self._take("-") else None
            if (start is None and not self._take(",")) or (start is not None and opened):
                raise self._fail(f"weekdays are written like Mon,Wed or Mon..Fri, then a space{self._here()}")
            if self._peek() in ("", " "):
                if start is not None:
                    raise self._fail("a range of weekdays has no end; write for example Mon..Fri")
                self._blanks()
                break
        else:
            if found:
                raise self._fail(f"expected a weekday (Mon Tue Wed Thu Fri Sat Sun){self._here()}")
        return tuple(sorted(found)) if len(found) < len(_WEEKDAYS) else ()

    def _weekday_name(self) -> int | None:
        rest = self._event[self._at : self._at + 9].lower()
        for number, name in enumerate(_WEEKDAYS):
            for form in (name, name[:3]):
                if rest.startswith(form):
                    self._at += len(form)
                    if self._peek() not in ("", "-", ".", ",", " "):
                        raise self._fail(f"weekdays are written Mon or Monday{self._here()}")
                    return number
        return None

    def _unix_time(self, weekdays: tuple[int, ...]) -> Calendar:
        """What follows ``@``: seconds since the epoch, with the sign and blanks that C's ``strtoul`` takes."""
        self._blanks()
        negative = self._take("-")
        if not negative:
            self._take("+")
        second = self._digits("a unix time")
        if self._peek():
            raise self._fail(f"nothing but a time zone can follow a unix time{self._here()}")
        if second > _LAST_SECOND or (negative and second):
            raise self._fail(f"a unix time is 0 to {_LAST_SECOND} (the years {_FIRST_YEAR} to {LAST_YEAR})")
        moment = time.gmtime(second)
        year, month, day, hour, minute = ((Span(value),) for value in moment[:5])
        microseconds = (Span(moment.tm_sec * MICROSECONDS),)
        return Calendar(weekdays, year, month, day, False, hour, minute, microseconds, "UTC")

    def _date(self) -> tuple[list[Span], list[Span], list[Span], bool]:
        """Year, month and day, or month and day, or nothing when a time comes first."""
        begin = self._at
        if not self._peek():
            return [], [], [], False
        first = self._list()
        if self._peek() in ("", ":"):
            self._at = begin
            return [], [], [], False
        from_month_end = self._date_separator()
        second = self._list()
        if self._peek() in ("", " "):
            self._blanks()
            return [], first, second, from_month_end
        if from_month_end:
            raise self._fail(f"~ stands before the day: month~day or year-month~day{self._here()}")
        from_month_end = self._date_separator()
        third = self._list()
        if self._peek() not in ("", " "):
            raise self._fail(f"expected a space after the date{self._here()}")
        self._blanks()
        return first, second, third, from_month_end

    def _date_separator(self) -> bool:
        """Whether it is ``~``, which counts days from the end of the month."""
        if self._take("~"):
            return True
        if not self._take("-"):
            raise self._fail(
                f"expected a date like *-*-01 or a time like 02:30, with {_EXAMPLE} as examples{self._here()}"
            )
        return False

    def _time(self) -> tuple[list[Span], list[Span], list[Span]]:
        """Hour and minute, perhaps seconds. No time at all is midnight."""
        if not self._peek():
            return [Span(0)], [Span(0)], [Span(0)]
        hours = self._list()
        if not self._take(":"):
            raise self._fail(f"expected a time like 02:30{self._here()}")
        minutes = self._list()
        if not self._peek():
            return hours, minutes, [Span(0)]
        if not self._take(":"):
            raise self._fail(f"expected the end, a time zone of this host, or :seconds{self._here()}")
        microseconds = self._list(MICROSECONDS)
        if self._peek():
            raise self._fail(f"expected the end or a time zone of this host after the seconds{self._here()}")
        return hours, minutes, microseconds

    def _list(self, scale: int = 1) -> list[Span]:
        """``*`` or items with commas between. ``scale`` other than 1 takes decimal fractions."""
        if self._take("*"):
            return [] if scale == 1 else [Span(0, None, scale)]
        spans = [self._item(scale)]
        while self._take(","):
            if len(spans) == _MOST_ITEMS:
                raise self._fail(f"a list has at most {_MOST_ITEMS} items; use ranges and steps")
            spans.append(self._item(scale))
        return spans

    def _item(self, scale: int) -> Span:
        first = self._number(scale)
        last: int | None = None
        step = 0
        if self._take(".."):
            last = self._number(scale)
            step = scale
        if self._take("/"):
            step = self._number(scale)
            if step == 0:
                raise self._fail("a step (after /) is at least 1")
        elif scale != 1 and last is not None and first + step > last:
            raise self._fail("a range of seconds spans at least one second, or names its step (after /)")
        if self._peek() not in ("", " ", ",", "-", "~", ":"):
            raise self._fail(f"expected numbers, lists (1,2), ranges (1..5), steps (0/15) or *{self._here()}")
        return Span(first, last, step)

    def _number(self, scale: int) -> int:
        value = self._digits("a number or *") * scale
        if scale != 1 and self._peek() == "." and not self._event.startswith("..", self._at):
            self._at += 1
            begin = self._at
            self._digits("digits after the decimal point")
            fraction = self._event[begin : self._at]
            # Rounded half up at the seventh digit; what comes after that does not count.
            value += (int(fraction[:7].ljust(7, "0")) + 5) // 10
        if value > _LARGEST:
            raise self._fail("a number is too large")
        return value

    def _digits(self, expected: str) -> int:
        begin = self._at
        while self._peek() and self._peek() in _DIGITS:
            self._at += 1
        digits = self._event[begin : self._at].lstrip("0")
        if begin == self._at:
            raise self._fail(f"expected {expected}{self._here()}")
        return int(digits or "0") if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS

    def _checked(self, unit: str, spans: list[Span]) -> tuple[Span, ...]:
        """Put a field into its normal form, and see that every item of it lies within the field and can match."""
        low, high, scale = _LIMITS[unit]
        if unit == "year":
            spans = [_with_full_years(span) for span in spans]
        checked = set()
        for span in spans:
            first, last, step = span.first, span.last, span.step
            if last is not None and last > first:
                last -= (last - first) % step
            if last == first:
                # Nothing to repeat: a single value, however it was written.
                last, step = None, 0
            for value in (first, first if last is None else last):
                if not low * scale <= value < (high + 1) * scale:
                    shown = f"{value / scale:g}"
                    raise self._fail(f"{unit} {shown} is out of range, which is {low} to {high}")
            if last is not None and first + step > last:
                raise self._fail(f"a range of {unit}s runs from small to large and is at least one step long")
            reach = first - low * scale if unit == "last day" else (high + 1) * scale - 1 - first
            if step > (high + 1 - low) * scale - 1 or (last is None and step > reach):
                raise self._fail(
                    f"a step of {step / scale:g} from {unit} {first / scale:g} never comes to a second match"
                )
            checked.add((first, -1 if last is None else last, step))
        return tuple(Span(first, None if last < 0 else last, step) for first, last, step in sorted(checked))

    def _fail(self, what: str) -> UsageError:
        return _error(self._text, what)

    def _here(self) -> str:
        rest = self._event[self._at : self._at + _SHOWN]
        return f", not {rest!r}" if rest else ", not the end"

    def _peek(self) -> str:
        return self._event[self._at : self._at + 1]

    def _take(self, token: str) -> bool:
        taken = self._event.startswith(token, self._at)
        if taken:
            self._at += len(token)
        return taken

    def _blanks(self) -> None:
        while self._take(" "):
            pass


def _with_full_years(span: Span) -> Span:
    return Span(_full_year(span.first), None if span.last is None else _full_year(span.last), span.step)


def _full_year(year: int) -> int:
    """Two digits are 1970 to 2069."""
    return year + 2000 if year < 70 else year + 1900 if year < 100 else year
