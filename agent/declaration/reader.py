"""One table of TOML against its ``Spec``: interpolation, conversion, and every mistake noted with its line.

A mistake in one key never hides a mistake in another: what cannot be read is left out of the result, its name is kept,
and reading goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from agent.declaration import wording
from agent.declaration.check import variable_name
from agent.declaration.interpolate import expand
from agent.declaration.locate import Lines, Path
from agent.declaration.masking import looks_secret, mask
from agent.declaration.schema import MOST_ITEMS, Spec
from agent.declaration.wording import dotted, listed, shown
from agent.errors import Problem, UsageError

MOST_TEXT = 4 * 1024 * 1024
"""Characters that interpolation may produce in one declaration: a few bytes of references can ask for gigabytes."""

MOST_HINTS = 100
"""Mistakes that get a "did you mean": each costs a comparison with every known word."""

BAD: Final = object()
"""Stands for a value that could not be read; what is wrong with it has been noted."""


class Findings:
    """What reading a declaration brings to light besides its values."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.secret_fields: set[str] = set()
        self.text_left = MOST_TEXT
        self._problems: dict[Problem, None] = {}
        self._hints_left = MOST_HINTS

    def add(self, file: str, line: int, where: str, text: str) -> None:
        self._problems[Problem(file, line, where, text)] = None

    def hide(self, path: Path, value: str) -> None:
        """Remember that ``value`` is a secret and stands in the field at ``path``."""
        if value:
            self.secrets.add(value)
            self.secret_fields.add(".".join(map(str, path)))

    def hides(self, path: Path) -> bool:
        """Whether a secret stands in the field at ``path`` or in one of its items."""
        place = ".".join(map(str, path))
        return any(field == place or field.startswith(f"{place}.") for field in self.secret_fields)

    def nearest(self, word: str, known: Collection[str]) -> str | None:
        """The known word that was probably meant, as long as there are not too many mistakes to look."""
        self._hints_left -= 1
        return wording.nearest(word, known) if self._hints_left >= 0 else None

    def problems(self) -> list[Problem]:
        """Every problem once, secrets masked."""
        return [Problem(p.file, p.line, p.where, mask(p.text, self.secrets)) for p in self._problems]


class Values(NamedTuple):
    """The keys of a table that could be read, and the names of those that could not."""

    good: dict[str, Any]
    bad: frozenset[str]


class Reader:
    """Reads the tables of one document with one set of variables."""

    def __init__(self, file: str, lines: Lines, findings: Findings, variables: Mapping[str, str]) -> None:
        self.file = file
        self.findings = findings
        self._lines = lines
        self._variables = variables

    def with_variables(self, variables: Mapping[str, str]) -> Reader:
        return Reader(self.file, self._lines, self.findings, variables)

    def line(self, path: Path) -> int:
        return self._lines.of(path)

    def fail(self, path: Path, text: str) -> None:
        """Note what is wrong with the key at ``path``."""
        self.findings.add(self.file, self.line(path), dotted(path), text)

    def table(
        self, raw: Mapping[str, Any], fields: Mapping[str, Spec], path: Path, elsewhere: Mapping[str, str] | None = None
    ) -> Values:
        """Read every key. ``elsewhere`` says of keys that are known, but not here, where they belong."""
        good: dict[str, Any] = {}
        bad: set[str] = set()
        for key, value in raw.items():
            spec = fields.get(key)
            if spec is None:
                self.fail((*path, key), (elsewhere or {}).get(key) or self._unknown(key, fields))
                continue
            result = self.read(value, spec, (*path, key))
            if result is BAD:
                bad.add(key)
            else:
                good[key] = result
        return Values(good, frozenset(bad))

    def _unknown(self, key: str, fields: Mapping[str, Spec]) -> str:
        hint = self.findings.nearest(key, fields)
        return f"unknown key; did you mean {hint}?" if hint else f"unknown key; known are {listed(fields, 'and')}"

    def read(self, raw: Any, spec: Spec, path: Path) -> Any:
        """The value of one key in the model's terms, or ``BAD``."""
        match spec.shape:
            case "table":
                if not isinstance(raw, dict):
                    return self._not(raw, spec, path)
                values = self.table(raw, spec.fields, path, spec.elsewhere)
                return BAD if values.bad else values.good
            case "variables":
                return self._variables_of(raw, spec, path)
            case "list":
                return self._list(raw, spec, path)
            case "value":
                return self._value(raw, spec, path)

    def _variables_of(self, raw: Any, spec: Spec, path: Path) -> Any:
        if not isinstance(raw, dict) or spec.item is None:
            return self._not(raw, spec, path)
        if len(raw) > MOST_ITEMS:
            self.fail(path, f"more than {MOST_ITEMS} variables")
            return BAD
        result: dict[str, str] = {}
        for name, value in raw.items():
            try:
                variable_name(name)
            except UsageError as error:
                self.fail((*path, name), str(error))
            text = self.read(value, spec.item, (*path, name))
            if text is not BAD:
                result[name] = text
                if looks_secret(name):
                    self.findings.hide((*path, name), text)
        return result

    def _list(self, raw: Any, spec: Spec, path: Path) -> Any:
        if spec.lone and isinstance(raw, str) and spec.item is not None:
            item = self.read(raw, spec.item, path)
            return BAD if item is BAD else (item,)
        if not isinstance(raw, list) or spec.item is None or len(raw) < spec.least:
            return self._not(raw, spec, path)
        if len(raw) > spec.most:
            self.fail(path, f"{len(raw)} items; at most {spec.most} are allowed")
            return BAD
        items = [self.read(value, spec.item, (*path, number)) for number, value in enumerate(raw)]
        return BAD if BAD in items else self._parsed(tuple(items), spec, path, secret=False)

    def _value(self, raw: Any, spec: Spec, path: Path) -> Any:
        value, replaced, secret = raw, False, False
        if isinstance(raw, str):
            if "$" in raw:
                if self.findings.text_left < 0:
                    self.fail(path, f"more than {MOST_TEXT} characters of interpolated text in one declaration")
                    return BAD
                try:
                    value, used = expand(raw, self._variables)
                except UsageError as error:
                    self.fail(path, str(error))
                    return BAD
                self.findings.text_left -= len(value)
                replaced = bool(used)
                for name, contribution in used:
                    if looks_secret(name):
                        secret = True
                        self.findings.hide(path, contribution)
            if "\0" in value:
                self.fail(path, "holds a NUL character, which nothing here can")
                return BAD
            if replaced and not _is_unicode(value):
                self.fail(path, "holds bytes of the environment that are not UTF-8")
                return BAD
        try:
            converted = _convert(value, spec.type, lax=replaced)
        except msgspec.ValidationError:
            return self._not(value, spec, path, secret=secret)
        return self._parsed(converted, spec, path, secret=secret)

    def _parsed(self, value: Any, spec: Spec, path: Path, *, secret: bool) -> Any:
        if spec.parse is None:
            return value
        try:
            return spec.parse(value)
        except UsageError as error:
            if secret or self.findings.hides(path):
                return self._not(value, spec, path, secret=True)
            self.fail(path, str(error))
            return BAD

    def _not(self, value: Any, spec: Spec, path: Path, *, secret: bool = False) -> Any:
        text = f"{'the hidden value' if secret else shown(value)} is not {spec.expected}"
        if spec.choices and isinstance(value, str) and (hint := self.findings.nearest(value, spec.choices)):
            text += f"; did you mean {hint}?"
        self.fail(path, text)
        return BAD


def _convert(value: Any, kind: Any, *, lax: bool) -> Any:
    """Strictly, as TOML has types of its own; only text that came from a variable may become a number or a truth."""
    try:
        return _finite(msgspec.convert(value, kind))
    except msgspec.ValidationError:
        if not lax:
            raise
        return _finite(msgspec.convert(value, kind, strict=False))


def _is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: ``os.environ`` smuggles other bytes in as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _finite(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        raise msgspec.ValidationError("not a finite number")
    return value
