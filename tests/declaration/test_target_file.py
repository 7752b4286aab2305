"""Files of targets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.declaration import targets
from agent.declaration.target_file import MOST_LINES, MOST_MISTAKES, Line, parse_target_file


def test_each_line_is_a_target_unless_it_is_a_comment() -> None:
    text = "# ours\n10.0.0.1\r\n  FD00::1-f # printers\n\nNAS.example.org\n#10.0.0.9\n"
    assert parse_target_file(text) == (
        [Line(2, "10.0.0.1"), Line(3, "fd00::1-fd00::f"), Line(5, "nas.example.org")],
        [],
    )


@given(st.text("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029 a1.", max_size=20))
def test_a_comment_ends_where_its_line_ends_and_nowhere_else(odd: str) -> None:
    """Whatever str.splitlines() takes for the end of a line."""
    assert parse_target_file(f"# was{odd}10.9.9.9\n10.0.0.1\n") == ([Line(2, "10.0.0.1")], [])


def test_two_targets_on_a_line_are_a_mistake_on_that_line() -> None:
    found, wrong = parse_target_file("10.0.0.1\n10.0.0.2\f10.0.0.3\n10.0.0.4\n")
    assert found == [Line(1, "10.0.0.1"), Line(3, "10.0.0.4")]
    assert [(line.number, line.text.partition(" is ")[0]) for line in wrong] == [(2, '"10.0.0.2\\x0c10.0.0.3"')]


def test_the_mark_that_some_editors_put_before_the_first_line_is_none_of_it() -> None:
    assert parse_target_file("\ufeff10.0.0.1\n") == ([Line(1, "10.0.0.1")], [])
    assert parse_target_file("10.0.0.1\n\ufeff10.0.0.2\n")[1][0].number == 2


def test_lines_are_counted_as_editors_do() -> None:
    assert parse_target_file("#\n" * MOST_LINES) == ([], [])
    assert parse_target_file("#\n" * MOST_LINES + "#")[1][0].number == MOST_LINES + 1


@given(st.lists(st.text(max_size=30), max_size=30).map("\n".join))
def test_any_text_gives_targets_in_normal_form_and_mistakes_in_one_line(text: str) -> None:
    found, wrong = parse_target_file(text)
    assert all(targets.host(line.text) == line.text for line in found)
    assert all(line.text.isprintable() for line in wrong)
    assert len(wrong) <= MOST_MISTAKES
