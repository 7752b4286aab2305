"""What is held of a port and of a host, by scans that do not agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.watch.sources import ENOUGH, Known, Looks, Scanned
from tests.workers.watch.scenes import HOUR, NOW, WEB, known, port, scan

STATES = ("open", "closed", "filtered", "open|filtered", "unfiltered", "unasked", "silent")

Told = tuple[float, str]
"""When it was asked, in hours before ``NOW``, and what was found."""


def look(told: Told) -> Known:
    ago, state = told
    at = NOW - ago * HOUR
    if state == "silent":
        return known(state="down", closed=(), filtered=((80, 80),), at=at)
    return known(*(() if state == "unasked" else (port("tcp/80", state),)), closed=((1, 2),), at=at)


# Hours are whole, so that no look is under way while another one ends.
hours = st.lists(st.integers(1, 99), min_size=6, max_size=6, unique=True)
found = st.lists(st.sampled_from(STATES), min_size=6, max_size=6)


def scans(told: list[Told]) -> Iterator[Scanned]:
    """Three services that looked twice each."""
    for name, two in zip("abc", (told[:2], told[2:4], told[4:]), strict=True):
        before, newest = sorted(two, reverse=True)
        yield scan(replace(look(newest), before=look(before)), service=name)


@given(hours, found)
def test_what_was_found_last_counts_and_what_was_open_is_so_until_two_looks_deny_it(
    ago: list[int], states: list[str]
) -> None:
    told = [(float(hour), state) for hour, state in zip(ago, states, strict=True)]
    services = list(scans(told))
    newest = sorted(min(two) for two in (told[:2], told[2:4], told[4:]))  # the latest first
    asked = [one for one in newest if one[1] != "unasked"]
    opened = next((one for one in asked if one[1] == "open"), None)
    held = Looks(services, NOW).port(WEB, "tcp", 80)
    if not asked:
        assert held is None
        return
    assert held is not None
    denied = [one for one in told if opened and one[0] < opened[0] and one[1] not in ("open", "unfiltered", "unasked")]
    expected = opened if opened is not None and len(denied) < ENOUGH else asked[0]
    assert held.at == NOW - expected[0] * HOUR
    assert held.open == (expected[1] == "open")


@given(hours, found)
def test_a_host_is_down_when_nobody_says_otherwise_or_two_looks_since_and_nothing_of_it_is_open(
    ago: list[int], states: list[str]
) -> None:
    told = [(float(hour), state) for hour, state in zip(ago, states, strict=True)]
    looks = Looks(scans(told), NOW)
    newest = sorted(min(two) for two in (told[:2], told[2:4], told[4:]))
    up = next((one for one in newest if one[1] != "silent"), None)
    down = looks.down(WEB)
    held = looks.port(WEB, "tcp", 80)
    if up is None:
        assert down is not None
    elif held is not None and held.open:
        assert down is None
    else:
        silent = [one for one in told if one[0] < up[0] and one[1] == "silent"]
        assert (down is not None) == (len(silent) >= ENOUGH)
    if down is not None:
        assert down[1].at == NOW - newest[0][0] * HOUR


def test_what_began_before_it_was_found_open_denies_nothing() -> None:
    opened = scan(known(port("tcp/80"), at=NOW - HOUR))
    long = replace(known(at=NOW - HOUR / 2), began=NOW - 3 * HOUR)
    both = Looks((opened, scan(replace(long, before=known(at=NOW - HOUR / 4)), service="other")), NOW)
    held = both.port(WEB, "tcp", 80)
    assert held is not None
    assert held.open
