"""What was told, folded: who, what, since when, until when. Pure, and bounded in every direction.

Folding takes the least of first times and the greatest of last ones. So as long as nothing had to make room, the order
of sightings does not matter, nor how often each is folded. What makes room is what was seen the longest time ago.

Three tables, so that none crowds another out: stations by their MAC, addresses of whom no MAC is told (behind a router,
or seen to offer a service), and hearsay about addresses. Of addresses those that a station has stay longer than others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.workers.inventory.sighting import FACTS, LONGEST, NAME, SEEN, SERVICE, Sighting

ADDRESS = "address"
"""A fact about a station: that it has this address."""

Span = tuple[int, int, str]
"""When a fact was told first and last, and if it is hearsay, who was told so last."""


class Limits(NamedTuple):
    """``hosts``: rows of each table. ``facts``: of all rows together. The others: facts of that kind in one row."""

    hosts: int = 10_000
    facts: int = 100_000
    addresses: int = 64
    names: int = 16
    services: int = 256
    others: int = 16


USUAL = Limits()


class Key(NamedTuple):
    """Whom a row is about: on an interface and a VLAN a MAC or an address; in hearsay an address alone."""

    interface: str
    vlan: int
    identity: str


@dataclass(slots=True)
class Row:
    """When somebody was seen first and last, and what is told of it: kind of fact -> (value, source) -> when."""

    first: int
    last: int
    facts: dict[str, dict[tuple[str, str], Span]] = field(default_factory=dict)

    def count(self) -> int:
        """How many facts there are."""
        return sum(map(len, self.facts.values()))


Rows = dict[Key, Row]


class Table:
    """Everybody who was seen. ``evicted``: rows, and ``trimmed``: facts, that made room. ``edition`` is another one
    whenever ``known`` may say something else.
    """

    def __init__(self, limits: Limits = USUAL) -> None:
        self.limits = limits
        self.stations: Rows = {}
        self.addresses: Rows = {}
        self.heard: Rows = {}
        self.facts = 0
        self.evicted = 0
        self.trimmed = 0
        self.edition = 0
        self._most = {ADDRESS: limits.addresses, NAME: limits.names, SERVICE: limits.services}

    def fold(self, sightings: Iterable[Sighting], interface: str) -> None:
        """Take in what was sighted on an interface."""
        for told in sightings:
            when = (told.first, told.last, told.asker)
            if told.asker:
                rows, key = self.heard, Key("", 0, told.address)
            elif told.mac:
                rows, key = self.stations, Key(interface, told.vlan, told.mac)
                if told.address:
                    self.put(rows, key, ADDRESS, told.address, told.source, when)
            else:
                rows, key = self.addresses, Key(interface, told.vlan, told.address)
            self.put(rows, key, told.fact, told.value, told.source, when)

    def put(self, rows: Rows, key: Key, kind: str, value: str, source: str, when: Span) -> None:
        """One fact into a row of one of the tables; of the kind ``SEEN`` nothing but that it was seen."""
        row = rows.get(key)
        if row is None:
            row = rows[key] = Row(when[0], when[1])
            self.edition += 1
        else:
            row.first, row.last = min(row.first, when[0]), max(row.last, when[1])
        if kind != SEEN and (kind in FACTS or kind == ADDRESS):
            self._tell(row, kind, (value[:LONGEST], source), when)
        if len(rows) > self.limits.hosts:
            self._evict(rows)
        if self.facts > self.limits.facts:
            self._make_room()

    def _tell(self, row: Row, kind: str, fact: tuple[str, str], when: Span) -> None:
        known = row.facts.setdefault(kind, {})
        before = known.get(fact)
        if before is not None:
            known[fact] = _joined(before, when)
            return
        known[fact] = when
        self.facts += 1
        self.edition += kind == ADDRESS
        if len(known) > self._most.get(kind, self.limits.others):
            del known[min(known, key=lambda fact: (known[fact][1], fact))]
            self.facts -= 1
            self.trimmed += 1

    def _evict(self, rows: Rows) -> None:
        """A sixteenth of the rows at once: to look for the oldest each time would take as long as there are rows."""
        held = set(self._held()) if rows is self.addresses else set()
        oldest = sorted(rows, key=lambda key: (key in held, rows[key].last, key))
        for key in oldest[: 1 + self.limits.hosts // 16]:
            self._remove(rows, key)

    def _make_room(self) -> None:
        everybody = [(row.last, number, key) for number, rows in enumerate(self.tables()) for key, row in rows.items()]
        tables = self.tables()
        for _, number, key in sorted(everybody):
            if self.facts <= self.limits.facts - self.limits.facts // 16:
                break
            self._remove(tables[number], key)

    def _remove(self, rows: Rows, key: Key) -> None:
        self.facts -= rows.pop(key).count()
        self.edition += 1
        self.evicted += 1

    def tables(self) -> tuple[Rows, Rows, Rows]:
        """Stations, addresses, hearsay."""
        return self.stations, self.addresses, self.heard

    def _held(self) -> Iterator[Key]:
        """The addresses that stations have."""
        for key, row in self.stations.items():
            for address, _ in row.facts.get(ADDRESS, ()):
                yield Key(key.interface, key.vlan, address)

    def known(self) -> dict[str, set[tuple[int, str]]]:
        """By interface the addresses that somebody there has, each with its VLAN."""
        found: dict[str, set[tuple[int, str]]] = {}
        for key in (*self._held(), *self.addresses):
            found.setdefault(key.interface, set()).add((key.vlan, key.identity))
        return found


def _joined(one: Span, other: Span) -> Span:
    """From the first of both to the last of both; told to whom it was told last."""
    last, asker = max(one[1:], other[1:])
    return min(one[0], other[0]), last, asker
