"""On which line each key of a TOML document stands: what ``tomllib`` knows and does not tell.

A lexical scan of TOML 1.0 (https://toml.io/en/v1.0.0): table headers, arrays of tables, bare, quoted and dotted keys,
inline tables, arrays, and strings of all four kinds, so that a bracket or an equals sign inside a string is none. It
judges nothing: where the text stops being TOML the scan ends, and ``tomllib`` says what is wrong there. It does hold
one bound, because it runs first: nesting deeper than ``DEEPEST`` ends it with ``TooDeep`` before it can become a
recursion or, as dotted keys, quadratic work.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from contextlib import suppress

Path = tuple[str | int, ...]
"""Keys from the root down; an integer is a position in an array."""

DEEPEST = 16
"""Levels of tables and arrays. The deepest key that means anything here has four."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_END_OF_LINE = re.compile(r"[^\n]*\n?")
_KEY = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|"((?:[^"\\\n]|\\[^\n])*)"|'([^'\n]*)')[ \t]*""")
_STRING = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?!"")(?:[^"\\\n]|\\[^\n])*"|'(?!'')[^'\n]*'|""(?!")|\'\'(?!')''',
    re.DOTALL,
)
_PLAIN = re.compile(r"""[^\s,\[\]{}#"'=][^,\[\]{}#"'=\n]*""")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|([^\n]))")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


class TooDeep(Exception):
    """Nesting beyond ``DEEPEST``, on ``line``."""

    def __init__(self, line: int) -> None:
        super().__init__(f"nested deeper than {DEEPEST} levels on line {line}")
        self.line = line


class Lines:
    """The line of each key, counted from 1."""

    def __init__(self, known: dict[Path, int]) -> None:
        self._known = known

    def __contains__(self, path: Path) -> bool:
        return path in self._known

    def of(self, path: Path) -> int:
        """The line of ``path`` or of the nearest table or array around it; 0 when nothing of it is in the document."""
        for length in range(len(path), 0, -1):
            if line := self._known.get(path[:length]):
                return line
        return 0


def locate(text: str) -> Lines:
    """Scan a whole document. Raises ``TooDeep``, and nothing else whatever the text is."""
    scan = _Scan(text)
    with suppress(_NotToml):  # tomllib says so, and where
        scan.document()
    return Lines(scan.known)


class _NotToml(Exception):
    """The text is no TOML from here on."""


class _Scan:
    """One pass; ``position`` only moves forward."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.known: dict[Path, int] = {}
        self.tables_in_array: dict[Path, int] = {}
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def document(self) -> None:
        table: Path = ()
        self.skip(_BLANK)
        while self.position < len(self.text):
            if self.text.startswith("[", self.position):
                table = self.header()
            else:
                self.assignment(table)
            self.skip(_SPACE)
            if self.text.startswith(("#", "\n", "\r\n"), self.position):
                self.skip(_END_OF_LINE)
            elif self.position < len(self.text):
                raise _NotToml
            self.skip(_BLANK)

    def header(self) -> Path:
        """``[a.b]`` or ``[[a.b]]``: the path that the keys below it belong to."""
        brackets = 2 if self.text.startswith("[[", self.position) else 1
        self.position += brackets
        path: Path = ()
        keys = self.keys()
        for number, (key, line) in enumerate(keys, 1):
            path = (*path, key)
            self.note(path, line)
            if brackets == 2 and number == len(keys):
                self.tables_in_array[path] = self.tables_in_array.get(path, 0) + 1
            if count := self.tables_in_array.get(path):
                path = (*path, count - 1)
                self.note(path, line)
        self.expect("]" * brackets)
        return path

    def assignment(self, table: Path) -> None:
        """``a.b = value``."""
        for key, line in self.keys(len(table)):
            table = (*table, key)
            self.note(table, line)
        self.expect("=")
        self.skip(_SPACE)
        self.value(table)

    def keys(self, depth: int = 0) -> list[tuple[str, int]]:
        """A dotted key: its parts, each with its line."""
        found: list[tuple[str, int]] = []
        while True:
            match = _KEY.match(self.text, self.position)
            if match is None:
                raise _NotToml
            line = self.line()
            if depth + len(found) >= DEEPEST:
                raise TooDeep(line)
            bare, basic, literal = match.groups()
            found.append((bare if bare is not None else _unescaped(basic) if basic is not None else literal, line))
            self.position = match.end()
            if not self.text.startswith(".", self.position):
                return found
            self.position += 1

    def value(self, path: Path) -> None:
        if len(path) > DEEPEST:
            raise TooDeep(self.line())
        opening = self.text[self.position : self.position + 1]
        if opening == "[":
            self.array(path)
        elif opening == "{":
            self.inline_table(path)
        elif match := _STRING.match(self.text, self.position) or _PLAIN.match(self.text, self.position):
            self.position = match.end()
        else:
            raise _NotToml

    def array(self, path: Path) -> None:
        self.position += 1
        number = 0
        while not self.closed("]"):
            if self.line() != self.known.get(path):
                self.note((*path, number), self.line())
            self.value((*path, number))
            number += 1
            self.separator("]")

    def inline_table(self, path: Path) -> None:
        self.position += 1
        while not self.closed("}"):
            self.assignment(path)
            self.separator("}")

    def closed(self, bracket: str) -> bool:
        """Whether the container ends here; steps over its bracket if so."""
        self.skip(_BLANK)
        if self.text.startswith(bracket, self.position):
            self.position += 1
            return True
        return False

    def separator(self, bracket: str) -> None:
        """After an item: a comma, or the closing bracket is next."""
        self.skip(_BLANK)
        if self.text.startswith(",", self.position):
            self.position += 1
        elif not self.text.startswith(bracket, self.position):
            raise _NotToml

    def note(self, path: Path, line: int) -> None:
        self.known.setdefault(path, line)

    def line(self) -> int:
        return bisect_right(self.line_starts, self.position)

    def expect(self, text: str) -> None:
        if not self.text.startswith(text, self.position):
            raise _NotToml
        self.position += len(text)

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.position)
        if match:
            self.position = match.end()


def _unescaped(basic: str) -> str:
    if "\\" not in basic:
        return basic

    def character(match: re.Match[str]) -> str:
        digits = match[1] or match[2] or match[3]
        if digits is None:
            return _ESCAPES.get(match[4], match[4])
        number = int(digits, 16)
        return chr(number) if number <= 0x10FFFF else "\ufffd"

    return _ESCAPE.sub(character, basic)
