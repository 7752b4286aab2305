"""What waits for a neighbour is sent or answered once the kernel knows, and nothing gets lost in between."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan import onlink
from agent.workers.scan.onlink import OnLink

places = st.integers(0, 3)
events = st.lists(
    st.tuples(st.just("ask"), places, st.integers(1, 9)) | st.tuples(st.just("decided"), places, st.booleans()),
    max_size=60,
)


@given(events)
def test_every_probe_has_one_fate(happened: list[tuple[str, int, int]]) -> None:
    link, looking, fates = OnLink(), set[int](), Counter[str]()
    held: Counter[tuple[int, int]] = Counter()
    for now, (what, place, value) in enumerate(happened):
        if what == "ask":
            verdict = link.ask(place, value, float(now))
            fates[verdict] += 1
            if verdict == "held":
                held[place, value] += 1
            assert (verdict == "held") == (place in looking)
            if verdict == "look":
                looking.add(place)
        else:
            waited = Counter((place, port) for port in link.decided(place, float(now), there=bool(value)))
            assert waited == Counter({probe: times for probe, times in held.items() if probe[0] == place})
            held -= waited
            looking.discard(place)
        assert link.held == held.total()


def test_who_was_not_there_is_believed_for_a_while() -> None:
    link = OnLink()
    assert link.ask(0, 80, 0.0) == "look"
    assert link.ask(0, 81, 0.0) == "held"
    assert link.decided(0, 1.0, there=False) == [81]
    assert link.ask(0, 80, 0.9 + onlink.ABSENT) == "absent"
    assert link.ask(0, 80, 1.0 + onlink.ABSENT) == "look"
    link.decided(0, 20.0, there=True)
    assert link.ask(0, 80, 20.0) == "look"


def test_there_is_room_for_so_many_and_no_more() -> None:
    link = OnLink()
    assert link.ask(0, 1, 0.0) == "look"
    assert {link.ask(0, 1, 0.0) for _ in range(onlink.HELD)} == {"held"}
    assert link.ask(0, 1, 0.0) == "full"
    link.forget()
    assert link.held == 0
    assert link.ask(0, 1, 0.0) == "look"


def test_a_search_that_takes_too_long_is_asked_about_again_and_again() -> None:
    link = OnLink()
    link.ask(0, 1, 0.0)
    link.ask(1, 1, 1.0)
    assert [*link.late(4.9)] == []
    assert [*link.late(5.0)] == [0]
    assert [*link.late(5.5)] == []
    assert [*link.late(6.0)] == [1]
    assert [*link.late(10.0)] == [0]
