"""Sizes and counts, as they are said everywhere."""

from __future__ import annotations

import pytest

from agent.declaration.amounts import count, size


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1 << 20, "1.00 MiB"),
        (288.5 * 1024, "288 KiB"),
        (1 << 63, "8.00 EiB"),
    ],
)
def test_a_size_has_three_digits(octets: float, said: str) -> None:
    assert size(octets) == said


def test_a_count_agrees_with_its_noun() -> None:
    assert [count(number, "packet") for number in (0, 1, 1234)] == ["0 packets", "1 packet", "1,234 packets"]
