"""Machine-readable output: valid, one object a line in streams, and inert on a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli import output

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet=st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


def printed(show: Callable[[object], None], value: object) -> str:
    stream = io.StringIO()
    with redirect_stdout(stream):
        show(value)
    return stream.getvalue()


@settings(deadline=None)
@given(anything)
def test_a_document_is_read_back_as_it_was_and_is_printable_ascii(value: object) -> None:
    text = printed(output.document, value)
    assert json.loads(text) == value
    assert text.isascii() and text.replace("\n", "").isprintable()


@settings(deadline=None)
@given(anything)
def test_each_object_of_a_stream_is_one_line(value: object) -> None:
    text = printed(output.line, value)
    assert text.count("\n") == 1 and text.endswith("\n")
    assert json.loads(text) == value
    assert text.rstrip("\n").isprintable()
