"""Sizes and counts as this program says them, to people and in events. Pure."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: float) -> str:
    """Bytes in binary units with three significant digits: ``512 B``, ``21.3 MiB``."""
    value = float(count)
    for unit in _UNITS:
        if abs(value) < 1000 or unit == _UNITS[-1]:
            break
        value /= 1024
    if unit == "B":
        return f"{int(value)} B"
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{decimals}f} {unit}"


def count(number: int, noun: str) -> str:
    """``1 packet``, ``1,234 packets``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
