"""``key/env.toml``, its projects and its variables, read into a ``Declaration``, or everything that is wrong with them.

The order of things: a file is read (bounded), scanned for the lines of its keys, parsed by ``tomllib``, and then each
service is read key by key with the variables that hold for it. Variables come from, in rising precedence, ``.env``
beside the declaration, the service's ``env_file``, and the agent's environment.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agent.declaration.calendar import Calendar
from agent.declaration.check import service_name, variable_name
from agent.declaration.envfile import Mistake, parse_env
from agent.declaration.locate import DEEPEST, Lines, TooDeep, locate
from agent.declaration.masking import looks_secret
from agent.declaration.misread import ELSEWHERE, advice, named, remedy, syntax_error
from agent.declaration.model import AgentSettings, AnyService, Declaration, Expect, Notify
from agent.declaration.reader import Bad, Findings, Reader, Values
from agent.declaration.resolve import Host, resolve
from agent.declaration.schema import AGENT, MOST_SERVICES, OF_KIND, SHARED, Kind
from agent.declaration.sections import (
    OF_ALL,
    OF_HOST,
    WATCH,
    read_expect,
    read_notify,
    read_port_sets,
    read_scanning,
    tables,
    watch,
)
from agent.declaration.sources import Disk, Sources, Unreadable
from agent.declaration.wording import dotted, listed, plain, shown
from agent.errors import DeclarationError, UsageError
from agent.linux.owner import stranger
from agent.paths import Paths

_MANY_DIGITS = re.compile(r"[0-9][0-9_]{4000}")


def load(paths: Paths, environ: Mapping[str, str], sources: Sources | None = None) -> Declaration:
    """Read the declaration of ``paths``, or the credential of its name. ``environ`` is the agent's environment.

    Raises ``DeclarationError`` with every problem of every file, and nothing else whatever the files hold.
    """
    return _load(paths, environ, sources, None)


def load_text(text: str, paths: Paths, environ: Mapping[str, str], sources: Sources | None = None) -> Declaration:
    """As ``load``, with ``text`` in place of the declaration's file; what goes with it is read from ``sources``."""
    return _load(paths, environ, sources, text)


def _load(paths: Paths, environ: Mapping[str, str], sources: Sources | None, text: str | None) -> Declaration:
    loading = _Loading(paths, environ, sources or Disk(stranger=stranger(*paths.owned)))
    loading.declaration(text)
    if problems := loading.findings.problems():
        raise DeclarationError(problems)
    return loading.result()


MOST_SPENT = 200
"""Calendars that never elapse and are looked for: a search for what does not exist takes tens of milliseconds."""


class _Document(NamedTuple):
    """One TOML file."""

    file: str
    lines: Lines
    table: dict[str, Any]
    project: str | None = None


class _Loading:
    """One run over all files of a declaration."""

    def __init__(self, paths: Paths, environ: Mapping[str, str], sources: Sources) -> None:
        self.paths = paths
        self.environ = environ
        self.sources = sources
        self.file = paths.declaration
        self.findings = Findings()
        self.services: dict[str, AnyService] = {}
        self.places: dict[str, str] = {}
        self.settings = AgentSettings(sources.server())
        self.shared_variables: dict[str, str] = {}
        self.broken_variables: set[str] = set()
        self.env_files: dict[Path, tuple[dict[str, str], list[Mistake]]] = {}
        self.host = Host(sources.memory(), self._elapses, self._target_file)
        self.spent_left = MOST_SPENT
        self.expects: dict[str, Expect] = {}
        self.notifies: dict[str, Notify] = {}
        self.target_files: dict[Path, str] = {}

    def result(self) -> Declaration:
        watching = watch(self.services, self.expects, self.notifies)
        return Declaration(
            agent=self.settings,
            services=self.services | ({} if watching is None else {WATCH: watching}),
            file=str(self.file),
            scanning=self.host.scanning,
            ports=dict(self.host.sets),
            expects=self.expects,
            notifies=self.notifies,
            masked=frozenset(self.findings.secrets),
            masked_fields=frozenset(self.findings.secret_fields),
        )

    def _elapses(self, calendar: Calendar) -> bool:
        """Whether there ever is such a time. One that cannot be looked for any more is thought to have one.

        Ever, and not "from now on": a date that has passed must not keep a host that reboots from starting the rest.
        """
        for event in (msgspec.structs.replace(calendar, also=()), *calendar.also):
            if self.spent_left <= 0 or event.next_elapse(0.0) is not None:
                return True
            self.spent_left -= 1
        return False

    def declaration(self, text: str | None) -> None:
        """Read everything: the shared variables, the declaration itself, its projects."""
        self._read_shared_variables()
        if text is None:
            text = self._main_text()
        main = self._document(self.file, text, None) if text is not None else None
        if main is not None:
            self._agent(main)
            self._of_host(main)
            self._services(main, "service")
            self._expects(main)
            self._check_sections(main, (*OF_HOST, *OF_ALL))
        for path in self._projects():
            try:
                project = service_name(path.stem)
            except UsageError as error:
                self._file_problem(path, f"the file's name is the project's: {error}")
                continue
            document = self._document(path, None, project)
            if document is not None:
                self._services(document, "service")
                self._expects(document)
                self._check_sections(document, OF_ALL)
        if WATCH in self.places and (self.expects or self.notifies):
            self._taken(WATCH)

    def _main_text(self) -> str | None:
        """The text of the declaration, which may be a credential; ``None`` when there is none, and that is noted.

        What this user may read for itself is up to date: a credential is as it was when systemd started the unit.
        """
        try:
            return self.sources.read(self.file)
        except Unreadable as refusal:
            credential = self.paths.credential(self.file.name) if refusal.missing or refusal.withheld else None
            if credential is None:
                self._file_problem(self.file, f"{refusal}{remedy(refusal, self.paths)}")
                return None
        self.file = credential
        try:
            return self.sources.read(credential)
        except Unreadable as error:
            self._file_problem(credential, f"{error}; it is a credential")
            return None

    def _read_shared_variables(self) -> None:
        path = self.paths.key / ".env"
        try:
            self.shared_variables, mistakes = parse_env(self.sources.read(path))
        except Unreadable as error:
            if not error.missing:
                self._file_problem(path, str(error))
            return
        for mistake in mistakes:
            self.findings.add(named(path), mistake.line, "", mistake.text)
            self.broken_variables.add(mistake.name)

    def _projects(self) -> list[Path]:
        try:
            return self.sources.projects(self.paths.projects)
        except Unreadable as error:
            self._file_problem(self.paths.projects, str(error))
            return []

    def _file_problem(self, path: Path, text: str, line: int = 0) -> None:
        self.findings.add(named(path), line, "", text)

    def _document(self, path: Path, text: str | None, project: str | None) -> _Document | None:
        """Read and parse one file; ``None`` when that cannot be done, and that has been noted."""
        try:
            text = self.sources.read(path) if text is None else text
        except Unreadable as error:
            self._file_problem(path, str(error))
            return None
        if text.startswith("\ufeff"):
            self._file_problem(path, "begins with a byte order mark, which TOML has not; save it as UTF-8 without", 1)
            return None
        try:
            lines = locate(text)
            return _Document(named(path), lines, tomllib.loads(text), project)
        except TooDeep as error:
            self._file_problem(
                path, f"nested deeper than {DEEPEST} levels; no key here needs more than four", error.line
            )
        except RecursionError:
            self._file_problem(path, "nested too deeply")
        except tomllib.TOMLDecodeError as error:
            self._file_problem(path, *syntax_error(str(error), text))
        except ValueError:  # int() of thousands of digits, of which tomllib does not think
            match = _MANY_DIGITS.search(text)
            line = text.count("\n", 0, match.start()) + 1 if match else 0
            self._file_problem(path, "a number of thousands of digits", line)
        return None

    def _reader(self, document: _Document, variables: Mapping[str, str] = {}, broken: Collection[str] = ()) -> Reader:
        variables = {**self.shared_variables, **variables, **self.environ}
        return Reader(document.file, document.lines, self.findings, variables, {*self.broken_variables, *broken})

    def _check_sections(self, document: _Document, known: tuple[str, ...]) -> None:
        """Tell what is no section. What was probably meant to be one that holds services is read as such."""
        reader = self._reader(document)
        for section in document.table:
            if section in known:
                continue
            if section in OF_HOST:
                reader.fail(
                    (section,), f"a project declares services and what is expected; move this to {self.file.name}"
                )
            else:
                hint = self.findings.nearest(section, known)
                advice = f"did you mean {hint}?" if hint else f"known are {listed(known, 'and')}"
                reader.fail((section,), f"unknown section; {advice}")
                if hint == "service" and isinstance(document.table[section], dict):
                    self._services(document, section)

    def _agent(self, document: _Document) -> None:
        reader = self._reader(document)
        raw = document.table.get("agent", {})
        if not isinstance(raw, dict):
            reader.fail(("agent",), f"{shown(raw)} is not a table; write [agent]")
            return
        values = reader.table(raw, AGENT, ("agent",)).good
        self.settings = AgentSettings(
            server=values.get("server", self.settings.server),
            group=values.get("group"),
            heartbeat_interval=values.get("heartbeat", {}).get("interval", self.settings.heartbeat_interval),
            scheduler=values.get("scheduler", self.settings.scheduler),
        )

    def _of_host(self, document: _Document) -> None:
        """What concerns the whole host: budgets, sets of ports, who is told."""
        reader = self._reader(document)
        self.host = self.host._replace(
            server=self.settings.server,
            scanning=read_scanning(reader, document.table.get("scanning", {})),
            sets=read_port_sets(reader, document.table.get("ports", {})),
        )
        for name, raw in tables(reader, document.table.get("notify", {}), "notify").items():
            notify = read_notify(reader, name, raw)
            if notify is None:
                continue
            self.notifies[name] = notify
            if notify.secret is not None:
                self._secret(notify.secret, reader, ("notify", name, "secret"))

    def _expects(self, document: _Document) -> None:
        reader = self._reader(document)
        for name, raw in tables(reader, document.table.get("expect", {}), "expect").items():
            self._once(reader, ("expect", name), "an expectation")
            expect = read_expect(reader, name, raw, document.project, self.host.sets)
            if expect is not None:
                self.expects[name] = expect

    def _once(self, reader: Reader, path: tuple[str, str], what: str) -> None:
        """Tell of what is declared a second time."""
        place = f"{reader.file}:{reader.line(path)}"
        key = path[1] if path[0] != "expect" else f"expect.{path[1]}"
        if (first := self.places.setdefault(key, place)) != place:
            reader.fail(path, f"declared before, at {first}; {what} is declared once")

    def _taken(self, name: str) -> None:
        file, _, line = self.places[name].rpartition(":")
        text = f"the name {name} is that of the service which [expect] and [notify] start; choose another"
        self.findings.add(file, int(line), f"service.{name}", text)

    def _target_file(self, path: Path) -> str:
        if path not in self.target_files:
            self.target_files[path] = self.sources.read(path)
        return self.target_files[path]

    def _services(self, document: _Document, section: str) -> None:
        reader = self._reader(document)
        table = document.table.get(section, {})
        if not isinstance(table, dict):
            reader.fail((section,), f"{shown(table)} is not a table; write [service.NAME]")
            return
        if len(table) + len(self.services) > MOST_SERVICES:
            reader.fail((section,), f"more than {MOST_SERVICES} services")
            return
        for name, raw in table.items():
            path = (section, name)
            try:
                service_name(name)
            except UsageError as error:
                reader.fail(path, str(error))
            self._once(reader, path, "a service")
            if isinstance(raw, dict):
                self._service(document, path, raw)
            else:
                reader.fail(path, f"{shown(raw)} is not a table; write [service.{plain(name)}]")

    def _service(self, document: _Document, path: tuple[str, str], raw: dict[str, Any]) -> None:
        """Read one service and note everything that is wrong with it."""
        environment, broken = self._env_files(document, path, raw)
        reader = self._reader(document, environment, broken)
        kind = self._kind(raw, reader, path)
        fields = dict(SHARED)
        for fields_of_kind in OF_KIND.values() if kind is None else [OF_KIND[kind]]:
            fields |= fields_of_kind
        rest = {key: value for key, value in raw.items() if key not in ("kind", "env_file")}
        values = reader.table(rest, fields, path, ELSEWHERE.get(kind))
        if "kind" not in raw and not values.given("kind"):
            reader.fail(path, f"kind is missing; {advice(raw)}")
        self._secrets(environment, values, reader, path)
        service = resolve(path[1], kind, values, environment, document.project, self.host, reader.below(path))
        if service is not None:
            self.services[path[1]] = service

    def _secrets(self, environment: dict[str, str], values: Values, reader: Reader, path: tuple[str, str]) -> None:
        """Hide what ``env_file`` has of secrets, and look at the files of those that are named."""
        for variable, value in environment.items():
            if looks_secret(variable) and variable not in values.good.get("environment", {}):
                self.findings.hide((*path, "environment", variable), value)
        for number, secret in values.items("secrets"):
            self._secret(secret, reader, (*path, "secrets", number))

    def _secret(self, secret: str, reader: Reader, path: tuple[str | int, ...]) -> None:
        file = self.paths.secret(secret)
        if objection := self.sources.objection(file, credential=file.parent == self.paths.credentials):
            reader.fail(path, objection, "names no file that can be used as a secret")

    def _kind(self, raw: dict[str, Any], reader: Reader, path: tuple[str, str]) -> Kind | None:
        kind = reader.read(raw["kind"], SHARED["kind"], (*path, "kind")) if "kind" in raw else None
        return None if isinstance(kind, Bad) else kind

    def _env_files(
        self, document: _Document, path: tuple[str, str], raw: dict[str, Any]
    ) -> tuple[dict[str, str], set[str]]:
        """The variables of a service's ``env_file``, and the names of those that it should have set and did not."""
        reader = self._reader(document)
        environment: dict[str, str] = {}
        broken: set[str] = set()
        if "env_file" in raw:
            files = reader.read(raw["env_file"], SHARED["env_file"], (*path, "env_file"))
            readable = files.readable if isinstance(files, Bad) else dict(enumerate(files))
            for number, file in readable.items():
                variables, mistakes = self._env_file(file, reader, (*path, "env_file", number))
                environment |= variables
                broken |= {mistake.name for mistake in mistakes}
        return environment, broken

    def _env_file(self, file: str, reader: Reader, key: tuple[str | int, ...]) -> tuple[dict[str, str], list[Mistake]]:
        """What one ``env_file`` holds; what is wrong with it is noted, once per file."""
        path = self.paths.key / file
        if path in self.env_files:
            return self.env_files[path]
        name = self.findings.told(key) or named(path)
        try:
            variables, mistakes = parse_env(self.sources.read(path))
        except Unreadable as error:
            reader.fail(key, f"{name} {error}")
            return {}, []
        self.env_files[path] = variables, mistakes
        for mistake in mistakes:
            self.findings.add(name, mistake.line, dotted(key), mistake.text)
        for variable in variables:
            try:
                variable_name(variable)
            except UsageError as error:
                reader.fail(key, f"{plain(variable)} in {name} is {error}")
        return variables, mistakes
