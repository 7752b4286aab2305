"""What the calendar's tests share: systemd's own answers, generated expressions, and another local time zone."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from calendar import timegm
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Answer(NamedTuple):
    """``systemd-analyze calendar`` on one expression: its normal form, and its elapses in whole unix seconds.

    ``gave_up``: systemd found the expression right, and then failed to compute an elapse.
    """

    normalized: str
    elapses: list[int]
    gave_up: bool = False


@contextmanager
def local_zone(name: str) -> Iterator[None]:
    """Run a block with another local time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


def systemd_answers(zone: str, base: int, expressions: list[str], iterations: int) -> list[Answer | None]:
    """Ask systemd about all ``expressions`` at once; ``None`` where it refuses one."""
    done = analyze(zone, f"@{base}", expressions, iterations)
    circling = set(re.findall(r"^Failed to determine next elapse for '(.*)': Resource deadlock", done.stderr, re.M))
    # One block for each expression, empty if it failed, with one empty line between any two.
    blocks = re.split(r"^\n", done.stdout, flags=re.M)
    assert len(blocks) == len(expressions), done
    return [
        Answer("", [], True) if expression in circling else _read(block, zone)
        for expression, block in zip(expressions, blocks, strict=True)
    ]


def analyze(zone: str, base: str, expressions: list[str], iterations: int) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is the reference of these tests: install the Debian package systemd"
    return subprocess.run(
        [program, "calendar", f"--iterations={iterations}", f"--base-time={base}", "--", *expressions],
        env={"TZ": zone, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def _read(block: str, zone: str) -> Answer | None:
    if not block:
        return None
    normalized = ""
    elapses = []
    for line in block.splitlines():
        label, _, value = line.strip().partition(": ")
        if label == "Normalized form":
            normalized = value
        elif value != "never" and (label == "(in UTC)" or (zone == "UTC" and label.startswith(("Next", "Iter")))):
            elapses.append(timegm(time.strptime(value[4:23], "%Y-%m-%d %H:%M:%S")))
    return Answer(normalized, elapses)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Monday", "tuesday", "WEDNESDAY", "thu")
_ZONES = ("Europe/Helsinki", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Europe/Dublin")
_CLOCKS = ("EET", "EEST", "EST", "EDT", "+11", "+1030")
"""Each is the name of a clock in one of the local zones tested, an IANA zone, or nothing at all, by turns."""


class Expressions:
    """A seeded source of calendar events: mostly right, and now and then out of range."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self._expression()

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _expression(self) -> str:
        parts = [self._weekdays()] if self._chance(0.3) else []
        if not parts or self._chance(0.7):
            parts.append(self._date())
        if self._chance(0.85):
            parts.append(f"{self._field(0, 23, 0.3)}:{self._field(0, 59, 0.2)}{self._seconds()}")
        kind = self._random.random()
        if kind < 0.15:
            parts.append("UTC")
        elif kind < 0.35:
            parts.append(self._random.choice(_ZONES))
        elif kind < 0.4:
            parts.append(self._random.choice(_CLOCKS))
        return " ".join(parts)

    def _weekdays(self) -> str:
        items = []
        for _ in range(self._random.choice((1, 1, 2, 3))):
            if self._chance(0.4):
                first, last = sorted(self._random.sample(range(7), 2))
                items.append(_DAYS[first] + self._random.choice(("..", "..", "-")) + _DAYS[last])
            else:
                items.append(self._random.choice(_DAYS))
        return ",".join(items)

    def _date(self) -> str:
        some = (f"{self._random.randint(2024, 2032)}", f"2024/{self._random.randint(1, 6)}", "2024..2030", "24,28,32")
        year = "*" if self._chance(0.5) else self._random.choice(some)
        day = "~" + self._field(1, 12, 0.1) if self._chance(0.2) else "-" + self._field(1, 31, 0.5)
        return (year + "-" if self._chance(0.8) else "") + self._field(1, 12, 0.6) + day

    def _seconds(self) -> str:
        kind = self._random.random()
        if kind < 0.4:
            return ""
        if kind < 0.5:
            return ":*"
        if kind < 0.75:
            return ":" + self._field(0, 59, 0)
        first, step = self._decimal(0, 30), self._decimal(0.1, 20)
        if kind < 0.85:
            return f":{first}"
        if kind < 0.95:
            return f":{first}/{step}"
        return f":{first}..{self._decimal(31, 60)}/{step}"

    def _decimal(self, low: float, high: float) -> str:
        return f"{self._random.uniform(low, high):.{self._random.randint(1, 7)}f}"

    def _field(self, low: int, high: int, any_of_them: float) -> str:
        if self._chance(any_of_them):
            return "*"
        return ",".join(self._item(low, high) for _ in range(self._random.choice((1, 1, 1, 2, 3))))

    def _item(self, low: int, high: int) -> str:
        first, last = self._random.randint(low, high), self._random.randint(low, high)
        kind = self._random.random()
        if kind < 0.4:
            return self._number(first)
        if kind < 0.6:
            return f"{first}/{self._random.randint(1, (high - low) // 2)}"
        if first > last and self._chance(0.9):
            first, last = last, first
        step = f"/{self._random.randint(1, (high - low) // 3)}" if kind > 0.85 else ""
        return f"{self._number(first)}..{self._number(last)}{step}"

    def _number(self, value: int) -> str:
        return f"{value:02}" if self._chance(0.5) else str(value)
