"""One table of TOML against its ``Spec``: interpolation, conversion, and every mistake noted with its line.

A mistake in one key never hides a mistake in another: what cannot be read is left out of the result, its name is kept,
with what could be read of its items, and reading goes on. And one mistake is told once: an unknown key counts as the
known one that it was probably meant to be, so that nothing complains of the absence of that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from agent.declaration import wording
from agent.declaration.check import Unknown, variable_name
from agent.declaration.interpolate import FORMS, Unset, expand
from agent.declaration.locate import Lines, Path
from agent.declaration.masking import looks_secret, mask
from agent.declaration.schema import MOST_ITEMS, Spec
from agent.declaration.wording import dotted, listed, shown
from agent.errors import Problem, UsageError

MOST_TEXT = 4 * 1024 * 1024
"""Characters that interpolation may produce in one declaration: a few bytes of references can ask for gigabytes."""

MOST_HINTS = 100
"""Mistakes that get a "did you mean": each costs a comparison with every known word."""

HIDDEN = "the hidden value"


class Fail(Protocol):
    """Notes what is wrong with a key, as ``Reader.fail`` does; keys are given below the service's own table."""

    def __call__(self, path: Path, text: str, otherwise: str = "", quoting: Sequence[Path] = ()) -> None: ...


class Bad:
    """Stands for a value that could not be read; what is wrong with it has been noted.

    ``readable`` are the items of a list, by position, or the keys of a table that could be read all the same.
    """

    def __init__(self, readable: Mapping[Any, Any] | None = None) -> None:
        self.readable: Mapping[Any, Any] = readable or {}


class Findings:
    """What reading a declaration brings to light besides its values."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.secret_fields: set[str] = set()
        self._told: dict[Path, str] = {}
        self.text_left = MOST_TEXT
        self._problems: dict[Problem, None] = {}
        self._hints_left = MOST_HINTS

    def add(self, file: str, line: int, where: str, text: str) -> None:
        self._problems[Problem(file, line, where, text)] = None

    def hide(self, path: Path, value: str, told: str = HIDDEN) -> None:
        """Remember that ``value`` is a secret and stands in the field at ``path``."""
        if value:
            self.secrets.add(value)
            self.secret_fields.add(".".join(map(str, path)))
            self.conceal(path, told)

    def conceal(self, path: Path, told: str = HIDDEN) -> None:
        """Messages about the field at ``path``, or about what it is part of, are to say ``told`` for its value."""
        for length in range(1, len(path) + 1):
            self._told.setdefault(path[:length], told)

    def told(self, path: Path) -> str | None:
        """What messages are to say for the value at ``path`` if a secret stands in it or in one of its items."""
        return self._told.get(path)

    def nearest(self, word: str, known: Collection[str]) -> str | None:
        """The known word that was probably meant, as long as there are not too many mistakes to look."""
        self._hints_left -= 1
        return wording.nearest(word, known) if self._hints_left >= 0 else None

    def problems(self) -> list[Problem]:
        """Every problem once, secrets masked."""
        return [Problem(p.file, p.line, p.where, mask(p.text, self.secrets)) for p in self._problems]


class Values(NamedTuple):
    """The keys of a table: those that could be read, those that could not, and what unknown ones were meant to be.

    ``bad`` holds for each key what could be read of its items all the same.
    """

    good: dict[str, Any]
    bad: Mapping[str, Mapping[Any, Any]] = {}
    meant: frozenset[str] = frozenset()

    def written(self, *keys: str) -> bool:
        """Whether one of ``keys`` stands there."""
        return any(key in self.good or key in self.bad for key in keys)

    def given(self, *keys: str) -> bool:
        """Whether one of ``keys`` stands there, or something that was probably meant to be it."""
        return self.written(*keys) or not self.meant.isdisjoint(keys)

    def unclear(self, *keys: str) -> bool:
        """Whether the value of one of ``keys`` is not known, because of a mistake that has been noted."""
        return any(key in self.bad or key in self.meant for key in keys)

    def items(self, key: str) -> list[tuple[int, Any]]:
        """The items of a list that could be read, with their positions."""
        return list(enumerate(self.good.get(key, ()))) or list(self.bad.get(key, {}).items())

    def part(self, key: str) -> Mapping[str, Any]:
        """The keys of a table that could be read."""
        found: Mapping[str, Any] = self.good.get(key) or self.bad.get(key, {})
        return found


class Reader:
    """Reads the tables of one document with one set of variables.

    ``broken`` are the variables whose assignments are wrong: that has been noted, and is all there is to say of them.
    """

    def __init__(
        self,
        file: str,
        lines: Lines,
        findings: Findings,
        variables: Mapping[str, str],
        broken: Collection[str] = (),
    ) -> None:
        self.file = file
        self.findings = findings
        self._lines = lines
        self._variables = variables
        self._broken = broken

    def line(self, path: Path) -> int:
        return self._lines.of(path)

    def fail(self, path: Path, text: str, otherwise: str = "", quoting: Sequence[Path] = ()) -> None:
        """Note what is wrong with the key at ``path``.

        A ``text`` that quotes values names the fields they are from in ``quoting`` (left out: the one at ``path``), and
        ``otherwise`` is how the message ends after what may be told of a field that holds a secret.
        """
        if otherwise:
            told = (self.findings.told(field) for field in quoting or (path,))
            text = next((f"{instead} {otherwise}" for instead in told if instead is not None), text)
        self.findings.add(self.file, self.line(path), dotted(path), text)

    def below(self, above: Path) -> Fail:
        """``fail`` for the keys of the table at ``above``."""

        def fail(path: Path, text: str, otherwise: str = "", quoting: Sequence[Path] = ()) -> None:
            self.fail((*above, *path), text, otherwise, [(*above, *field) for field in quoting])

        return fail

    def table(
        self, raw: Mapping[str, Any], fields: Mapping[str, Spec], path: Path, elsewhere: Mapping[str, str] | None = None
    ) -> Values:
        """Read every key. ``elsewhere`` says of keys that are known, but not here, where they belong."""
        good: dict[str, Any] = {}
        bad: dict[str, Mapping[Any, Any]] = {}
        meant: set[str] = set()
        for key, value in raw.items():
            spec = fields.get(key)
            if spec is None:
                reason = (elsewhere or {}).get(key)
                if reason is None:
                    reason, hint = self._unknown(key, fields)
                    meant |= {hint} - raw.keys() if hint else set()
                self.fail((*path, key), reason)
                continue
            result = self.read(value, spec, (*path, key))
            if isinstance(result, Bad):
                bad[key] = result.readable
            else:
                good[key] = result
        return Values(good, bad, frozenset(meant))

    def _unknown(self, key: str, fields: Mapping[str, Spec]) -> tuple[str, str | None]:
        """What to say of a key, and which one was probably meant."""
        hint = self.findings.nearest(key, fields)
        advice = f"did you mean {hint}?" if hint else f"known are {listed(fields, 'and')}"
        return f"unknown key; {advice}", hint

    def read(self, raw: Any, spec: Spec, path: Path) -> Any:
        """The value of one key in the model's terms, or ``BAD``."""
        if spec.table is not None and isinstance(raw, dict):
            spec = spec.table
        match spec.shape:
            case "table":
                if not isinstance(raw, dict):
                    return self._not(raw, spec, path)
                values = self.table(raw, spec.fields, path, spec.elsewhere)
                return Bad(values.good) if values.bad or values.meant else values.good
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
            return Bad()
        result: dict[str, str] = {}
        for name, value in raw.items():
            try:
                variable_name(name)
            except UsageError as error:
                self.fail((*path, name), str(error))
            if looks_secret(name):
                self.findings.conceal((*path, name))
            text = self.read(value, spec.item, (*path, name))
            if not isinstance(text, Bad):
                result[name] = text
                if looks_secret(name):
                    self.findings.hide((*path, name), text)
        return result

    def _list(self, raw: Any, spec: Spec, path: Path) -> Any:
        if spec.lone and isinstance(raw, str) and spec.item is not None:
            item = self.read(raw, spec.item, path)
            if told := self.findings.told(path):
                self.findings.conceal((*path, 0), told)
            return item if isinstance(item, Bad) else (item,)
        if not isinstance(raw, list) or spec.item is None or len(raw) < spec.least:
            return self._not(raw, spec, path)
        if len(raw) > spec.most:
            self.fail(path, f"{len(raw)} items; at most {spec.most} are allowed")
            return Bad()
        readable: dict[int, Any] = {}
        for number, value in enumerate(raw):
            item = self.read(value, spec.item if number or not spec.first else spec.first, (*path, number))
            if not isinstance(item, Bad):
                readable[number] = item
        result = self._parsed(tuple(readable.values()), spec, path)
        return Bad(readable) if isinstance(result, Bad) or len(readable) < len(raw) else result

    def _value(self, raw: Any, spec: Spec, path: Path) -> Any:
        value, replaced = raw, False
        if isinstance(raw, str):
            if "$" in raw:
                if self.findings.text_left < 0:
                    self.fail(path, f"more than {MOST_TEXT} characters of interpolated text in one declaration")
                    return Bad()
                try:
                    value, used, told = expand(raw, self._variables)
                except Unset as error:
                    if error.name not in self._broken:
                        self.fail(path, str(error))
                    return Bad()
                except UsageError as error:
                    self.fail(path, str(error), f"has a $ that begins none of {FORMS}; write $$ for a dollar sign")
                    return Bad()
                self.findings.text_left -= len(value)
                replaced = bool(used)
                for name, contribution in used:
                    if looks_secret(name):
                        self.findings.hide(path, contribution, shown(told))
            if "\0" in value:
                self.fail(path, "holds a NUL character, which nothing here can")
                return Bad()
            if replaced and not _is_unicode(value):
                self.fail(path, "holds bytes of the environment that are not UTF-8")
                return Bad()
        try:
            converted = _convert(value, spec.type, lax=replaced)
        except msgspec.ValidationError:
            return self._not(value, spec, path)
        return self._parsed(converted, spec, path)

    def _parsed(self, value: Any, spec: Spec, path: Path) -> Any:
        if spec.parse is None:
            return value
        try:
            return spec.parse(value)
        except UsageError as error:
            self.fail(path, self._told(error), f"is not {spec.expected}")
            return Bad()

    def _told(self, error: UsageError) -> str:
        if isinstance(error, Unknown) and (hint := self.findings.nearest(error.word, error.known)):
            return f"{error.message}; did you mean {error.known[hint]}?"
        return str(error)

    def _not(self, value: Any, spec: Spec, path: Path) -> Bad:
        text = f"{shown(value)} is not {spec.expected}"
        if spec.choices and isinstance(value, str) and (hint := self.findings.nearest(value, spec.choices)):
            text += f"; did you mean {hint}?"
        self.fail(path, text, f"is not {spec.expected}")
        return Bad()


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
