"""Many events become one message."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.events import Event
from agent.workers.watch.notify_message import (
    MOST_DATA,
    MOST_EVENTS,
    STRETCH,
    complete,
    compose,
    cut,
    ending,
)

TIMES = st.lists(st.floats(0, 1000), max_size=40).map(sorted)


def event(number: int, kind: str = "port_opened", service: str = "lan", message: str = "x", size: int = 0) -> Event:
    return Event(number, 1000.0 + number, service, kind, message, {"x": "y" * size} if size else {})


def split(arrivals: list[float], group: float, now: float) -> list[list[float]]:
    rest, messages = list(arrivals), []
    while number := complete(rest, group, now):
        messages.append(rest[:number])
        rest = rest[number:]
    return messages


def test_a_switch_that_falls_is_one_message() -> None:
    arrivals = [10 + number / 20 for number in range(1000)]  # 1000 events in 50 s
    assert complete(arrivals, 30, 61) == 0
    assert split(arrivals, 30, 60 + 30) == [arrivals]


def test_what_never_stops_is_told_of_all_the_same() -> None:
    arrivals = [float(number) for number in range(1000)]
    messages = split(arrivals, 30, 1000)
    assert {len(message) for message in messages} == {STRETCH * 30}


def test_without_grouping_each_event_is_a_message() -> None:
    assert split([1.0, 1.0, 2.0], 0, 2) == [[1.0], [1.0], [2.0]]


@given(TIMES, st.floats(0, 50), st.floats(0, 2000))
def test_each_event_is_in_one_message_and_each_message_within_its_time(
    arrivals: list[float], group: float, now: float
) -> None:
    arrivals = [arrival for arrival in arrivals if arrival <= now]
    messages = split(arrivals, group, now)
    told = [arrival for message in messages for arrival in message]
    assert told == arrivals[: len(told)]
    for message in messages:
        assert message[-1] - message[0] <= STRETCH * group
        assert all(later - earlier <= group for earlier, later in pairwise(message))
    rest = arrivals[len(told) :]
    if rest:
        last = rest[0]
        for arrival in rest:
            if arrival < ending(rest[0], last, group):
                last = arrival
        assert now < ending(rest[0], last, group)


@given(TIMES.filter(bool), st.floats(0.1, 50), st.lists(st.floats(0, 2000), max_size=10).map(sorted))
def test_it_does_not_matter_when_it_is_looked(arrivals: list[float], group: float, looks: list[float]) -> None:
    """A watch that was away comes to the same messages as one that looked all the time."""
    messages: list[list[float]] = []
    rest: list[float] = []
    coming = list(arrivals)
    for now in [*looks, 3000.0]:
        rest += [arrival for arrival in coming if arrival <= now]
        coming = [arrival for arrival in coming if arrival > now]
        found = split(rest, group, now)
        messages += found
        rest = rest[sum(map(len, found)) :]
    assert messages == split(arrivals, group, 3000.0)


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    assert complete([10_000.0, 10_001.0], 30, 100) == 2


def test_a_message_says_what_happened_and_of_what_most() -> None:
    events = [event(number) for number in range(200)] + [event(200, "scan_failed"), event(201, "hung", "api")]
    message = compose("hel1", "ops", events, 3, 5000.0)
    assert message["severity"] == "err"
    assert (message["count"], message["left_out"], len(message["events"])) == (205, 155, MOST_EVENTS)
    assert message["by"] == [
        {"service": "lan", "kind": "scan_failed", "severity": "err", "count": 1},
        {"service": "api", "kind": "hung", "severity": "warning", "count": 1},
        {"service": "lan", "kind": "port_opened", "severity": "notice", "count": 200},
    ]
    assert message["text"] == (
        "hel1: 205 events, err at worst: 1 × lan scan_failed, 1 × api hung, 200 × lan port_opened"
    )
    assert [one["kind"] for one in message["events"][-2:]] == ["scan_failed", "hung"]
    assert (message["from"], message["to"], message["created"]) == (1000.0, 1201.0, 5000.0)


def test_one_event_speaks_for_itself() -> None:
    message = compose("hel1", "ops", [event(1, "hung", "api", "silent for 30 s\x1b[2J\nBcc: x")], 0, 5.0)
    assert message["text"] == "hel1: api hung: silent for 30 s\\x1b[2J\\nBcc: x"
    assert message["events"][0]["message"] == "silent for 30 s\\x1b[2J\\nBcc: x"


def test_a_message_has_an_id_that_follows_from_its_events() -> None:
    events = [event(1), event(2)]
    assert compose("a", "ops", events, 0, 1.0)["id"] == compose("a", "ops", events, 9, 2.0)["id"]
    others = [("b", "ops", events), ("a", "mail", events), ("a", "ops", events[:1])]
    assert len({compose(*one, 0, 1.0)["id"] for one in others} | {compose("a", "ops", events, 0, 1.0)["id"]}) == 4


def test_a_message_is_bounded_whatever_is_in_its_events() -> None:
    events = [event(number, message="\U0001f525" * 4096, size=16_000) for number in range(5000)]
    message = compose("s" * 253, "n" * 63, events, 0, 1.0)
    assert len(msgspec.json.encode(message)) < MOST_DATA + MOST_EVENTS * 2500
    assert sum(bool(one["data"]) for one in message["events"]) == 4


@given(st.text(max_size=700))
def test_what_is_cut_is_one_printable_line(text: str) -> None:
    assert cut(text).isprintable()
    assert len(cut(text)) <= 300
