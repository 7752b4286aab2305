"""Pins: spans of time whose packets are to stay when others go.

A pin is a file of the store, ``pin-ID.json``, written whole or not at all by whoever sets it; the capture finds it by
itself, and a reader needs nobody to ask. It keeps every segment that may hold a packet of its span, of all interfaces.
A span may reach into the future.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import msgspec

from agent.errors import StorageFailure
from agent.linux.files import edition, open_regular, why

MOST = 1000
"""Pins of one store. More are not set, and not looked at."""

LONGEST_REASON = 500
"""Characters."""

LARGEST = 2**63 - 1
"""Nanoseconds since the epoch, in the year 2262: no instant is later."""

TRIGGER = "trigger"
"""Who set a pin that a trigger was pulled for."""

Instant = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""Nanoseconds since the epoch."""


class TooMany(StorageFailure):
    """No more pins are kept."""


#: ``report(kind, message)``: something happened that the operator should know.
Report = Callable[[str, str], None]

_NAME = re.compile(r"pin-([0-9a-z]{9})\.json", re.ASCII)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LONGEST = 16384
_TOLD = 64  # characters of a reason, in the message of an event
_MILLISECOND = 1_000_000
_TICK = 100_000_000
_SCRATCH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """Keep what was captured ``from`` here ``to`` there, both included; nanoseconds since the epoch.

    ``id`` sorts as ``created`` does, also nanoseconds. ``by`` is the name of the user who set it.
    """

    id: str
    begin: Instant = msgspec.field(name="from")
    end: Instant = msgspec.field(name="to")
    created: Instant
    reason: str = ""
    by: str = ""


def pin_id(instant: int) -> str:
    """The id of a pin set at ``instant``: its millisecond in nine digits to the base 36, enough for 3,000 years."""
    number, digits = instant // _MILLISECOND, ""
    for _ in range(9):
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def names(directory: Path) -> list[str]:
    """The ids of all pins of a store, oldest first. Raises ``OSError``."""
    with os.scandir(directory) as entries:
        return sorted(found[1] for entry in entries if (found := _NAME.fullmatch(entry.name)))


def path(directory: Path, name: str) -> Path:
    """The file of the pin with that id."""
    return directory / f"pin-{name}.json"


def read(directory: Path, name: str) -> Pin | None:
    """The pin with that id; ``None`` when it is gone, or holds what cannot be understood."""
    try:
        with os.fdopen(open_regular(path(directory, name), os.O_RDONLY), "rb") as file:
            pin = msgspec.json.decode(file.read(_LONGEST), type=Pin)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return pin if pin.id == name and pin.begin <= pin.end else None


def read_all(directory: Path) -> list[Pin]:
    """The pins of a store, oldest first, as many as may be set. Raises ``StorageFailure``."""
    try:
        found = names(directory)[:MOST]
    except OSError as error:
        raise StorageFailure(f"pins in {directory} cannot be read: {error.strerror}") from error
    return [pin for name in found if (pin := read(directory, name)) is not None]


def add(
    directory: Path, begin: int, end: int, *, created: int, reason: str = "", by: str = "", durable: bool = True
) -> Pin:
    """Set a pin; a ``durable`` one outlives a power failure, and takes as long as the disk.

    One that root sets is the store's owner's, who is to read it. Raises ``StorageFailure`` when it cannot be written,
    and ``TooMany``.
    """
    begin, end = (min(max(0, instant), LARGEST) for instant in (begin, end))
    reason, by = (text.encode(errors="replace").decode() for text in (reason, by))  # no lone halves, for JSON
    try:
        if len(names(directory)) >= MOST:
            raise TooMany(f"{directory} has {MOST} pins, and no more are kept; unpin what nobody needs any more")
        while True:
            pin = Pin(id=pin_id(created), begin=begin, end=end, created=created, reason=reason, by=by)
            try:
                _write_new(path(directory, pin.id), msgspec.json.encode(pin) + b"\n", durable)
            except FileExistsError:  # set in the same millisecond
                created += _MILLISECOND
            else:
                return pin
    except OSError as error:
        raise StorageFailure(f"{directory}: no pin can be set: {why(error)}") from error


def remove(directory: Path, name: str) -> bool:
    """Take a pin back; ``False`` when there is none of that id. Raises ``StorageFailure``."""
    if not _NAME.fullmatch(f"pin-{name}.json"):
        return False
    try:
        path(directory, name).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageFailure(f"{path(directory, name)}: cannot be removed: {why(error)}") from error
    return True


def _write_new(final: Path, content: bytes, durable: bool) -> None:
    """Make a file that is not there yet, whole. Raises ``OSError``."""
    scratch = final.with_name(f".{final.name}.{os.urandom(4).hex()}")
    fd = os.open(scratch, _SCRATCH, 0o640)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            if os.geteuid() == 0 and (whose := final.parent.stat()).st_uid != 0:
                os.fchown(fd, whose.st_uid, whose.st_gid)
            if durable:
                file.flush()
                os.fsync(fd)
        os.link(scratch, final)  # unlike rename(2), this never replaces another
    finally:
        with suppress(OSError):
            scratch.unlink()


def expire(directory: Path, pins: Iterable[Pin], since: int) -> list[str]:
    """Remove those of ``pins`` that a trigger set and that end before ``since``; returns their ids.

    Nothing is stored from before that instant, so they keep nothing. What a person has set, a person takes back. Raises
    ``StorageFailure``.
    """
    gone = [pin.id for pin in pins if pin.by == TRIGGER and pin.end < since]
    return [name for name in gone if remove(directory, name)]


class Ranges:
    """Which spans are pinned. ``touch`` is quick however many pins there are."""

    def __init__(self, pins: Iterable[Pin] = ()) -> None:
        self._pins = sorted(pins, key=lambda pin: pin.begin)
        self._begins = [pin.begin for pin in self._pins]
        self._ends = list(accumulate((pin.end for pin in self._pins), max))  # the latest end of all up to here

    def __len__(self) -> int:
        return len(self._pins)

    def __iter__(self) -> Iterator[Pin]:
        return iter(self._pins)

    def touch(self, begin: int, end: int) -> bool:
        """Whether a pin has an instant of ``begin..end`` in its span."""
        before = bisect_right(self._begins, end)
        return before > 0 and self._ends[before - 1] >= begin

    def touching(self, begin: int, end: int) -> list[Pin]:
        """The pins that do, oldest first."""
        return sorted((pin for pin in self._pins if pin.begin <= end and pin.end >= begin), key=lambda pin: pin.id)


class Watch:
    """The pins of one store as they come and go, looked at often and cheaply: by the directory's time."""

    def __init__(self, directory: Path, report: Report) -> None:
        self.ranges = Ranges()
        self._directory = directory
        self._report = report
        self._seen: int | None = None
        self._pins: dict[str, tuple[tuple[int, int, int] | None, Pin | None]] = {}
        self._too_many = False
        self._broken: set[str] = set()

    def look(self, now: int) -> bool:
        """Read what is new at ``now``, nanoseconds since the epoch; returns whether there are other pins than before.

        What cannot be read is reported once. While the directory cannot, the pins are those of before.
        """
        try:
            modified = self._directory.stat().st_mtime_ns
            if modified == self._seen:
                return False
            found = names(self._directory)
        except OSError:
            return False
        # Within one tick of its coarse clock a directory may change again and not look it.
        self._seen = modified if abs(now - modified) > _TICK else None
        before = self._pins
        self._pins = {name: self._edition(name, before.get(name)) for name in found[:MOST]}
        if (too_many := len(found) > MOST) and not self._too_many:
            self._report("pin_unreadable", f"{len(found)} pins are too many; the oldest {MOST} count")
        self._too_many = too_many
        if self._pins == before:
            return False
        self.ranges = Ranges(pin for _, pin in self._pins.values() if pin is not None)
        return True

    def broken(self, begin: int, end: int) -> None:
        """Packets of ``begin..end`` go in spite of all pins: tell of each once."""
        for pin in self.ranges.touching(begin, end):
            if pin.id not in self._broken:
                self._broken = {each.id for each in self.ranges if each.id in self._broken} | {pin.id}
                reason = f" ({pin.reason[:_TOLD]})" if pin.reason else ""
                self._report("pin_broken", f"pin {pin.id}{reason}: its oldest packets go, for nothing else is left to")

    def _edition(
        self, name: str, before: tuple[tuple[int, int, int] | None, Pin | None] | None
    ) -> tuple[tuple[int, int, int] | None, Pin | None]:
        file = path(self._directory, name)
        current = edition(file)
        if before is not None and before[0] == current:
            return before
        pin = read(self._directory, name)
        if pin is None and current is not None:
            self._report("pin_unreadable", f"{file.name}: cannot be understood, and pins nothing")
        return current, pin
