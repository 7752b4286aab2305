"""How declared text is quoted in messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.wording import dotted, listed, nearest, printable, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", '"plain"'),
        ("two\nlines", '"two\\nlines"'),
        ("\x1b[31mred", '"\\x1b[31mred"'),
        ("\u2028", '"\\u2028"'),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (1.5, "1.5"),
        ({}, "a table"),
        ([1], "a list"),
        ([], "an empty list"),
        (10**100, "a number of more than 60 digits"),
        ("x" * 61, '"' + "x" * 59 + '…"'),
    ],
)
def test_a_value_is_shown_as_toml_writes_it(value: object, text: str) -> None:
    assert shown(value) == text


@given(st.text(st.characters(), max_size=200))
def test_whatever_is_shown_is_one_printable_line(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) <= 62 or not text.isprintable()
    assert printable(text).isprintable()


def test_odd_keys_are_quoted_and_positions_left_out() -> None:
    assert dotted(("service", "a b", "targets", 3)) == 'service."a b".targets'


def test_the_nearest_word_is_found_or_none() -> None:
    assert nearest("restrat", ["ready", "restart"]) == "restart"
    assert nearest("RESTART", ["restart"]) == "restart"
    assert nearest("xyz", ["ready", "restart"]) is None


def test_words_are_listed_as_a_sentence_has_them() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b or c"
    assert listed(["a", "b"], "and") == "a and b"
