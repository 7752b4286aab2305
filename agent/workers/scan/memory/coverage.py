"""What a run really asked, and whether the answer counts.

Two runs can be compared only where both asked. A host that answered was asked for what stands in its picture. For the
others ranges of addresses are kept, each with the ports that were asked for there and what came of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import msgspec

from agent.errors import StorageFailure
from agent.workers.scan.found import PROTOCOLS
from agent.workers.scan.memory.picture import PortSet
from agent.workers.scan.memory.place import Line, pack, place, ranges, unpack
from agent.workers.scan.plan import Family
from agent.workers.scan.spans import Ranges, holds, merge

Outcome = Literal["silent", "timed_out", "blind", "dark", "settled"]
"""``silent``: asked to the end, and nobody answered. ``timed_out``: given up before that.

Three are said of addresses beside all else: what was not seen there is not to be believed, because the scan itself did
not see (``blind``), or because nobody answered of several that should have (``dark``); or it is, because that has been
so for long (``settled``).
"""

WITHHELD: Final = ("blind", "dark")

COVERED: Final = ("answered", "silent")
"""Outcomes that say something about a host."""

_ELSE: Final = "the database holds something else where it should say which addresses were asked"

_FIRST: Final = ("answered", *WITHHELD, "silent")  # of several outcomes, the one that counts


@dataclass(frozen=True, slots=True)
class Asked:
    """Addresses of one line that were asked for the same ports with the same outcome. No ports: only for a sign."""

    line: Line
    addresses: Ranges
    ports: PortSet
    outcome: Outcome


def asked(addresses: Iterable[str], ports: PortSet = (), outcome: Outcome = "silent") -> tuple[Asked, ...]:
    """These addresses as ``Asked``. Raises ``ValueError`` for what is no address."""
    return tuple(Asked(line, found, ports, outcome) for line, found in ranges(addresses).items())


def joined(parts: Iterable[Asked]) -> tuple[Asked, ...]:
    """The same with ranges that touch made one."""
    found: dict[tuple[Line, PortSet, Outcome], list[tuple[int, int]]] = {}
    for part in parts:
        found.setdefault((part.line, part.ports, part.outcome), []).extend(part.addresses)
    return tuple(Asked(line, merge(every), ports, outcome) for (line, ports, outcome), every in found.items())


def write_ports(ports: PortSet) -> str:
    """A set of ports as the database keeps it: equal sets as equal text."""
    return msgspec.json.encode(ports).decode()


def read_ports(written: str) -> PortSet:
    """What ``write_ports`` wrote. Raises ``StorageFailure``."""
    try:
        ports = msgspec.json.decode(written, type=PortSet)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise StorageFailure(f"the database holds {written[:40]!r} where a set of ports should be") from error
    return tuple((protocol, merge(found)) for protocol, found in ports if protocol in PROTOCOLS)


def port_set(connection: sqlite3.Connection, ports: PortSet) -> int:
    """The number under which a set of ports is kept, the same for equal ones."""
    written = write_ports(ports)
    row = connection.execute("SELECT id FROM port_sets WHERE ports = ?", (written,)).fetchone()
    if row is None:
        return int(connection.execute("INSERT INTO port_sets (ports) VALUES (?)", (written,)).lastrowid or 0)
    return int(row[0])


def has(ports: PortSet, protocol: str, number: int) -> bool:
    """Whether a set has this port."""
    return any(holds(found, number) for name, found in ports if name == protocol)


SINGLY: Final = 16
"""Addresses that are looked up one by one. A range may hold an address wherever it begins, so each look goes through
half of the ranges; for more of them all are read, once."""


class Coverage:
    """What one run asked; the first questions cost a look or two into the database each."""

    def __init__(self, connection: sqlite3.Connection, run: int, site: str) -> None:
        self._ask: Callable[[str, tuple[object, ...]], sqlite3.Cursor] = partial(_ask, connection)
        self._run = run
        self._site = site
        self._sets: dict[int, PortSet] = {}
        self._looks = 0
        self._read: dict[Line, dict[tuple[int, str], Ranges]] = {}

    def outcome(self, address: str) -> str:
        """``answered``, an ``Outcome``, or empty: not asked."""
        found = [outcome for outcome, _ in self._of(address)]
        return next((outcome for outcome in _FIRST if outcome in found), found[0] if found else "")

    def looked(self, address: str) -> bool:
        """Whether the run would have seen a host there."""
        return any(outcome in COVERED for outcome, _ in self._of(address))

    def withheld(self, address: str) -> str:
        """``blind`` or ``dark`` when what the run did not see there may well be there; else empty."""
        said = self.unseen(address)[1]
        return said if said in WITHHELD else ""

    @property
    def partly(self) -> bool:
        """Whether the run was degraded for some of its addresses only, those that are ``withheld``."""
        row = self._ask(
            "SELECT 1 FROM coverage WHERE run = ? AND outcome IN ('blind', 'dark') LIMIT 1", (self._run,)
        ).fetchone()
        return row is not None

    def ports(self, address: str) -> PortSet:
        """The ports about which the run can tell there."""
        return union(ports for outcome, ports in self._of(address) if outcome in COVERED)

    def asked(self, address: str, protocol: str, number: int) -> bool:
        """Whether the run can tell about this port."""
        return any(outcome in COVERED and has(ports, protocol, number) for outcome, ports in self._of(address))

    def without_picture(self) -> Iterator[Asked]:
        """The addresses of which no host is known, in order."""
        rows = self._ask(
            "SELECT family, zone, low, high, ports, outcome FROM coverage WHERE run = ?"
            " AND outcome NOT IN ('blind', 'dark', 'settled')",
            (self._run,),
        )
        for family, zone, low, high, ports, outcome in rows:
            if {type(zone), type(outcome)} != {str}:
                raise StorageFailure(_ELSE)
            line = Line(_family(family), zone)
            yield Asked(line, (_range(line.family, low, high),), self._set(ports), outcome)

    def unseen(self, address: str) -> tuple[PortSet | None, str]:
        """The ports that were asked there when nobody answered, beyond any picture, ``None`` when it was not asked; and
        ``blind``, ``dark`` or ``settled`` where that is said."""
        found = list(self._ranges(address))
        silent = [ports for outcome, ports in found if outcome == "silent"]
        outcomes = {outcome for outcome, _ in found}
        said = next((outcome for outcome in (*WITHHELD, "settled") if outcome in outcomes), "")
        return union(silent) if silent else None, said

    def _of(self, address: str) -> Iterator[tuple[str, PortSet]]:
        row = self._ask(
            "SELECT pictures.ports FROM hosts JOIN seen ON seen.run = ? AND seen.host = hosts.id"
            " JOIN pictures ON pictures.id = seen.picture WHERE hosts.site = ? AND hosts.address = ?",
            (self._run, self._site, address),
        ).fetchone()
        if row is not None:
            yield "answered", self._set(row[0])
        yield from self._ranges(address)

    def _ranges(self, address: str) -> Iterator[tuple[str, PortSet]]:
        try:
            line, number = place(address)
        except ValueError:
            return
        self._looks += 1
        if self._looks > SINGLY:
            for (ports, outcome), found in self._all(line).items():
                if holds(found, number):
                    yield outcome, self._set(ports)
            return
        (family, zone), packed = line, pack(line.family, number)
        rows = self._ask(
            "SELECT ports, outcome FROM coverage WHERE run = ? AND family = ? AND zone = ? AND low <= ? AND high >= ?",
            (self._run, family, zone, packed, packed),
        )
        for ports, outcome in rows.fetchall():
            yield outcome, self._set(ports)

    def _all(self, line: Line) -> Mapping[tuple[int, str], Ranges]:
        """All ranges of a line, by the set of ports and what came of them."""
        if line not in self._read:
            rows = self._ask(
                "SELECT ports, outcome, low, high FROM coverage WHERE run = ? AND family = ? AND zone = ?",
                (self._run, *line),
            )
            found: dict[tuple[int, str], list[tuple[int, int]]] = {}
            for ports, outcome, low, high in rows:
                found.setdefault((ports, outcome), []).append(_range(line.family, low, high))
            self._read[line] = {key: merge(every) for key, every in found.items()}
        return self._read[line]

    def _set(self, number: int) -> PortSet:
        if number not in self._sets:
            row = self._ask("SELECT ports FROM port_sets WHERE id = ?", (number,)).fetchone()
            self._sets[number] = read_ports(row[0]) if row else ()
        return self._sets[number]


def union(sets: Iterable[PortSet]) -> PortSet:
    """All ports that any of the sets has."""
    found: dict[str, list[tuple[int, int]]] = {}
    for ports in sets:
        for protocol, ranges_ in ports:
            found.setdefault(protocol, []).extend(ranges_)
    return tuple((protocol, merge(found[protocol])) for protocol in PROTOCOLS if protocol in found)


def _family(number: int) -> Family:
    return 4 if number == 4 else 6


def _range(family: Family, low: object, high: object) -> tuple[int, int]:
    """Both ends as they are kept. Raises ``StorageFailure`` for what is no range of addresses."""
    if not (isinstance(low, bytes) and isinstance(high, bytes) and len(low) == len(high) == len(pack(family, 0))):
        raise StorageFailure(_ELSE)
    return unpack(low), unpack(high)


def _ask(connection: sqlite3.Connection, query: str, values: tuple[object, ...]) -> sqlite3.Cursor:
    return connection.execute(query, values)
