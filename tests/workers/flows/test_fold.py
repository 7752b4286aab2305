"""Bounded totals."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.flows.fold import Fold
from agent.workers.flows.table import Table


def rows(keys: list[int]) -> Table:
    key = np.zeros((len(keys), 6), np.uint64)
    key[:, 0] = keys
    ones = np.ones(len(keys), np.uint64)
    return Table(key, ones.astype(np.uint16), ones, ones, ones, np.array(keys, np.uint64) + np.uint64(60))


@given(st.lists(st.lists(st.integers(0, 40), max_size=40), max_size=8), st.integers(2, 30))
def test_no_more_flows_are_kept_than_there_is_room_for_and_the_rest_is_handed_out(
    batches: list[list[int]], room: int
) -> None:
    gone: list[Table] = []
    fold = Fold(gone.append, room)
    for keys in batches:
        fold.add(rows(keys))
        fold.table()
    kept = fold.table()
    assert len(kept) <= room
    assert int(kept.packets.sum()) + sum(int(one.packets.sum()) for one in gone) == sum(map(len, batches))
    if not gone:
        assert sorted(kept.key[:, 0].tolist()) == sorted({key for keys in batches for key in keys})


def test_rows_of_few_flows_take_no_more_room_than_these() -> None:
    gone: list[Table] = []
    fold = Fold(gone.append, 7)
    for _ in range(200):
        fold.add(rows([number % 7 for number in range(700)]))
    assert fold.table().packets.tolist() == [20_000] * 7
    assert not gone
