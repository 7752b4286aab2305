"""So many packets in a second of packet time, and so much of a processor, whatever the times say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.inventory.rate import PER_SECOND, Processor, Rate

SECOND = 1_000_000_000


def taken(rate: Rate, times: list[int], kind: str = "arp", interface: str = "eth0") -> int:
    return sum(rate.take(interface, kind, time) for time in times)


def test_after_a_pause_twice_as_many_at_once_and_then_the_rate() -> None:
    rate = Rate({"arp": 10})
    assert taken(rate, [0] * 100) == 20
    assert taken(rate, [SECOND * tenth // 10 for tenth in range(1, 101) for _ in range(5)]) == 100


def test_kinds_and_interfaces_do_not_take_from_each_other() -> None:
    rate = Rate({"arp": 10, "dns": 10})
    assert taken(rate, [0] * 100) == taken(rate, [0] * 100, "dns") == taken(rate, [0] * 100, "arp", "eth1") == 20


def test_a_clock_that_was_set_back_does_not_stop_it() -> None:
    rate = Rate({"arp": 10})
    taken(rate, [3600 * SECOND] * 100)
    assert taken(rate, [SECOND * tenth // 10 for tenth in range(100)]) >= 90


@given(st.lists(st.integers(0, 10 * SECOND), max_size=300))
def test_never_more_than_the_rate_while_time_goes_forward(times: list[int]) -> None:
    rate = Rate({"arp": 5})
    times.sort()
    span = (times[-1] - times[0]) / SECOND if times else 0
    assert taken(rate, times) <= 10 + 5 * span + 1


def test_interfaces_that_come_and_go_do_not_add_up() -> None:
    rate = Rate()
    for number in range(2000):
        assert rate.take(f"veth{number}", "arp", 0)
    assert len(rate._buckets) <= 64 * len(PER_SECOND)


def test_a_share_of_a_processor_is_spent_and_comes_back_with_time() -> None:
    processor = Processor(share=0.5, most=2.0)
    assert processor.allows(100.0)
    processor.spend(1.5)
    assert not processor.allows(100.0)
    assert not processor.allows(101.0)
    assert processor.allows(101.1)


def test_a_long_pause_does_not_save_up() -> None:
    processor = Processor(share=0.5, most=2.0)
    assert processor.allows(0.0)
    assert processor.allows(1e6)
    processor.spend(1.0)
    assert not processor.allows(1e6)
