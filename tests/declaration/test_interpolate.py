"""``${NAME}`` and its forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.interpolate import LONGEST, Expansion, escape, expand
from agent.errors import UsageError

VARIABLES = {"HOST": "db", "EMPTY": "", "TRICKY": '${HOST} $$ "x" } \n', "BIG": "x" * 100_000}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${HOST}", "db"),
        ("a${HOST}b${HOST}", "adbbdb"),
        ("${EMPTY}", ""),
        ("${EMPTY:-fallback}", "fallback"),
        ("${NONE:-fallback}", "fallback"),
        ("${NONE:-}", ""),
        ("${HOST:-fallback}", "db"),
        ("${HOST:?needed}", "db"),
        ("$$HOME costs 5$$", "$HOME costs 5$"),
        ("$${HOST}", "${HOST}"),
        ("${NONE:-${HOST}}", "db"),
        ("${NONE:-${NEITHER:-${HOST:-x}}}!", "db!"),
        ("${NONE:-a$$b}", "a$b"),
        ("${HOST:-${NONE}}", "db"),
        ("{braces} }", "{braces} }"),
        ("${TRICKY}", VARIABLES["TRICKY"]),
    ],
)
def test_references_are_replaced_once(text: str, result: str) -> None:
    assert expand(text, VARIABLES).text == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "${NONE}",
            "variable NONE is not set; set it in .env, env_file or the agent's environment, or write ${NONE:-default}",
        ),
        ("${NONE:?set it in .env}", "variable NONE is required: set it in .env"),
        ("${EMPTY:?}", "variable EMPTY is required: it is not set"),
        (
            "cost: 5$",
            'a lone $ in "cost: 5$"; write $$ for a dollar sign, or ${NAME}, ${NAME:-default} or ${NAME:?message}',
        ),
        ("$HOME", 'a lone $ in "$HOME"; write $$ for a dollar sign, or ${NAME}, ${NAME:-default} or ${NAME:?message}'),
        ("${}", '"${}" names no variable; write ${NAME}, ${NAME:-default} or ${NAME:?message}'),
        ("${1A}", '"${1A}" names no variable; write ${NAME}, ${NAME:-default} or ${NAME:?message}'),
        ("${HOST-x}", '"${HOST-x}" is none of the known forms; write ${NAME}, ${NAME:-default} or ${NAME:?message}'),
        ("${HOST", '"${HOST" has no closing brace; write ${NAME}, ${NAME:-default} or ${NAME:?message}'),
        ("${HOST:-x", '"${HOST:-x" has no closing brace; write ${NAME}, ${NAME:-default} or ${NAME:?message}'),
        (
            "${A:-${B:-${C:-${D:-${E:-x}}}}}",
            'more than 4 references inside each other in "${A:-${B:-${C:-${D:-${E:-x}}}}}"',
        ),
        ("${BIG}${BIG}", f"longer than {LONGEST} characters after interpolation"),
    ],
)
def test_what_cannot_be_replaced_is_refused_with_the_forms(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        expand(text, VARIABLES)
    assert str(error.value) == message


def test_a_default_that_is_not_needed_is_not_evaluated_but_must_have_a_form() -> None:
    assert expand("${HOST:-${NONE:?never}}", VARIABLES) == Expansion("db", (("HOST", "db"),), "db")
    with pytest.raises(UsageError, match="a lone"):
        expand("${HOST:-$}", VARIABLES)


def test_what_each_variable_contributed_is_told() -> None:
    assert expand("${HOST}:${PASSWORD:-secret}", VARIABLES).used == (("HOST", "db"), ("PASSWORD", "secret"))


@given(st.text(), st.text())
def test_an_escaped_text_expands_to_itself_and_a_value_is_never_looked_into(text: str, value: str) -> None:
    assert expand(escape(text), {}).text == text
    assert expand("${V}" + escape(text), {"V": value}).text == value + text


@given(st.lists(st.sampled_from(["$", "{", "}", ":-", ":?", "A", "B", "$$", "${", "${A}", "x", "\n"]), max_size=30))
def test_any_mixture_is_replaced_or_refused_in_one_line(pieces: list[str]) -> None:
    try:
        expand("".join(pieces), {"A": "1"})
    except UsageError as error:
        assert str(error).isprintable()
