"""Triggers that are left in a file for the capture to pull."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.workers.capture import handed
from agent.workers.capture.handed import MOST, Handed, Mailbox

SECOND = 1_000_000_000
NOW = 1_795_183_200 * SECOND


class Box:
    """A mailbox, and what was pulled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pulled: list[tuple[str, int]] = []
        self.mailbox = Mailbox(path, lambda reason, at: self.pulled.append((reason, at)))

    def hand(self, *triggers: Handed) -> None:
        handed.write(self.path, triggers, (os.geteuid(), os.getegid()))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "edge.triggers")


def test_each_is_pulled_once_and_none_of_long_ago(box: Box) -> None:
    box.hand(Handed(NOW - 60 * SECOND, "old"), Handed(NOW, "one"))
    box.mailbox.look(NOW - SECOND)
    box.hand(Handed(NOW, "one"), Handed(NOW + SECOND, "two"))
    for _ in range(2):
        box.mailbox.look(NOW - SECOND)
    assert box.pulled == [("one", NOW), ("two", NOW + SECOND)]


def test_a_clock_that_was_set_back_hides_none(box: Box) -> None:
    day = 86_400 * SECOND
    box.hand(Handed(NOW + day, "ahead"))
    box.mailbox.look(NOW + day - SECOND)
    box.hand(Handed(NOW + day, "ahead"), Handed(NOW, "set back"))
    box.mailbox.look(NOW - SECOND)
    assert box.pulled == [("ahead", NOW + day), ("set back", NOW)]


def test_what_cannot_be_read_for_now_is_read_later(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(24, "Too many open files")

    box.hand(Handed(NOW, "one"))
    with monkeypatch.context() as patch:
        patch.setattr(handed, "open_regular", refused)
        box.mailbox.look(0)
    box.mailbox.look(0)
    assert box.pulled == [("one", NOW)]


def test_of_many_the_latest_are_kept_and_what_is_no_list_of_triggers_is_none(box: Box) -> None:
    box.hand(*(Handed(NOW + number, "\udc80" * 9999) for number in range(MOST + 1)))
    assert [one.at for one in handed.read(box.path)] == [NOW + number for number in range(1, MOST + 1)]
    for content in (b"", b"[", b'[{"at": -1, "reason": ""}]', b"\xff", b"[" * 60000):
        box.path.write_bytes(content)
        assert handed.read(box.path) == []
        box.mailbox.look(0)
    assert box.pulled == []
