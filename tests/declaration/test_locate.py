"""The line of every key, held against ``tomllib``: in the generated documents each number is the line it stands on."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.locate import DEEPEST, Path, TooDeep, locate


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every path that ``tomllib`` finds, tables and arrays included."""
    if isinstance(value, dict | list):
        items: Any = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield (*path, key), item
            yield from leaves(item, (*path, key))


STRINGS = [
    *('"[x]"', "'a = 1'", '"# no"', r'"\"]"', '""', "''", '""""""'),
    r'''"""
[no]
key = 1 # "" \"" ]
"""""''',
    """'''
{ '' \\
'''''""",
]
SCALARS = [*STRINGS, "true", "1979-05-27 07:32:00Z", "-1_0.5e+3", "inf"]
BLANKS = ["", " ", "\t", "\n", "\n\n# [c] 'd'\n", "\r\n"]


class Writer:
    """Writes TOML of every form from a stream of choices; each integer written is its own line."""

    def __init__(self, choose: st.DataObject) -> None:
        self.text = ""
        self.choose = choose
        self.names = 0

    def pick(self, options: list[str]) -> str:
        return self.choose.draw(st.sampled_from(options))

    def name(self) -> str:
        """A key that has not been used yet, in one of its three spellings."""
        self.names += 1
        return self.pick(["k{}", '"k {}"', "'k.{}'", '"k\\u0041\\t{}"', "k-{}"]).format(self.names)

    def key(self) -> None:
        self.text += self.name()
        for _ in range(self.choose.draw(st.integers(0, 2))):
            self.text += self.pick([".", " . "]) + self.name()

    def line_number(self) -> None:
        self.text += str(self.text.count("\n") + 1)

    def value(self, depth: int) -> None:
        match self.pick(["number", "number", "scalar", "array", "table"] if depth < 3 else ["number", "scalar"]):
            case "number":
                self.line_number()
            case "scalar":
                self.text += self.pick(SCALARS)
            case "array":
                self.text += "[" + self.pick(BLANKS)
                for _ in range(self.choose.draw(st.integers(0, 3))):
                    self.value(depth + 1)
                    self.text += self.pick(BLANKS) + "," + self.pick(BLANKS)
                self.text += "]"
            case "table":
                self.text += "{"
                for number in range(self.choose.draw(st.integers(0, 3))):
                    self.text += ", " if number else " "
                    self.assignment(depth + 1)
                self.text += "}"

    def assignment(self, depth: int) -> None:
        self.key()
        self.text += self.pick(["=", " = "])
        self.value(depth)

    def document(self) -> str:
        arrays: list[str] = []
        for _ in range(self.choose.draw(st.integers(1, 8))):
            self.text += self.pick(BLANKS)
            match self.pick(["assignment", "assignment", "table", "array of tables", "again"]):
                case "assignment":
                    self.assignment(0)
                case "table":
                    self.text += "[ "
                    self.key()
                    self.text += "]"
                case "again" if arrays:
                    self.text += self.pick([f"[[{arrays[-1]}]]", f"[{arrays[-1]}.{self.name()}]"])
                case _:
                    arrays.append(self.name())
                    self.text += f"[[{arrays[-1]}]]"
            self.text += self.pick(["\n", "\r\n", " # comment ]\n"])
        return self.text


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_every_key_that_tomllib_finds_is_located_on_its_line(data: st.DataObject) -> None:
    text = Writer(data).document()
    lines = locate(text)
    for path, value in leaves(tomllib.loads(text)):
        assert path in lines or isinstance(path[-1], int), (path, text)
        if type(value) is int:
            assert lines.of(path) == value, (path, text)


def test_a_key_that_is_not_there_has_the_line_of_what_is_around_it() -> None:
    lines = locate("a = 1\n[service.api]\nlog = { size = 1 }\n")
    assert lines.of(("service", "api", "missing")) == 2
    assert lines.of(("service", "api", "log", "keep")) == 3
    assert lines.of(("nothing",)) == 0


def test_items_of_an_array_have_lines_of_their_own() -> None:
    lines = locate("targets = [\n  'a', # one\n  'b', 'c',\n]\n")
    assert [lines.of(("targets", number)) for number in range(3)] == [2, 3, 3]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n" + "a." * DEEPEST + "a = 1", 2),
        ("a = " + "[" * 100_000, 1),
        ("a = [\n" + "{a=" * 100_000, 2),
        ("[" + "a." * DEEPEST + "a]", 1),
        ("[a.b.c]\n" + "a." * DEEPEST + "a = 1", 2),
        ("." .join(["a"] * 500_000) + " = 1", 1),
    ],
    ids=["dotted key", "arrays", "inline tables", "header", "key below header", "half a million parts"],
)  # fmt: skip
def test_nesting_is_bounded_before_it_costs_anything(text: str, line: int) -> None:
    with pytest.raises(TooDeep) as error:
        locate(text)
    assert error.value.line == line


def test_as_deep_as_allowed_is_allowed() -> None:
    text = ".".join(["a"] * DEEPEST) + " = 1"
    assert locate(text).of(("a",) * DEEPEST) == 1


@given(
    st.lists(st.sampled_from(["[", "]", "{", "}", '"', "'", '"""', "'''", "=", ".", ",", "\n", "a", "1", "#", "\\"]))
)
def test_any_text_is_scanned_to_an_end(pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        lines = locate(text)
    except TooDeep as error:
        assert 1 <= error.line <= text.count("\n") + 1
    else:
        assert 0 <= lines.of(("a",)) <= text.count("\n") + 1
