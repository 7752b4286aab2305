"""What changed between two runs. Pure.

Only what both runs asked is compared, port by port, however each tells of it: a port that stands by itself in one and
among ``997 closed`` in the other has not changed when it was closed both times. A run that did not see all that it
asked for (``Side.doubt``) closes nothing and takes nobody away: what would have been told is counted, and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple

from agent.declaration.amounts import count
from agent.workers.scan import volatile
from agent.workers.scan.found import PROTOCOLS, Certificate, Host, Port, Script, answered, moment
from agent.workers.scan.memory.coverage import union
from agent.workers.scan.memory.picture import asked as asked_of
from agent.workers.scan.memory.ways import Ways, answers, reached
from agent.workers.scan.side import Side
from agent.workers.scan.spans import Ranges, common, holds, merge, size, without

Kind = Literal[
    "host_new",
    "host_gone",
    "port_opened",
    "port_closed",
    "port_filtered",
    "port_unfiltered",
    "service_changed",
    "version_changed",
    "tls_added",
    "tls_removed",
    "certificate_changed",
    "details_changed",
    "script_changed",
    "names_changed",
    "mac_changed",
    "os_changed",
]
KINDS: Final[tuple[Kind, ...]] = Kind.__args__  # type: ignore[attr-defined]  # which a Literal has, and typeshed hides
"""In the order in which they are told of one host or port."""

NOT_OPEN: Final = "not-open"
"""The reason of ports of which is only known that they were not open: nmap was told to leave them out (``--open``)."""

EVERYTHING: Final = "open to everything"
"""What is said of ports of a host that says "open" whatever it is asked."""

_OPEN: Final = frozenset({"open", "open|filtered"})
_SILENT: Final = frozenset({"filtered", "open|filtered", "closed|filtered"})
_SURE = re.compile(r" \([0-9]{1,3} ?%\)$")
_NAMED = 8
"""Most open ports that are named where a host as a whole comes or goes."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change. ``protocol`` is empty and ``ports`` too where it is about the host as a whole.

    Changes to or from open are about one port each, others about all ports of a host to which the same happened.
    ``before`` and ``after`` are states for ports, else short texts; empty where nothing was known. ``script`` names the
    script that said otherwise. ``sure`` is false where the first run may have missed what the second one saw.
    """

    kind: Kind
    address: str
    protocol: str = ""
    ports: Ranges = ()
    before: str = ""
    after: str = ""
    script: str = ""
    sure: bool = True


@dataclass(slots=True)
class Difference:
    """What changed, in the order of addresses and ports, and what could not be compared."""

    changes: list[Change] = field(default_factory=list)
    hosts: int = 0
    """Addresses that both runs asked for, and that one of them at least has seen."""
    ports: int = 0
    """Ports of these that both runs asked for."""
    only_first: int = 0
    """Hosts that the first run saw and the second one did not ask for; ``only_second`` the other way round."""
    only_second: int = 0
    unreached_first: int = 0
    """Hosts that the first run saw and to which the second one said nothing that they are known to answer."""
    unreached_second: int = 0
    ports_only_first: int = 0
    """Ports of compared hosts that only the first run asked for."""
    ports_only_second: int = 0
    unlooked: int = 0
    """Open ports at which only one of both runs looked for a service."""
    withheld: int = 0
    """Changes that are not told because the second run may have overlooked what was there before."""
    notes: list[str] = field(default_factory=list)
    """A line for whatever limits what this says."""


class Span(NamedTuple):
    """Ports of one host that are in one state; ``port`` is what is known of the only one, where it stands alone."""

    low: int
    high: int
    state: str
    reason: str
    port: Port | None

    @property
    def shown(self) -> str:
        """The state in words: being open means less where a host says so of every port."""
        return EVERYTHING if self.state == "open" and self.port is None else self.state


class _Sides(NamedTuple):
    """What holds for two runs as a whole."""

    first: Side
    second: Side
    names: bool
    macs: bool
    os: bool
    scripts: bool


def compare(first: Iterable[Host], before: Side, second: Iterable[Host], after: Side) -> Difference:
    """What changed from the hosts of the ``first`` run to those of the ``second``.

    An address is told of once in each. Time and memory grow with what the runs tell of, not with what they asked.
    """
    old, new = {host.address: host for host in first}, {host.address: host for host in second}
    sides, notes = _sides(old, before, new, after)
    told = Difference(notes=notes)
    for address in sorted(old.keys() | new.keys(), key=_place):
        was, now = old.get(address), new.get(address)
        was = was or (Host(address, "down", "") if before.looked(address) else None)
        now = now or (Host(address, "down", "") if after.looked(address) else None)
        if was is None or now is None:
            told.only_first += was is not None and answered(was)
            told.only_second += now is not None and answered(now)
            continue
        if _unreached(was, before, now, after):
            told.unreached_first += 1
            continue
        if _unreached(now, after, was, before):
            told.unreached_second += 1
            continue
        told.hosts += 1
        unsure, overlooked = before.doubtful(address), after.doubtful(address)
        for change in _of_host(was, now, sides, told):
            if overlooked and _loss(change):
                told.withheld += 1
            else:
                told.changes.append(replace(change, sure=False) if unsure and _gain(change) else change)
    told.notes += _limits(told, before, after)
    return told


def _unreached(met: Host, seeing: Side, missed: Host, blind: Side) -> bool:
    """Whether one run met a host, and the other did not ask it in any of the ways in which it answered."""
    if not answered(met) or answered(missed) or missed.state == "up":
        return False
    asked = Ways(blind.discovery, union((blind.ports(met.address), asked_of(missed))))
    return not reached(answers(met, seeing.discovery), asked)


def _sides(old: Mapping[str, Host], before: Side, new: Mapping[str, Host], after: Side) -> tuple[_Sides, list[str]]:
    """What both runs know at all: without that, each host would have lost its name."""
    known = [
        (
            any(host.names for host in hosts),
            any(host.mac for host in hosts),
            any(host.os for host in hosts),
            side.scripts or any(host.scripts or any(port.scripts for port in host.ports) for host in hosts),
        )
        for hosts, side in ((old.values(), before), (new.values(), after))
    ]
    notes = [
        f"{what} are not compared: the {'first' if both[1] else 'second'} run knows none"
        for what, both in zip(
            ("names", "MAC addresses", "operating systems", "answers of scripts"),
            zip(*known, strict=True),
            strict=True,
        )
        if both[0] != both[1]
    ]
    return _Sides(before, after, *(all(both) for both in zip(*known, strict=True))), notes


def _of_host(was: Host, now: Host, sides: _Sides, told: Difference) -> Iterator[Change]:
    address = was.address
    there, here = answered(was), answered(now)
    if there and not here and now.state != "up":
        yield Change("host_gone", address, before=_opened(was))
        return
    if here and not there and was.state != "up":
        yield Change("host_new", address, after=_opened(now))
        asked = dict(sides.first.ports(address))
        for port in now.open_ports():
            if holds(asked.get(port.protocol, ()), port.number):
                yield Change("port_opened", address, port.protocol, ((port.number, port.number),), "", "open")
        return
    if sides.macs and was.mac != now.mac:
        yield Change("mac_changed", address, before=was.mac, after=now.mac)
    if sides.names and _names(was) != _names(now):
        yield Change("names_changed", address, before=" ".join(_names(was)), after=" ".join(_names(now)))
    systems, others = _systems(was), _systems(now)
    if sides.os and (set(systems), systems[:1]) != (set(others), others[:1]):
        yield Change("os_changed", address, before=", ".join(systems[:3]), after=", ".join(others[:3]))
    if sides.scripts:
        yield from _scripts(Change("script_changed", address), was.scripts, now.scripts)
    yield from _of_ports(was, now, sides, told)


def _of_ports(was: Host, now: Host, sides: _Sides, told: Difference) -> Iterator[Change]:
    asked_then, asked_now = dict(asked_of(was)), dict(asked_of(now))
    for protocol in PROTOCOLS:
        both = common(then := asked_then.get(protocol, ()), later := asked_now.get(protocol, ()))
        told.ports += size(both)
        told.ports_only_first += size(without(then, both))
        told.ports_only_second += size(without(later, both))
        together: dict[tuple[Kind, str, str], list[tuple[int, int]]] = {}
        for low, high, one, other in _overlaps(spans(was, protocol), spans(now, protocol)):
            if one.state != other.state:
                if _unknown(one, other):
                    continue
                kind = _kind(one.state, other.state)
                if "open" in (one.state, other.state) and (one.port or other.port):
                    yield Change(kind, was.address, protocol, ((low, high),), one.shown, other.shown)
                else:
                    together.setdefault((kind, one.shown, other.shown), []).append((low, high))
            elif one.port is not None and other.port is not None:
                yield from _of_port(was.address, one.port, other.port, sides, told)
        for (kind, state_then, state_now), ranges in together.items():
            yield Change(kind, was.address, protocol, merge(ranges), state_then, state_now)


def spans(host: Host, protocol: str) -> list[Span]:
    """All that a host was asked for with one protocol, in ascending order."""
    found = [
        Span(port.number, port.number, port.state, port.reason, port)
        for port in host.ports
        if port.protocol == protocol
    ]
    for rest in host.rest:
        if rest.protocol == protocol:
            found += [Span(low, high, rest.state, rest.reason, None) for low, high in rest.ports]
    return sorted(found, key=lambda span: span.low)


def _overlaps(ours: list[Span], theirs: list[Span]) -> Iterator[tuple[int, int, Span, Span]]:
    left, right = 0, 0
    while left < len(ours) and right < len(theirs):
        one, other = ours[left], theirs[right]
        low, high = max(one.low, other.low), min(one.high, other.high)
        if low <= high:
            yield low, high, one, other
        if one.high < other.high:
            left += 1
        else:
            right += 1


def _kind(then: str, now: str) -> Kind:
    """What the change from one state to another is called."""
    if now == "open":
        return "port_opened"
    if now in _SILENT:
        return "port_filtered"
    if now == "closed" and then in _OPEN:
        return "port_closed"
    return "port_unfiltered" if then in _SILENT or now == "unfiltered" else "port_closed"


def _unknown(one: Span, other: Span) -> bool:
    """Whether one side only says "not open", and the other was not open either."""
    return NOT_OPEN in (one.reason, other.reason) and "open" not in (one.state, other.state)


def _of_port(address: str, was: Port, now: Port, sides: _Sides, told: Difference) -> Iterator[Change]:
    """Of a port in the same state in both."""

    def change(kind: Kind, before: str, after: str) -> Change:
        return Change(kind, address, now.protocol, ((now.number, now.number),), before, after)

    if _comparable(was, now, sides):
        same = False
        if (was.service, was.product) != (now.service, now.product):
            yield change("service_changed", service(was), service(now))
        elif (was.version, volatile.remark(was.extrainfo)) != (now.version, volatile.remark(now.extrainfo)):
            yield change("version_changed", service(was), service(now))
        else:
            same = True
        if was.tunnel != now.tunnel:
            yield change("tls_added" if now.tunnel else "tls_removed", service(was), service(now))
        if same and _details(was) != _details(now):
            yield change("details_changed", " ".join(_details(was)), " ".join(_details(now)))
    else:
        told.unlooked += 1
    if was.certificate and now.certificate and was.certificate.sha256 != now.certificate.sha256:
        yield change("certificate_changed", certificate(was.certificate), certificate(now.certificate))
    if sides.scripts:
        yield from _scripts(change("script_changed", "", ""), was.scripts, now.scripts)


def _comparable(was: Port, now: Port, sides: _Sides) -> bool:
    """Whether both runs looked at a port in the same way: its number says ``https-alt`` what turns out as ``http``.

    Where neither got an answer, one may still have looked up the number, and the other not.
    """
    if (was.method == "probed") == (now.method == "probed"):
        return was.method == "probed" or bool(was.service) == bool(now.service)
    return sides.first.detection == sides.second.detection == "every"


def _details(port: Port) -> tuple[str, ...]:
    named = (("host", port.hostname), ("os", port.ostype), ("device", port.devicetype))
    return (*sorted(port.cpe), *(f"{name}={value}" for name, value in named if value))


def _scripts(change: Change, was: Iterable[Script], now: Iterable[Script]) -> Iterator[Change]:
    old, new = _said(was), _said(now)
    for name in sorted(old.keys() | new.keys()):
        if (before := old.get(name, "")) != (after := new.get(name, "")):
            yield replace(change, before=before, after=after, script=name)


def _said(scripts: Iterable[Script]) -> dict[str, str]:
    """What each script said. One that ran twice, as with several addresses, said all of it, in any order."""
    found: dict[str, list[str]] = {}
    for one in scripts:
        found.setdefault(one.name, []).append(volatile.script(one.name, one.output))
    return {name: " ".join(sorted(outputs)) for name, outputs in found.items()}


def service(port: Port) -> str:
    """Such as ``ssl/http nginx 1.22.1 (Debian)``."""
    name = "/".join(part for part in (port.tunnel, port.service) if part)
    extra = f"({port.extrainfo})" if port.extrainfo else ""
    return " ".join(part for part in (name, port.product, port.version, extra) if part)


def certificate(one: Certificate) -> str:
    """Such as ``CN=www.example.org until 2027-01-31, sha256 5f0c…``."""
    ends = moment(one.not_after)
    until = f" until {ends:%Y-%m-%d}" if ends else ""
    return f"{one.subject or 'a certificate'}{until}, sha256 {one.sha256[:16]}"


def _names(host: Host) -> list[str]:
    return sorted({name.rstrip(".").lower() for name in host.names})


def _systems(host: Host) -> list[str]:
    """The guesses, best first, without how sure each is (``Linux 5.0 (96 %)``): that sways from run to run."""
    return [_SURE.sub("", guess) for guess in host.os]


def _opened(host: Host) -> str:
    """The first few open ports of a host."""
    names = [f"{port.protocol}/{port.number}" for port in host.open_ports()]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _loss(change: Change) -> bool:
    """Whether a run that overlooked something would say so."""
    if change.kind == "host_gone" or change.kind in ("port_closed", "port_filtered"):
        return True
    if change.kind in ("service_changed", "version_changed", "tls_removed"):
        return len(change.after) < len(change.before) and change.before.startswith(change.after)
    return change.kind in ("names_changed", "os_changed", "script_changed", "mac_changed") and not change.after


def _gain(change: Change) -> bool:
    """Whether it may have been so before, had the first run not overlooked something."""
    if change.kind in ("host_new", "port_opened", "port_unfiltered"):
        return True
    return not change.before


def _limits(told: Difference, before: Side, after: Side) -> list[str]:
    """A line for each thing that was not compared, or not told."""
    lines = []
    if after.doubt:
        where = "there" if after.withheld else "by it"
        lines.append(
            f"the second run is {after.doubt}: nothing is said to be gone or closed {where}"
            + (f" ({count(told.withheld, 'change')} not told)" if told.withheld else "")
        )
    if before.doubt:
        where = " there" if before.withheld else ""
        lines.append(f"the first run is {before.doubt}: what is new{where} may have been there before")
    for number, other, one in ((told.only_first, "second", "first"), (told.only_second, "first", "second")):
        if number:
            lines.append(f"{count(number, 'host')} of the {one} run not compared: the {other} did not ask for them")
    for number, other, one in ((told.unreached_first, "second", "first"), (told.unreached_second, "first", "second")):
        if number:
            lines.append(
                f"{count(number, 'host')} of the {one} run not compared: the {other} did not ask for them in any way in"
                " which they had answered"
            )
    for number, other in ((told.ports_only_first, "second"), (told.ports_only_second, "first")):
        if number:
            lines.append(f"{count(number, 'port')} not compared: the {other} run did not ask for them")
    if told.unlooked:
        lines.append(f"services of {count(told.unlooked, 'port')} not compared: only one run looked at what they are")
    return lines


def _place(address: str) -> tuple[int, int, str]:
    plain, _, zone = address.partition("%")
    found = ip_address(plain)
    return found.version, int(found), zone
