"""The order of probes: a bijection for every size and seed, made piece by piece."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.permute import Permutation

SIZES = st.integers(1, 3000)


@given(SIZES, st.binary(max_size=40))
def test_every_probe_has_one_place(size: int, seed: bytes) -> None:
    assert sorted(Permutation(size, seed).items(0, size)) == list(range(size))


@given(SIZES, st.binary(max_size=40), st.data())
def test_any_piece_of_the_order_can_be_made_by_itself(size: int, seed: bytes, data: st.DataObject) -> None:
    whole = list(Permutation(size, seed).items(0, size))
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    elsewhere = Permutation(size, seed)
    assert list(elsewhere.items(start, stop)) == whole[start:stop]
    if start < size:
        assert elsewhere[start] == whole[start]


def test_the_order_is_the_same_in_every_version_of_the_program() -> None:
    """A chunk that an older version began is continued by this one."""
    assert list(Permutation(12, b"seed").items(0, 12)) == ORDER


def test_a_full_chunk_is_spread_over_its_hosts() -> None:
    """Of 1,024 hosts with 1,024 ports each no host gets many probes in a row of 1,024, nor is any seed like another."""
    first = [number // 1024 for number in Permutation(1 << 20, b"one").items(0, 1024)]
    assert max(first.count(host) for host in set(first)) <= 12
    assert first != [number // 1024 for number in Permutation(1 << 20, b"two").items(0, 1024)]


@pytest.mark.parametrize("size", [0, -1, (1 << 32) + 1])
def test_a_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="cannot be put in an order"):
        Permutation(size, b"")


@pytest.mark.parametrize("position", [-1, 5])
def test_no_place_beyond_the_end(position: int) -> None:
    with pytest.raises(IndexError):
        Permutation(5, b"")[position]


ORDER = [5, 7, 6, 4, 2, 1, 11, 3, 0, 8, 9, 10]
