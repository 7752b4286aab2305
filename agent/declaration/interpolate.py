"""Variables in the strings of a declaration: ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}`` and ``$$``.

The forms and their meaning are those of the POSIX shell (IEEE 1003.1, 2.6.2): ``:-`` and ``:?`` count an empty variable
as unset. A default may hold further references, up to ``DEEPEST`` inside each other; one that is not needed is checked
for its form and not evaluated. What a variable holds is text and stays text: it is not searched for references, and
never becomes TOML. A ``$`` that begins none of the forms is a mistake; ``$$`` writes one.

A message may quote what was written, and never what a variable that looks secret stands for, nor its default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from agent.declaration.masking import looks_secret
from agent.declaration.wording import plain, shown
from agent.errors import UsageError

DEEPEST = 4
"""How many references may stand inside each other."""

LONGEST = 128 * 1024 - 1
"""Characters one string may have afterwards: more would not pass as one argument or variable (execve(2))."""

FORMS = "${NAME}, ${NAME:-default} or ${NAME:?message}"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEFAULT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*):-")
_UNTIL_DOLLAR = re.compile(r"[^$]+")
_UNTIL_DOLLAR_OR_BRACE = re.compile(r"[^$}]+")


class Unset(UsageError):
    """A variable that is needed is not set. ``name`` is its name."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"variable {plain(name)} {text}")
        self.name = name


class Expansion(NamedTuple):
    """The text after interpolation, and what each variable that was referred to contributed to it.

    ``told`` is the text for people: ``${NAME}`` still stands where a variable that looks secret was replaced.
    """

    text: str
    used: tuple[tuple[str, str], ...]
    told: str


def expand(text: str, variables: Mapping[str, str]) -> Expansion:
    """Replace every reference in ``text``. Raises ``Unset``, and ``UsageError`` for a wrong form."""
    walk = _Walk(text, variables)
    result, told = walk.word(0, evaluate=True)
    return Expansion(result, tuple(walk.used), told)


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

    def word(self, depth: int, *, evaluate: bool) -> tuple[str, str]:
        """Literal text and references, to the end of the string or, inside a reference, to its closing brace.

        Both what they become, and what may be told of that.
        """
        literal = _UNTIL_DOLLAR_OR_BRACE if depth else _UNTIL_DOLLAR
        pieces: list[str] = []
        told: list[str] = []
        length = 0
        while self.position < len(self.text):
            if match := literal.match(self.text, self.position):
                piece = word = match[0]
                self.position = match.end()
            elif self.text[self.position] == "}":
                break
            elif self.text.startswith("$$", self.position):
                piece = word = "$"
                self.position += 2
            elif self.text.startswith("${", self.position):
                piece, word = self.reference(depth + 1, evaluate=evaluate)
            else:
                raise UsageError(f"a lone $ in {self.quoted()}; write $$ for a dollar sign, or {FORMS}")
            length += len(piece)
            if length > LONGEST:
                raise UsageError(f"longer than {LONGEST} characters after interpolation")
            pieces.append(piece)
            told.append(word)
        return "".join(pieces), "".join(told)

    def reference(self, depth: int, *, evaluate: bool) -> tuple[str, str]:
        """One ``${…}``, at whose ``$`` the position stands: what it becomes, and what may be told of that."""
        start = self.position
        if depth > DEEPEST:
            raise UsageError(f"more than {DEEPEST} references inside each other in {self.quoted()}")
        match = _NAME.match(self.text, start + 2)
        if match is None:
            raise UsageError(f"{self.quoted(start)} names no variable; write {FORMS}")
        name, self.position = match[0], match.end()
        operator = self.text[self.position : self.position + 2]
        value = self.variables.get(name)
        if operator.startswith("}"):
            self.position += 1
            if value is None and evaluate:
                raise Unset(
                    name,
                    "is not set; set it in .env, env_file or the agent's environment, "
                    f"or write ${{{plain(name)}:-default}}",
                )
            contribution = told = value or ""
        elif operator == ":-":
            self.position += 2
            default, told_default = self.word(depth, evaluate=evaluate and not value)
            self.close(start)
            contribution, told = (value, value) if value else (default, told_default)
        elif operator == ":?":
            self.position += 2
            begin = self.position
            self.word(depth, evaluate=False)
            message = self.text[begin : self.position]
            self.close(start)
            if not value and evaluate:
                raise Unset(name, f"is required: {plain(_public(message)) or 'it is not set'}")
            contribution = told = value or ""
        elif not operator:
            raise self.unclosed(start)
        else:
            raise UsageError(f"{self.quoted(start)} is none of the known forms; write {FORMS}")
        if evaluate:
            self.used.append((name, contribution))
        return contribution, f"${{{name}}}" if looks_secret(name) else told

    def close(self, start: int) -> None:
        if self.position >= len(self.text):
            raise self.unclosed(start)
        self.position += 1

    def quoted(self, start: int = 0) -> str:
        """The text from ``start`` on for a message; from its beginning where ``start`` lies in a secret default."""
        cut = _cut(self.text)
        return shown(_public(self.text[start if cut is None or start < cut else 0 :]))

    def unclosed(self, start: int) -> UsageError:
        return UsageError(f"{self.quoted(start)} has no closing brace; write {FORMS}")


def _cut(text: str) -> int | None:
    """Where the first default of a variable that looks secret begins."""
    return next((match.end() for match in _DEFAULT.finditer(text) if looks_secret(match[1])), None)


def _public(text: str) -> str:
    """``text`` as it was written, up to the first default of a variable that looks secret."""
    cut = _cut(text)
    return text if cut is None else f"{text[:cut]}…"
