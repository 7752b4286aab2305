"""Files of targets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.declaration import targets
from agent.declaration.target_file import MOST_MISTAKES, Line, parse_target_file


def test_each_line_is_a_target_unless_it_is_a_comment() -> None:
    text = "# ours\n10.0.0.1\r\n  FD00::1-f # printers\n\nNAS.example.org\n#10.0.0.9\n"
    assert parse_target_file(text) == (
        [Line(2, "10.0.0.1"), Line(3, "fd00::1-fd00::f"), Line(5, "nas.example.org")],
        [],
    )


@given(st.lists(st.text(max_size=30), max_size=30).map("\n".join))
def test_any_text_gives_targets_in_normal_form_and_mistakes_in_one_line(text: str) -> None:
    found, wrong = parse_target_file(text)
    assert all(targets.host(line.text) == line.text for line in found)
    assert all(line.text.isprintable() for line in wrong)
    assert len(wrong) <= MOST_MISTAKES
