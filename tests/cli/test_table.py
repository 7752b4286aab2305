"""Tables: the same words on a terminal and in a pipe, and nothing in a cell that is more than a word."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli import table

HEADS = ("NAME", "PID", "MESSAGE")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns that can show colours."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def drawn(show: Callable[..., None], *arguments: Any, on: io.StringIO | None = None) -> str:
    """What a terminal is sent, or another stream."""
    stream = on or Terminal()
    with redirect_stdout(stream):
        show(*arguments)
    return stream.getvalue()


def test_plain_columns_are_aligned_and_lines_end_without_blanks() -> None:
    rows = [("api", "42", "serves"), ("edge_capture", "4242", "")]
    assert table.plain(HEADS, rows, right=("PID",)) == [
        "NAME           PID  MESSAGE",
        "api             42  serves",
        "edge_capture  4242",
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(), st.text())))
def test_a_pipe_gets_one_line_a_row_whatever_the_cells_hold(rows: list[tuple[str, str, str]]) -> None:
    lines = drawn(table.show, HEADS, rows, on=io.StringIO()).split("\n")
    assert len(lines) == len(rows) + 2
    assert all(line.isprintable() for line in lines)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1, max_size=3))
def test_a_terminal_gets_no_control_character_that_rich_did_not_make(rows: list[tuple[str, str, str]]) -> None:
    without_colours = re.sub(r"\x1b\[[0-9;]*m", "", drawn(table.show, HEADS, rows))
    assert without_colours.replace("\n", "").isprintable()


@pytest.mark.usefixtures("colours")
def test_a_terminal_shows_states_in_colour() -> None:
    assert re.search(r"\x1b\[[0-9;]*31mfailed", drawn(table.show, ("NAME", "STATE"), [("api", "failed")]))
    assert re.search(r"\x1b\[[0-9;]*31mfailed", drawn(table.show_pairs, [("State", "failed")]))


@pytest.mark.usefixtures("colours")
def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = drawn(table.show, ("NAME", "STATE"), [("api", "failed")]) + drawn(table.show_pairs, [("State", "failed")])
    assert shown.count("failed") == 2
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)


def test_markup_in_a_cell_is_text() -> None:
    assert "[red]not red[/red] :boom:" in drawn(table.show, HEADS, [("api", "1", "[red]not red[/red] :boom:")])


@pytest.mark.usefixtures("colours")
def test_a_long_last_column_is_folded_not_cut() -> None:
    message = " ".join(f"word{number}" for number in range(60))
    shown = drawn(table.show, HEADS, [("api", "1", message)])
    assert re.findall(r"word\d+", shown) == message.split()
    assert len(shown.splitlines()) > 3


def test_pairs_are_aligned_at_their_colons() -> None:
    shown = drawn(table.show_pairs, [("Name", "api"), ("Last exit", "code 1\n")], on=io.StringIO())
    assert shown == "     Name: api\nLast exit: code 1\\x0a\n"


@pytest.mark.usefixtures("colours")
def test_where_prose_would_be_squeezed_it_stands_below_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    message = " ".join(["prose"] * 12)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", drawn(table.show, HEADS, [("edge_capture", "42", message), ("a", "1", "")]))
    heads, capture, *prose, last = shown.splitlines()
    assert [line.split() for line in (heads, capture, last)] == [["NAME", "PID"], ["edge_capture", "42"], ["a", "1"]]
    assert all(line.startswith("    ") and len(line) <= 40 for line in prose)
    assert " ".join(prose).split() == message.split()
