"""``.env`` and ``env_file``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.envfile import LONGEST, parse_env


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("# note\n\n  A = 1  ", {"A": "1"}),
        ("export A=1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A= # nothing", {"A": ""}),
        ("A=x # note", {"A": "x"}),
        ("A=x#y", {"A": "x#y"}),
        ("A=b=c", {"A": "b=c"}),
        ("A='$x # y'", {"A": "$x # y"}),
        (r"A='a\nb'", {"A": r"a\nb"}),
        (r'A="a\nb\t\"\\\$"  # note', {"A": 'a\nb\t"\\$'}),
        ("A=${B}", {"A": "${B}"}),
        ("A=1\nA=2", {"A": "2"}),
        ("", {}),
    ],
)
def test_assignments_are_read(text: str, variables: dict[str, str]) -> None:
    assert parse_env(text) == (variables, [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("just words", "not an assignment; write NAME=value"),
        ("1A=x", "no variable's name before the =; use letters, digits and _"),
        ("A-B=x", "no variable's name before the =; use letters, digits and _"),
        ("A='open", "the ' that opens the value is not closed on this line"),
        ('A="open', 'the " that opens the value is not closed on this line'),
        ("A='x' y", "text after the closing quote; only a comment may stand there"),
        (r'A="\q"', r"an unknown escape in double quotes; known are \n \r \t \" \\ \$, or use single quotes"),
        ("A=\0", "holds a NUL character, which no variable can"),
        ("A=" + "x" * LONGEST, f"longer than {LONGEST} characters"),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number_and_the_others_are_kept(line: str, message: str) -> None:
    variables, mistakes = parse_env(f"OK=1\n{line}\nFINE=2")
    assert variables == {"OK": "1", "FINE": "2"}
    assert [(mistake.line, mistake.text) for mistake in mistakes] == [(2, message)]


def test_a_mistake_names_the_variable_that_has_no_value_because_of_it() -> None:
    _, mistakes = parse_env("words\nA-B=x\nA='open\nexport B='x' y")
    assert [mistake.name for mistake in mistakes] == ["", "", "A", "B"]


def test_a_mistake_never_tells_the_value() -> None:
    _, mistakes = parse_env("A='hunter2\nB=\"hunter2\\q\"\nC='hunter2' hunter2\nhunter2\nhunter2/==")
    assert len(mistakes) == 5
    assert "hunter2" not in str(mistakes)


@given(st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=50))
def test_any_value_can_be_written_in_double_quotes(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_env(f'A="{quoted}"') == ({"A": value}, [])


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_line_by_line(text: str) -> None:
    _, mistakes = parse_env(text)
    assert all(mistake.text.isprintable() and 1 <= mistake.line <= text.count("\n") + 1 for mistake in mistakes)
