"""What a member may write, and what it asks for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT
from agent.workers.capture.member import Loan
from agent.workers.capture.naming import CLOSED
from agent.workers.capture.retention import Limits

SECOND = 10**9


class Told:
    def __init__(self, directory: Path) -> None:
        self.events: list[str] = []
        self.closed: list[str] = []
        self.wanted: list[int] = []
        self.loan = Loan(
            directory,
            Limits(1_000_000),
            lambda kind, message: self.events.append(kind),
            lambda path: self.closed.append(path.name),
            self.wanted.append,
        )

    def written(self) -> Path:
        part = self.loan.part("eth0", SECOND)
        part.write_bytes(bytes(500))
        self.loan.grow(part, 500)
        return part


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC])
def test_a_disk_that_is_full_is_the_captures_to_see_to_and_is_tried_again(told: Told, number: int) -> None:
    for _ in range(3):
        assert not told.loan.squeeze(OSError(number, os.strerror(number)), 1000)
    assert told.wanted == [number] * 3
    assert told.loan.make_room(1000) == 1_000_000


def test_another_error_is_nothing_that_room_helps_against(told: Told) -> None:
    assert not told.loan.squeeze(OSError(errno.EIO, "Input/output error"), 1000)
    assert told.wanted == []


def test_a_segment_that_would_not_be_named_is_named_and_told_later_and_is_no_longer_owed(told: Told) -> None:
    part = told.written()
    record = Account(interface="eth0", opened=1, closed=2, written=0, bytes=500, reason="size")
    place = part.parent
    aside = place.rename(place.with_name("aside"))
    with pytest.raises(FileNotFoundError):
        told.loan.keep(part, SECOND, 500, record)
    assert told.loan.bytes == 500
    aside.rename(place)
    told.loan.tend()
    assert told.closed == [part.with_suffix(CLOSED).name]
    assert part.with_suffix(ACCOUNT).exists()
    assert told.loan.bytes == 0
    assert told.events == []
