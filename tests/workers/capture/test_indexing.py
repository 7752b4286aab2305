"""An index process that dies twice over one segment is told to leave that one."""

from __future__ import annotations

import asyncio

from agent.workers.capture.indexing import SEGMENT, SINCE, SUSPECT, Indexing

TOLD = {SINCE: "7"}


def starts(*said: str) -> list[dict[str, str]]:
    """What each start after the first is told, when this was said last before each end."""

    async def begun() -> list[dict[str, str]]:
        indexing = Indexing(lambda kind, message: None, 7)
        told = []
        for text in said:
            indexing._companion.said[SEGMENT] = text
            told.append(dict(indexing._variables()))
        return told

    return asyncio.run(begun())


def test_the_same_segment_twice_in_a_row_is_suspect() -> None:
    assert starts("1:7", "1:7", "1:7") == [TOLD, TOLD | {SUSPECT: "1:7"}, TOLD | {SUSPECT: "1:7"}]


def test_another_segment_each_time_is_none() -> None:
    assert starts("1:7", "1:8", "1:7") == [TOLD] * 3


def test_one_that_ended_between_two_segments_suspects_none() -> None:
    assert starts("", "", "1:7", "") == [TOLD] * 4
