"""Who is asked odd ports, and which."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.everything import UNLIKELY, suspicious, unlikely


@given(st.binary(max_size=40), st.integers(0, 65_535))
def test_odd_ports_are_the_same_again_and_different_from_each_other(seed: bytes, place: int) -> None:
    ports = unlikely(seed, place)
    assert ports == unlikely(seed, place)
    assert len(set(ports)) == UNLIKELY
    assert all(20_000 <= port < 32_768 for port in ports)


def test_hosts_are_asked_different_ones() -> None:
    assert len({unlikely(b"", place) for place in range(100)}) == 100


def test_suspicious_is_who_has_many_or_nearly_all() -> None:
    assert [suspicious(found, 1000) for found in (0, 20, 99, 100, 1000)] == [False, False, False, True, True]
    assert [suspicious(found, 25) for found in (10, 19, 20, 25)] == [False, False, True, True]
    assert not suspicious(3, 3)
