"""Counting that survives the wrap of the kernel's counters. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_WIDTH = 1 << 32


class Wrapping:
    """Adds up a 32-bit counter that wraps (``struct pcap_stat``: packet(7) counts in unsigned int)."""

    def __init__(self, first: int = 0) -> None:
        self._last = first % _WIDTH
        self.total = 0

    def advance(self, reading: int) -> int:
        """Take a new reading, at most one wrap after the last; returns by how much it grew."""
        grown = (reading - self._last) % _WIDTH
        self._last = reading % _WIDTH
        self.total += grown
        return grown


class Device:
    """Adds up a counter of a network device: 64 bits wide in sysfs, of which some drivers fill only 32.

    A reading below the last one is a wrap when the counter was in the upper half of 32 bits, else the device began
    anew at zero (driver reloaded, interface created again).
    """

    def __init__(self, first: int) -> None:
        self._last = first

    def advance(self, reading: int) -> int:
        """Take a new reading; returns by how much it grew."""
        last, self._last = self._last, reading
        if reading >= last:
            return reading - last
        if _WIDTH // 2 <= last < _WIDTH:
            return (reading - last) % _WIDTH
        return reading


@dataclass(slots=True)
class Counters:
    """What became of the packets of one interface since the worker started.

    ``received``: let through by the filter, including ``dropped_kernel``, those that found the ring full;
    ``dropped_interface``: lost before the kernel saw them; ``written``: in a segment; ``not_written``: read, but a
    segment would not take them; ``unaccounted``: what is missing of ``received == dropped_kernel + written +
    not_written`` at the ends of segments, where it is held to be 0. ``bytes`` and ``segments`` are what was written and
    into how many segments.
    """

    received: int = 0
    dropped_kernel: int = 0
    dropped_interface: int = 0
    written: int = 0
    not_written: int = 0
    unaccounted: int = 0
    bytes: int = 0
    segments: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.received + other.received,
            self.dropped_kernel + other.dropped_kernel,
            self.dropped_interface + other.dropped_interface,
            self.written + other.written,
            self.not_written + other.not_written,
            self.unaccounted + other.unaccounted,
            self.bytes + other.bytes,
            self.segments + other.segments,
        )
