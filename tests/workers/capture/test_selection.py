"""Which interfaces are captured, by what is declared and what is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.selection import matched, named, open_ended

HOST = ["any", "br0", "eth0", "eth1", "eth1.100", "eth3", "lo", "wg0", "dbus-system"]


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (["eth*"], ["eth0", "eth1", "eth1.100", "eth3"]),
        (["eth*", "!eth3"], ["eth0", "eth1", "eth1.100"]),
        (["eth?"], ["eth0", "eth1", "eth3"]),
        (["eth1.*"], ["eth1.100"]),
        (["[!l]*", "!eth*"], ["br0", "dbus-system", "wg0"]),
        (["*", "!eth*", "!dbus*"], ["br0", "lo", "wg0"]),
        (["eth0", "eth*"], ["eth1", "eth1.100", "eth3"]),  # eth0 is captured by its name
        (["wlan*"], []),
        (["eth0"], []),
        (["any*"], []),
    ],
)
def test_patterns_match_what_they_say(declared: list[str], found: list[str]) -> None:
    assert matched(declared, HOST) == found


def test_a_name_is_captured_unless_it_is_left_out() -> None:
    declared = ["eth0", "eth3", "wg*", "!eth3"]
    assert (named(declared), open_ended(declared)) == (["eth0"], ["wg*"])
    assert named(["any", "lo"]) == ["any", "lo"]


@given(st.lists(st.text("abe*?[]!0", min_size=1, max_size=6), max_size=6), st.lists(st.text("abe0", max_size=5)))
def test_nothing_is_captured_twice_nor_what_is_not_there(declared: list[str], present: list[str]) -> None:
    found = matched(declared, present)
    assert set(found) <= set(present)
    assert len(set(found)) == len(found)
    assert not set(found) & set(named(declared))
