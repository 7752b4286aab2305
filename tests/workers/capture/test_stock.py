"""How much a store holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import ConfigurationError
from agent.workers.capture import version
from agent.workers.capture.adoption import SLACK
from agent.workers.capture.catalogue import ACCOUNT, INDEX, TAIL
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.retention import Stored
from agent.workers.capture.stock import Held, held, stock, within
from agent.workers.capture.version import is_store

SECOND = 10**9


def put(directory: Path, second: int, suffix: str, size: int) -> None:
    path = directory / "eth0" / segment_name(second * SECOND, suffix)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (second + 5, second + 5))


def test_all_files_count_and_a_segment_ends_when_it_was_written_last(tmp_path: Path) -> None:
    for second, suffix, size in [(1, CLOSED, 100), (1, INDEX, 10), (1, ACCOUNT, 1), (9, OPEN, 50), (9, TAIL, 5)]:
        put(tmp_path, second, suffix, size)
    first = Stored(1 * SECOND, "eth0", 6 * SECOND + SLACK, 111, indexed=True)
    second_one = Stored(9 * SECOND, "eth0", 14 * SECOND + SLACK, 55, indexed=False)
    found = stock(tmp_path)
    assert found == [first, second_one]
    assert held(found) == Held(2, 166, SECOND)
    assert held([]) == Held(0, 0, None)
    assert within(found, 0, 8 * SECOND) == [first]
    assert within(found, 8 * SECOND, 10 * SECOND) == [second_one]


def test_a_store_is_known_by_its_version_or_by_what_is_in_it(tmp_path: Path) -> None:
    assert not is_store(tmp_path)
    assert not is_store(tmp_path / "nowhere")
    (tmp_path / "eth0").mkdir()
    assert is_store(tmp_path)
    version.mark(tmp_path)
    assert is_store(tmp_path)
    (tmp_path / version.FILE).write_text('{"version": 7}')
    with pytest.raises(ConfigurationError, match="of version 7"):
        is_store(tmp_path)
