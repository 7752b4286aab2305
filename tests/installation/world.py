"""A host made of nothing but data, on which plans are tried: what each step does, and what is seen of it."""

from __future__ import annotations

import msgspec

from agent.installation.entry import Directory, Entry, File, Found, Link, name, parent, within
from agent.installation.goal import Declaration, Goal, anchor, optional_directories
from agent.installation.plan import Seen
from agent.installation.record import Record, library, place
from agent.installation.steps import (
    Begin,
    CreateDirectories,
    CreateUsers,
    Declare,
    DeleteUsers,
    Discard,
    End,
    Make,
    Note,
    Point,
    Reload,
    Remove,
    RemoveDirectory,
    RemoveTree,
    Step,
    Stop,
    Sync,
    Write,
)
from agent.installation.tree import MANIFEST
from agent.installation.units import SYSUSERS, TMPFILES, UNITS, Accounts, data

USER = "agent"


class World(msgspec.Struct):
    """``things`` by path; what runs, and what systemd last read."""

    prefix: str
    things: dict[str, Found]
    record: Record | None = None
    users: set[str] = set()
    enabled: set[str] = set()
    in_use: set[str] = set()
    loaded: dict[str, Found] = {}

    def copy(self) -> World:
        """Another world in the same state."""
        return msgspec.structs.replace(
            self, things=dict(self.things), users=set(self.users), enabled=set(self.enabled), loaded=dict(self.loaded)
        )

    def children(self, path: str) -> frozenset[str]:
        return frozenset(name(one) for one in [*self.things, *self.enabled] if parent(one) == path)

    def see(self, goal: Goal | None) -> Seen:
        """What ``observe`` would see."""
        laid = self.record.laid if self.record else ()
        links = goal.optional if goal else ()
        ways = [Directory(path) for link in links for path in optional_directories(link)]
        aims = (*goal.tree, *goal.setup, *goal.rest, *links, *ways) if goal else ()
        paths = {entry.path for entry in (*laid, *aims)} | {place(self.prefix)} | set(chain(self.prefix))
        directories = {path for path, found in self.things.items() if isinstance(found, Directory)}
        return Seen(
            record=self.record,
            entries={path: found for path, found in self.things.items() if path in paths},
            children={path: self.children(path) for path in directories},
            directories=frozenset(directories & set(data(self.prefix))),
            reachable=frozenset(link.path for link in links if self.reaches(link)),
            derived=tuple(sorted(self.enabled)),
            users=frozenset(self.users),
            groups=frozenset(self.users),
            in_use=frozenset(self.in_use),
            claims_met=all(path in directories for path in data(self.prefix)),
            declared=f"{self.prefix}/key/env.toml" in self.things,
            systemd=True,
        )

    def reaches(self, link: Link) -> bool:
        """Whether nothing but directories is on the way to a link, as far as it is there."""
        steps = [self.things.get(way) for way in optional_directories(link)]
        return isinstance(self.things.get(anchor(link)), Directory) and all(
            step is None or isinstance(step, Directory) for step in steps
        )

    def do(self, step: Step) -> None:
        """What ``perform`` would do, and what must hold when it does."""
        match step:
            case Begin(record):
                assert self.record is None
                for path in chain(self.prefix):
                    self.things.setdefault(path, Directory(path))
                self._note(record)
            case Note(record):
                assert self.record is not None
                self._note(record)
            case Make(entry):
                assert self.record and entry in self.record.laid, "laid before it was recorded"
                self._put(entry)
            case Write(entry, replace) | Point(entry, replace):
                assert self.record and entry in self.record.laid, "laid before it was recorded"
                assert replace == (entry.path in self.things)
                self._put(entry)
            case CreateUsers(files):
                assert files == ("agent.conf",) and f"{SYSUSERS}/agent.conf" in self.things
                assert self.record and (USER in self.users or USER in self.record.users)
                self.users.add(USER)
            case CreateDirectories(files):
                assert files == ("agent.conf",) and f"{TMPFILES}/agent.conf" in self.things and USER in self.users
                for path in data(self.prefix):
                    assert self.record and (path in self.things or path in self.record.data)
                    self.things.setdefault(path, Directory(path))
            case Declare(path):
                assert parent(path) in self.things and path not in self.things
                self.things[path] = File(path, "0640", "d" * 64)
            case Remove(path) | RemoveDirectory(path) | RemoveTree(path):
                if isinstance(step, RemoveDirectory):
                    assert not self.children(path), f"{path} is not empty"
                self._take(path)
            case DeleteUsers(users, groups):
                assert users == groups == (USER,)
                self.users.discard(USER)
            case Reload():
                self.loaded = {path: found for path, found in self.things.items() if within(path, UNITS)}
            case End(top):
                self.record = None
                del self.things[place(self.prefix)]
                for path in reversed(chain(self.prefix)):
                    if top and within(path, top):
                        assert not self.children(path), f"{path} is not empty"
                        del self.things[path]
            case Stop() | Sync() | Discard():
                pass

    def _note(self, record: Record) -> None:
        self.record = record
        self.things[place(self.prefix)] = Link(place(self.prefix), "stands for the record")

    def _put(self, entry: Entry) -> None:
        above = parent(entry.path)
        assert above == "/" or isinstance(self.things.get(above), Directory), f"nowhere to put {entry.path}"
        self.things[entry.path] = entry

    def _take(self, path: str) -> None:
        self.enabled.discard(path)
        self.things = {other: found for other, found in self.things.items() if not within(other, path)}


def chain(prefix: str) -> list[str]:
    """The directories down to the record."""
    parts = library(prefix).split("/")
    return ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]


def goal(prefix: str, version: str, build: str, extra: str = "") -> Goal:
    """An installation of few files, some of which differ from build to build."""
    top = f"{library(prefix)}/{version}"
    tree: list[Entry] = [
        File(f"{top}/{MANIFEST}", "0644", digest(version, build)),
        File(f"{top}/agentctl", "0755", digest("program", build)),
        Link(f"{top}/lib/libz.so", "libz.so.1"),
        File(f"{top}/lib/{extra or 'same'}", "0644", digest("library", extra)),
    ]
    setup: list[Entry] = [File(f"{above}/agent.conf", "0644", digest(above)) for above in (SYSUSERS, TMPFILES)]
    rest: list[Entry] = [
        File(f"{prefix}/share/man/man1/agentctl.1", "0644", digest("man", version)),
        File(f"{UNITS}/agent.service", "0644", digest("unit", version, build)),
        *([File(f"{UNITS}/agent-{extra}.timer", "0644", digest("unit", extra))] if extra else []),
        Link(f"{library(prefix)}/current", version),
        Link(f"{prefix}/bin/agentctl", "../lib/agent/current/agentctl"),
    ]
    return Goal(
        prefix,
        version,
        with_directories(tree),
        with_directories(setup),
        with_directories(rest),
        optional=(
            Link("/usr/local/share/man/man1/agentctl.1", f"{prefix}/share/man/man1/agentctl.1"),
            Link("/usr/local/bin/agentctl", f"{prefix}/bin/agentctl"),
        ),
        accounts=Accounts((USER,), (USER,)),
        declaration=Declaration(f"{prefix}/key/env.toml", USER),
        whole=True,
    )


def bare(whole: Goal) -> Goal:
    """Only the tree of a goal."""
    return Goal(whole.prefix, whole.version, whole.tree)


def with_directories(entries: list[Entry]) -> tuple[Entry, ...]:
    above = {
        "/".join(entry.path.split("/")[:count]) for entry in entries for count in range(2, entry.path.count("/") + 1)
    }
    return (*(Directory(path) for path in sorted(above)), *entries)


def digest(*words: str) -> str:
    """A digest that differs with the words."""
    return "".join(words).encode().hex().ljust(64, "0")[-64:]
