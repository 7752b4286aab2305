"""Variables in the strings of a declaration: ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}`` and ``$$``.

The forms and their meaning are those of the POSIX shell (IEEE 1003.1, 2.6.2): ``:-`` and ``:?`` count an empty variable
as unset. A default may hold further references, up to ``DEEPEST`` inside each other; one that is not needed is checked
for its form and not evaluated. What a variable holds is text and stays text: it is not searched for references, and
never becomes TOML. A ``$`` that begins none of the forms is a mistake; ``$$`` writes one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from agent.declaration.wording import plain, shown
from agent.errors import UsageError

DEEPEST = 4
"""How many references may stand inside each other."""

LONGEST = 128 * 1024 - 1
"""Characters one string may have afterwards: more would not pass as one argument or variable (execve(2))."""

FORMS = "${NAME}, ${NAME:-default} or ${NAME:?message}"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNTIL_DOLLAR = re.compile(r"[^$]+")
_UNTIL_DOLLAR_OR_BRACE = re.compile(r"[^$}]+")


class Expansion(NamedTuple):
    """The text after interpolation, and what each variable that was referred to contributed to it."""

    text: str
    used: tuple[tuple[str, str], ...]


def expand(text: str, variables: Mapping[str, str]) -> Expansion:
    """Replace every reference in ``text``. Raises ``UsageError`` for a wrong form and for what is not set."""
    walk = _Walk(text, variables)
    result = walk.word(0, evaluate=True)
    return Expansion(result, tuple(walk.used))


def escape(text: str) -> str:
    """``text`` as it must be written so that ``expand`` gives it back."""
    return text.replace("$", "$$")


class _Walk:
    """One pass over one string. ``position`` only moves forward."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self.text = text
        self.variables = variables
        self.position = 0
        self.used: list[tuple[str, str]] = []

    def word(self, depth: int, *, evaluate: bool) -> str:
        """Literal text and references, to the end of the string or, inside a reference, to its closing brace."""
        literal = _UNTIL_DOLLAR_OR_BRACE if depth else _UNTIL_DOLLAR
        pieces: list[str] = []
        length = 0
        while self.position < len(self.text):
            if match := literal.match(self.text, self.position):
                piece, self.position = match[0], match.end()
            elif self.text[self.position] == "}":
                break
            elif self.text.startswith("$$", self.position):
                piece, self.position = "$", self.position + 2
            elif self.text.startswith("${", self.position):
                piece = self.reference(depth + 1, evaluate=evaluate)
            else:
                raise UsageError(f"a lone $ in {shown(self.text)}; write $$ for a dollar sign, or {FORMS}")
            length += len(piece)
            if length > LONGEST:
                raise UsageError(f"longer than {LONGEST} characters after interpolation")
            pieces.append(piece)
        return "".join(pieces)

    def reference(self, depth: int, *, evaluate: bool) -> str:
        """One ``${…}``, at whose ``$`` the position stands."""
        start = self.position
        if depth > DEEPEST:
            raise UsageError(f"more than {DEEPEST} references inside each other in {shown(self.text)}")
        match = _NAME.match(self.text, start + 2)
        if match is None:
            raise UsageError(f"{shown(self.text[start:])} names no variable; write {FORMS}")
        name, self.position = match[0], match.end()
        operator = self.text[self.position : self.position + 2]
        value = self.variables.get(name)
        if operator.startswith("}"):
            self.position += 1
            if value is None and evaluate:
                raise UsageError(
                    f"variable {plain(name)} is not set; set it in .env, env_file or the agent's environment, "
                    f"or write ${{{plain(name)}:-default}}"
                )
            contribution = value or ""
        elif operator == ":-":
            self.position += 2
            default = self.word(depth, evaluate=evaluate and not value)
            self.close(start)
            contribution = value or default
        elif operator == ":?":
            self.position += 2
            begin = self.position
            self.word(depth, evaluate=False)
            message = self.text[begin : self.position]
            self.close(start)
            if not value and evaluate:
                raise UsageError(f"variable {plain(name)} is required: {plain(message) or 'it is not set'}")
            contribution = value or ""
        elif not operator:
            raise self.unclosed(start)
        else:
            raise UsageError(f"{shown(self.text[start:])} is none of the known forms; write {FORMS}")
        if evaluate:
            self.used.append((name, contribution))
        return contribution

    def close(self, start: int) -> None:
        if self.position >= len(self.text):
            raise self.unclosed(start)
        self.position += 1

    def unclosed(self, start: int) -> UsageError:
        return UsageError(f"{shown(self.text[start:])} has no closing brace; write {FORMS}")
