"""Figures by interface in one field: what fits comes back, and what anybody else writes there does no harm."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.breakdown import LIMIT, LONGEST_NAME, MOST, MOST_FIGURES, decode, encode

names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=LONGEST_NAME)
figures = st.lists(
    st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), min_size=1, max_size=MOST_FIGURES, unique=True
)


@given(st.data())
def test_what_was_told_is_understood(data: st.DataObject) -> None:
    known = data.draw(figures)
    number = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
    row = st.fixed_dictionaries(dict.fromkeys(known, number))
    told = data.draw(st.dictionaries(names, row, max_size=5))
    assert decode(encode(told)) == told


def test_as_many_interfaces_as_are_captured_at_once_fit_with_the_largest_numbers() -> None:
    row = {f"{number:02}_figure".rjust(32, "a"): 2**63 - 1 for number in range(MOST_FIGURES)}
    told = {chr(0x4E00 + number) * LONGEST_NAME: row for number in range(MOST + 5)}
    text = encode(told)
    assert len(text) <= LIMIT
    assert len(decode(text) or {}) == MOST


@given(st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(max_size=9),
       lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["figures", "interfaces", "eth0"]), inner),
       max_leaves=20).map(json.dumps))  # fmt: skip
def test_whatever_is_sent_is_no_exception(text: str) -> None:
    found = decode(text)
    assert found is None or len(found) <= MOST


def test_only_numbers_under_plain_names_are_taken_and_names_are_made_harmless() -> None:
    row = [1, 2.5, None, True]
    sent = {
        "figures": ["received", "lag", "Bad Name", "waiting"],
        "interfaces": {"a\x1b[31m" + "b" * 50: row, "x": [1]},
    }
    assert decode(json.dumps(sent)) == {"a?[31mbbbbbbbbb": {"received": 1, "lag": 2.5, "waiting": True}}
    assert decode(json.dumps(sent | {"interfaces": {"eth0": ["words", 1, 1, 1]}})) is None
    assert decode("x" * (LIMIT + 1)) is None
    assert decode(None) is None
    assert decode(encode({"\udc80": {"received": 1}})) == {"?": {"received": 1}}  # a name that is no UTF-8
