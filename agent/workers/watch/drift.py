"""Drift: four sources held against each other, row by row. Pure: data in, rows out, and no clock but ``now``.

What each kind of row means and how grave it is stands in ``row``. Two rules hold throughout. What a scan has not asked
for, it says nothing about. And what is newer counts: a port that a scan found closed, and that was seen to answer or
began to listen afterwards, is not taken to be closed.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from heapq import nsmallest
from itertools import count
from typing import Final, NamedTuple

from agent.declaration.targets import objection
from agent.telemetry.kinds import DriftKind, DriftSeverity
from agent.workers.scan.found import Port
from agent.workers.watch import evidence
from agent.workers.watch.expectation import Bearing, Bearings, Expectation, Wanted, answers, differs
from agent.workers.watch.listening import Listener
from agent.workers.watch.moved import moved
from agent.workers.watch.row import Evidence, Row, graver
from agent.workers.watch.sources import Claim, DeclaredPort, Key, Known, Look, Looks, Scanned, Sight, Sources
from agent.workers.watch.view import View

MOST: Final = 10_000
"""Rows; the gravest are kept."""

SEEN_WITHIN: Final = 7 * 86400.0
"""Seconds for which a sight counts: what talks once a week is still there."""

LATELY: Final = 3600.0
"""Seconds for which a sight outweighs that nothing listens: where addresses are translated, no socket is needed."""

_TOLD = 5  # of many ports, by their numbers


Pair = tuple[Expectation, Wanted]


class Judged(NamedTuple):
    """``rows``, the gravest first; ``left_out`` of them, beyond ``MOST``; ``notes`` on what could not be judged."""

    rows: list[Row]
    notes: list[str]
    left_out: int = 0


class _Unasked:
    """What is expected to be open, and which of that no scan of any site has asked for."""

    def __init__(self) -> None:
        self._expected: dict[str, set[tuple[str, Key]]] = defaultdict(set)
        self._known: set[tuple[str, Key]] = set()

    def count(self, names: Iterable[str], host: str, key: Key, *, known: bool) -> None:
        for name in names:
            self._expected[name].add((host, key))
        if known:
            self._known.add((host, key))

    def notes(self) -> Iterator[str]:
        for name, expected in sorted(self._expected.items()):
            if left := sorted(f"{host} {protocol}/{port}" for host, (protocol, port) in expected - self._known):
                yield f"expect.{name}: no scan has asked for {len(left)} of its {len(expected)} ports: {_some(left)}"


def judge(sources: Sources, now: float, *, most: int = MOST) -> Judged:
    """Hold the sources against each other at ``now``, unix seconds; at most so many rows."""
    bearings, unasked, made = Bearings(sources.expectations), _Unasked(), count()

    def every() -> Iterator[Row]:
        for site in sorted({"", *(scanned.site for scanned in sources.scans)}):
            yield from _Place(sources, site, bearings, unasked, now).rows()
        yield from _not_listening(sources, now)

    # Rows are made one by one, and most of very many forgotten again.
    numbered = ((row.order, next(made), row) for row in every())
    rows = [row for _, _, row in nsmallest(most, numbered)]
    return Judged(rows, list(unasked.notes()), max(0, next(made) - most))


class _Place:
    """One site. This host and its captures are at the one without a name."""

    def __init__(self, sources: Sources, site: str, bearings: Bearings, unasked: _Unasked, now: float) -> None:
        here = not site
        self._sources = sources
        self._site = site
        self._now = now
        self._bearings = bearings
        self._unasked = unasked
        self._looks = Looks((scanned for scanned in sources.scans if scanned.site == site), now)
        self._own = sources.own if here else frozenset[str]()
        self._listening = sources.listening if here else None
        self._here = [one for one in self._listening or () if not one.space]
        self._inside: dict[str, list[Listener]] = defaultdict(list)  # other network namespaces on it, by address
        for listener in self._listening or ():
            for address in listener.addresses:
                self._inside[address].append(listener)
        self._present = {*self._own, *self._inside}
        self._sights: dict[str, dict[Key, list[Sight]]] = {}
        for sight in sources.sights if here else ():
            if sight.last >= now - SEEN_WITHIN:
                ports = self._sights.setdefault(sight.address, {})
                ports.setdefault((sight.protocol, sight.port), []).append(sight)
        self._claims: tuple[Claim, ...] = sources.claims if here else ()

    def rows(self) -> Iterator[Row]:
        """Everything that differs at this site."""
        named = {host for one in self._sources.expectations for host in one.named}
        for host in {*named, *self._looks.up(), *self._present, *self._sights}:
            yield from self._host(host, named=host in named)
        yield from moved(self._claims, self._looks, self._bearings, self._now)

    def _host(self, host: str, *, named: bool) -> Iterator[Row]:
        bearing = self._bearings.of(host)
        asked = self._looks.host(host)
        sights = self._sights.get(host, {})
        if not named and asked is None and not sights and not bearing.expectations and host not in self._own:
            return  # somebody else's network, of which nobody says anything
        wanted: dict[Key, list[Pair]] = defaultdict(list)
        if named or asked is not None or host in self._present:  # of a network those that are there
            for expectation, one in bearing.wanted:
                wanted[one.protocol, one.port].append((expectation, one))
        if (down := self._looks.down(host)) is not None and host not in self._present:
            answered = any(sight.last > down[1].began for group in sights.values() for sight in group)
            if not answered:
                if named and wanted:
                    yield self._down(host, bearing, sorted(wanted), *down)
                    self._count(host, wanted)
                return
        if asked is None and sights and self._looks and self._scannable(host, bearing):
            yield self._never_scanned(host, [sight for group in sights.values() for sight in group])
        yield from self._open_to_everything(host, bearing)
        keys = {*self._looks.open_ports(host), *sights, *wanted}
        listeners = self._listeners(host)
        keys |= listeners.keys()
        for key in keys:
            view = View(
                host,
                key,
                self._looks.port(host, *key),
                tuple(listeners.get(key, ())),
                tuple(sights.get(key, ())),
            )
            yield from self._port(view, bearing, wanted.get(key, []))

    def _listeners(self, host: str) -> dict[Key, list[Listener]]:
        """Those that take what others send to that address, which may be one of another namespace."""
        found: dict[Key, list[Listener]] = defaultdict(list)
        for one in self._here if host in self._own else self._inside.get(host, ()):
            if _reaches(one, host):
                found[one.protocol, one.port].append(one)
        return found

    def _open_to_everything(self, host: str, bearing: Bearing) -> Iterator[Row]:
        """One row for a host that says "open" whatever it is asked, where some of that must not be open, or nothing but
        what is declared may be.
        """
        asked = sorted((one for one in self._looks.of(host) if one[1].host.everything), key=lambda one: -one[1].at)
        for scan, known in asked:
            if forbidding := {one: spans for one in bearing.expectations if (spans := known.says_open(one.closed))}:
                ports = list(dict.fromkeys(str(span) for spans in forbidding.values() for span in spans))
                what = f"says open to everything, and must not be at {_some(ports)}"
                found = (*(evidence.expects(one, "closed") for one in forbidding), evidence.everything(scan, known))
                yield self._whole("open_forbidden", "critical", host, what, known.at, found, forbidding)
                return
        if asked and (strict := bearing.strict):
            scan, known = asked[0]
            found = (*(evidence.expects(one, "others = false") for one in strict), evidence.everything(scan, known))
            what = "says open to everything, and that is not declared"
            yield self._whole("open_undeclared", "high", host, what, known.at, found, strict)

    def _count(self, host: str, wanted: dict[Key, list[Pair]]) -> None:
        for key, pairs in wanted.items():
            self._unasked.count((expectation.name for expectation, _ in pairs), host, key, known=True)

    def _port(self, view: View, bearing: Bearing, wanted: list[Pair]) -> Iterator[Row]:
        """What differs at one port."""
        look = view.look
        answered = (look is not None and look.open) or bool(view.sights_after)
        began = self._began(view)
        kept_out = self._kept_out(view)
        if answered or (view.listeners and not kept_out):
            yield from self._too_open(view, bearing, answered=answered, wanted=bool(wanted), began=began)
        if wanted:
            yield from self._as_wanted(view, bearing, wanted, kept_out=kept_out)
        elif kept_out and look is not None:
            declared = self._declared(view)
            yield self._row(
                "listening_unreachable",
                "high" if declared else "info",
                view,
                f"listens here, and the scan finds it {_state(look)}",
                look.since,
                (*declared, *view.listening(), evidence.scanned(look, view.key)),
            )
        asked = self._looks and self._looks.host(view.host)
        if look is None and view.sights and asked and self._scannable(view.host, bearing):
            first = min(sight.first for sight in view.sights)
            what = "answers others, and no scan has asked for it"
            yield self._row("seen_not_scanned", "low", view, what, first, tuple(map(evidence.seen, view.sights)))
        if look is not None and (around := view.sights_around):
            what = f"answers others, and the scan finds it {_state(look)}"
            found = (*map(evidence.seen, around), evidence.scanned(look, view.key))
            yield self._row("seen_unreachable", "info", view, what, look.since, found)

    def _too_open(
        self, view: View, bearing: Bearing, *, answered: bool, wanted: bool, began: float | None
    ) -> Iterator[Row]:
        """Open, and it should not be."""
        kind: DriftKind
        severity: DriftSeverity
        if forbidding := bearing.forbids(*view.key):
            kind, severity, said, rest = "open_forbidden", "critical", "closed", "must not be"
        elif (
            (forbidding := bearing.strict) and not wanted and not bearing.allows(*view.key) and not self._declared(view)
        ):
            kind, severity = "open_undeclared", "high" if answered else "medium"
            said, rest = "others = false", "is not declared"
        else:
            return
        look = view.look
        found = [evidence.expects(one, said) for one in forbidding]
        times = []
        if look is not None and look.open:
            found.append(evidence.scanned(look, view.key))
            times.append(look.since)
        found += [*view.listening(), *map(evidence.seen, view.sights_after)]
        times += [sight.first for sight in view.sights_after]
        times += [began] if began is not None else []
        verb = "is open" if answered else "listens"
        told = f" ({view.answer})" if view.answer else ""
        what = f"{verb}{told} and {rest}"
        yield self._row(kind, severity, view, what, min(times, default=self._now), tuple(found), forbidding)

    def _as_wanted(self, view: View, bearing: Bearing, wanted: list[Pair], *, kept_out: bool) -> Iterator[Row]:
        """Expected to be open: whether it is, and whether that answers which is expected."""
        look = view.look
        wanting = list({expectation.name: expectation for expectation, _ in wanted}.values())
        here = view.host in self._own and self._sources.listened(*view.key)
        known = here or look is not None or bool(view.listeners) or bool(view.sights)
        self._unasked.count((one.name for one in wanting), view.host, view.key, known=known)
        found = tuple(evidence.expects(one, "open") for one in wanting)
        lately = any(sight.last >= self._now - LATELY for sight in view.sights)
        told = lately or bearing.forbids(*view.key) or (look is not None and look.closed)  # otherwise, and by others
        if here and not view.listeners and not told:
            # Of the sockets it is known how they are now, and of a scan how it was.
            what = f"is declared, {'was open, ' if look is not None and look.open else ''}and nothing listens"
            yield self._row("declared_closed", "medium", view, what, self._now, (*found, evidence.NOBODY), wanting)
        if look is None:
            return
        scan = evidence.scanned(look, view.key)
        if kept_out:
            what = f"is declared and listens here, and the scan finds it {_state(look)}"
            every = (*found, *view.listening(), scan)
            yield self._row("listening_unreachable", "high", view, what, look.since, every, wanting)
        elif look.closed and not view.sights_after and not view.listeners:
            what = f"is declared, and {_state(look)}"
            yield self._row("declared_closed", "high", view, what, look.since, (*found, scan), wanting)
        elif look.open and (port := look.known.port(*view.key)) is not None:
            yield from self._differs(view, wanted, look, port)

    def _differs(self, view: View, wanted: list[Pair], look: Look, found: Port) -> Iterator[Row]:
        kind: DriftKind
        severity: DriftSeverity
        for how in ("service", "version"):
            wrong = [(expectation, one) for expectation, one in wanted if differs(one, found) == how]
            if not wrong:
                continue
            kind, severity = ("service_differs", "high") if how == "service" else ("version_changed", "medium")
            patterns = list(dict.fromkeys(one.service if how == "service" else one.version for _, one in wrong))
            answer = answers(found) or "something unknown"
            what = f"{answer} answers, expected is {how} {' and '.join(patterns)}"
            said = [evidence.expects(expectation, f"{how} {getattr(one, how)}") for expectation, one in wrong]
            expectations = [expectation for expectation, _ in wrong]
            every = (*said, evidence.scanned(look, view.key))
            yield replace(self._row(kind, severity, view, what, look.since, every, expectations), answer=answer)

    def _down(self, host: str, bearing: Bearing, keys: list[Key], scan: Scanned, known: Known) -> Row:
        ports = [f"{protocol}/{number}" for protocol, number in keys]
        expecting = [one for one in bearing.expectations if one.open]
        found = (*(evidence.expects(one, "open") for one in expecting), evidence.down(scan, known))
        what = f"does not answer, and should at {_some(ports)}"
        since = known.since.get(("", 0), known.at)
        return self._whole("host_down", "high", host, what, since, found, expecting)

    def _never_scanned(self, host: str, sights: list[Sight]) -> Row:
        ports = [text for _, text in sorted({(one.port, f"{one.protocol}/{one.port}") for one in sights})]
        latest = sorted(sights, key=lambda one: -one.last)[:_TOLD]
        what = f"answers others at {_some(ports)}, and no scan has asked it"
        since = min(sight.first for sight in sights)
        return self._whole("seen_not_scanned", "low", host, what, since, tuple(map(evidence.seen, latest)), [])

    def _row(
        self,
        kind: DriftKind,
        severity: DriftSeverity,
        view: View,
        what: str,
        since: float,
        found: tuple[Evidence, ...],
        expectations: Iterable[Expectation] = (),
    ) -> Row:
        whole = self._whole(kind, severity, view.host, what, since, found, expectations)
        protocol, port = view.key
        return Row(
            *(kind, whole.severity, view.host, protocol, port, what, since, found),
            depends=whole.depends,
            expectations=whole.expectations,
            site=self._site,
        )

    def _whole(
        self,
        kind: DriftKind,
        severity: DriftSeverity,
        host: str,
        what: str,
        since: float,
        found: tuple[Evidence, ...],
        expectations: Iterable[Expectation],
    ) -> Row:
        """A row about a host as a whole."""
        bearing = Bearing(tuple(expectations))
        return Row(
            *(kind, graver(severity, bearing.weight), host, "", 0, what, since, found),
            depends=evidence.depends(found),
            expectations=bearing.names,
            site=self._site,
        )

    def _began(self, view: View) -> float | None:
        """When somebody began to listen there, or a little before, as far as is known."""
        known = (one.since or self._noticed(one) for one in view.listeners)
        return min((at for at in known if at), default=None)

    def _noticed(self, one: Listener) -> float:
        """When it is known to have listened first; 0 when nobody knows."""
        noticed = self._sources.noticed
        if noticed is None:
            return one.since
        return noticed.get(one.key, 0.0)

    def _kept_out(self, view: View) -> bool:
        """Whether a scan found closed what had been listening before, and nobody was seen to be answered since."""
        look = view.look
        if look is None or not look.closed or view.sights_after:
            return False
        return any(0 < self._noticed(one) < look.began for one in view.listeners)

    def _declared(self, view: View) -> tuple[Evidence, ...]:
        """The declared services of this host that are said to listen there."""
        if view.host not in self._own:
            return ()
        return tuple(evidence.service(one) for one in self._sources.services if (one.protocol, one.port) == view.key)

    def _scannable(self, host: str, bearing: Bearing) -> bool:
        """Whether anybody would want it scanned: it is expected, or in a network of one's own."""
        try:
            parsed = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if parsed.is_loopback or parsed.is_link_local or objection(str(parsed), None):
            return False
        return bool(bearing.expectations) or parsed.is_private


def _reaches(listener: Listener, host: str) -> bool:
    """Whether what others send to this address of ours comes to it."""
    return listener.takes(host) and (not listener.loopback or ipaddress.ip_address(host.partition("%")[0]).is_loopback)


def _not_listening(sources: Sources, now: float) -> Iterator[Row]:
    """Ports of declared services of this host where nothing listens; one row for those that share a port."""
    declared: dict[Key, list[DeclaredPort]] = defaultdict(list)
    for one in sources.services:
        declared[one.protocol, one.port].append(one)
    here = {(one.protocol, one.port) for one in sources.listening or () if not one.space}
    for key, services in declared.items():
        if key not in here and sources.listened(*key):
            said = (*map(evidence.service, services), evidence.NOBODY)
            what = f"is declared for {_some([one.service for one in services])}, and nothing listens"
            yield Row("declared_closed", "medium", "localhost", *key, what, now, said, evidence.depends(said))


def _state(look: Look) -> str:
    return look.state.replace("|", " or ")


def _some(words: list[str]) -> str:
    return ", ".join(words[:_TOLD]) + (f" and {len(words) - _TOLD} more" if len(words) > _TOLD else "")
