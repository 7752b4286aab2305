"""From what was believed and what a run saw to what is believed now, and what is worth telling. Pure.

The rules, and why:

- Only a run that asked for a port can say anything about it. What it did not ask for stays as it was.
- A packet can get lost, so one look that misses closes nothing: it takes ``Policy.misses`` looks in a row, or a second
  look in the same run (``rechecked``). A port counts as open after a second look too; one that answered a question
  (``method`` is ``probed``) was looked at twice.
- A run that is degraded or did not end (``Policy.closing`` is false) may open and refresh, and never counts as a miss.
- So it is where several known hosts gave no sign of life at once (``Policy.dark``); but such runs are counted, and
  after some in a row they are believed (``blind.SETTLED``).
- Ports of a host that does not answer at all are left as they were: what is told is that the host is gone.
- What turned often in the last looks flaps: that is told once, then nothing until it is steady, and then only if it is
  another state than the one that was told last. A single silence is no turn: it may be loss.
- A capture that saw a port answer may open or refresh it, and never closes one. Where a run finds it silent each time,
  since it is behind a firewall, that flaps as anything else does.
- A report of another program (``Policy.late``) may have been made from elsewhere: it closes only what such reports
  alone have told of, and what was looked at after it stays as that look found it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

from msgspec.structs import replace

from agent.workers.scan.found import UNTOLD, Host, Port, answered, spoke
from agent.workers.scan.memory.services import compare
from agent.workers.scan.memory.state import (
    BY_SERVICE,
    BY_STATE,
    HOST,
    NONE,
    HostState,
    Key,
    PortState,
    Service,
    latest,
    looks,
    service_of,
    shown,
    steady,
    turns,
)
from agent.workers.scan.memory.ways import Discovery, Ways, answers
from agent.workers.scan.spans import holds

PORTS_LIMIT: Final = 4096
"""Ports of one host that are followed one by one; a host with more open ones answers for everything."""

LOOKS_TO_OPEN: Final = 2
"""Looks that something new takes before it is believed."""

FLAPS: Final = 3
"""Turns within the last ``state.WINDOW`` looks that make flapping."""

CALM: Final = 4
"""Looks without a turn that end flapping."""

_SILENT: Final = ("filtered", "open|filtered")
_SAYS_NOTHING: Final = ("unfiltered", "")


@dataclass(frozen=True, slots=True)
class Policy:
    """How a run is taken. ``misses``: looks in a row until something is closed or gone (1 or more).

    ``closing``: whether the run may close anything at all. ``late``: it may not be the latest, so what was looked at
    after it stays, and it closes only what nobody but its ``source`` has told of. ``dark``: nobody answered around
    this host, which is why the run may close nothing of it. ``discovery``: how it asks who is there.
    """

    misses: int = 2
    closing: bool = True
    late: bool = False
    source: str = ""
    dark: bool = False
    discovery: Discovery = "any"


class Change(NamedTuple):
    """Something to tell; ``port`` is ``state.HOST`` for the host itself, ``kind`` as in docs/journal.md."""

    kind: str
    port: Key
    old: str
    new: str


class Folded(NamedTuple):
    """``doubts``: where a second look now would settle what this one left open."""

    state: HostState
    changes: tuple[Change, ...]
    doubts: tuple[Key, ...]


def _never(_: Key) -> bool:
    return False


def fold(
    current: HostState,
    observed: Host | None,
    covered: bool,
    policy: Policy,
    now: float,
    rechecked: Collection[Key] = (),
    later: Callable[[Key], bool] = _never,
) -> Folded:
    """Take in what a run saw of one host.

    ``observed`` is what it found out, ``None`` when there was no answer, ``covered`` whether there would have been one,
    since it was asked in a way in which it is known to answer (without meaning where there is one). ``rechecked``:
    ports, or ``HOST``, at which it looked twice. ``now`` is when it looked, in unix seconds. ``later``: whether another
    run, that is folded already, has looked at a port or ``HOST`` since; asked of one that may be late only.
    """
    there = observed is not None and answered(observed)
    if policy.dark and (current.state or there):
        current = replace(current, dark=current.dark + 1)
    elif current.dark and (policy.closing or there):
        current = replace(current, dark=0)
    if observed is None or not there:
        return _absent(current, policy, now, HOST in rechecked) if covered else Folded(current, (), ())
    changes: list[Change] = []
    doubts: list[Key] = []
    if policy.late and current.state != "up" and (_too_late(policy, now, current.last_looked) or later(HOST)):
        return Folded(current, (), ())  # it was not there when somebody looked since
    host = _present(current, observed, policy, now, changes)
    ports = dict(current.ports)
    listed = {port.key: port for port in observed.ports}
    for key, state in current.ports.items():
        seen = listed.get(key) or _in_rest(observed, key)
        if seen is not None and not _too_late(policy, now, state.last_looked):
            ports[key] = _port(state, key, seen, policy, now, key in rechecked, changes, doubts)
        elif seen is not None and seen.state == "open":
            ports[key] = replace(state, first_seen=min(now, state.first_seen))
    for port in observed.open_ports():
        if port.key not in ports and len(ports) < PORTS_LIMIT and not (policy.late and later(port.key)):
            new = PortState("", port.reason, "", now, now, now, now)
            ports[port.key] = _port(new, port.key, port, policy, now, port.key in rechecked, changes, doubts)
    believed = {key: state for key, state in ports.items() if state.state or state.pending}
    return Folded(replace(host, ports=believed), tuple(changes), tuple(doubts))


def fold_passive(current: HostState, key: Key, first: float, last: float, looked: float = 0.0) -> Folded:
    """Take in that a port was seen to answer to somebody else, between ``first`` and ``last``.

    ``looked`` is when a run last asked that port. What a run saw after the sighting stays.
    """
    host = current
    changes: list[Change] = []
    if (host.state != "up" or host.flapping) and last > max(host.last_looked, host.last_seen):
        seen = replace(host, history=_sighted(host.history), last_seen=last)
        host = _turned(seen, "up", "host_new", last, changes)
        if current.state != host.state:  # it answers at what was seen, and no scan in any way that is known
            host = replace(host, source="passive", first_seen=host.first_seen or first, ways=Ways(""))
    if host.state != "up":
        return Folded(host, tuple(changes), ())
    if last > host.last_looked:
        host = replace(host, last_seen=max(last, host.last_seen), misses=0)
    state = host.ports.get(key)
    if last <= (state.last_seen if state else 0) or last < max(looked, state.last_looked if state else 0):
        return Folded(host, tuple(changes), ())
    if state is None:
        if len(host.ports) >= PORTS_LIMIT:
            return Folded(host, tuple(changes), ())
        state = PortState("", "", "", first, last, looked, last)
    if state.state != "open" or state.flapping & BY_STATE:
        state = _port_flaps(replace(state, history=_sighted(state.history)), key, changes)
    if state.state != "open" and not state.flapping & BY_STATE:
        changes.append(Change("port_opened", key, state.state, "open"))
        state = replace(state, state="open", reason="seen", source="passive", last_changed=last)
    state = replace(state, last_seen=last, misses=0, pending="")
    return Folded(replace(host, ports={**host.ports, key: state}), tuple(changes), ())


def _sighted(history: int) -> int:
    """A history after a sighting. However many there are until a run looks again, they are one look."""
    return history if looks(history) and history & 1 else shown(history, True)


def _asked_tcp(host: Host) -> bool:
    return any(port.protocol == "tcp" for port in host.ports) or any(rest.protocol == "tcp" for rest in host.rest)


def _in_rest(host: Host, key: Key) -> Port | None:
    """What is said of a port together with others; ``None`` when nothing is."""
    protocol, number = key
    for rest in host.rest:
        if rest.protocol == protocol and holds(rest.ports, number):
            return Port(rest.protocol, number, rest.state, rest.reason)
    return None


def _present(current: HostState, observed: Host, policy: Policy, now: float, changes: list[Change]) -> HostState:
    if _too_late(policy, now, current.last_looked):
        return replace(current, first_seen=min(now, current.first_seen or now))
    source = _teller(policy, current, policy.source)
    host = replace(
        current,
        source=source,
        mac=observed.mac or current.mac,
        names=observed.names or current.names,
        os=observed.os or current.os,
        everything=observed.everything if _asked_tcp(observed) else current.everything,
        first_seen=min(now, current.first_seen) if current.first_seen else now,
        last_seen=now,
        last_looked=now,
        misses=0,
        history=shown(current.history, True),
        ways=answers(observed, policy.discovery) if source == policy.source else current.ways,
    )
    return _turned(host, "up", "host_new", now, changes)


def _absent(current: HostState, policy: Policy, now: float, twice: bool) -> Folded:
    if not current.state or not _closes(policy, current.source) or _too_late(policy, now, current.last_looked):
        return Folded(current, (), ())
    changes: list[Change] = []
    misses = current.misses + (policy.misses if twice else 1)
    host = replace(current, last_looked=now, misses=misses)
    if misses < policy.misses:  # one silence alone may be lost packets
        return Folded(host, (), (HOST,) if host.state == "up" else ())
    host = replace(host, history=shown(current.history, False))
    return Folded(_turned(host, "gone", "host_gone", now, changes), tuple(changes), ())


def _turned(host: HostState, state: str, kind: str, now: float, changes: list[Change]) -> HostState:
    """The host is in this state now, which may be a change."""
    if host.flapping and steady(host.history, CALM):
        host = replace(host, flapping=0, history=latest(host.history, CALM))
    elif not host.flapping and (count := turns(host.history)) >= FLAPS:
        changes.append(_flapping(HOST, host.state, count, host.history))
        host = replace(host, flapping=BY_STATE)
    if host.state == state or host.flapping:
        return host
    changes.append(Change(kind, HOST, host.state, state))
    return replace(host, state=state, last_changed=now)


def _port(
    state: PortState,
    key: Key,
    seen: Port,
    policy: Policy,
    now: float,
    twice: bool,
    changes: list[Change],
    doubts: list[Key],
) -> PortState:
    """One port after one look at it."""
    if seen.state in _SAYS_NOTHING or (seen.state != "open" and not _closes(policy, state.source)):
        return state
    is_open = seen.state == "open"
    if not is_open and not state.state:
        return replace(state, pending="")  # it was seen open once, and that was all
    if is_open:
        source = _teller(policy, state, policy.source or ("nmap" if spoke(seen) else "sweep"))
        state = replace(state, first_seen=min(now, state.first_seen), last_seen=now, source=source)
        state = _service(state, key, service_of(seen), now, changes)
    agree = _agree(state.state, seen.state)
    needed = LOOKS_TO_OPEN if is_open else policy.misses
    in_a_row = state.misses if state.state == "open" or _agree(state.pending, seen.state) else 0
    misses = 0 if agree else in_a_row + (needed if twice or spoke(seen) else 1)
    state = replace(state, last_looked=now, misses=misses, pending="" if agree else seen.state)
    if agree or misses >= needed or seen.state in ("open", "closed"):  # one silence alone may be a lost packet
        state = _port_flaps(replace(state, history=shown(state.history, is_open)), key, changes)
    if agree:
        refined = seen.state if state.state == UNTOLD else state.state
        return replace(state, state=refined, reason=seen.reason)
    if misses < needed:
        doubts.append(key)
        return state
    if state.flapping & BY_STATE:
        return state
    kind = "port_opened" if is_open else "port_filtered" if seen.state in _SILENT else "port_closed"
    changes.append(Change(kind, key, state.state, seen.state))
    return replace(state, state=seen.state, reason=seen.reason, pending="", misses=0, last_changed=now)


def _teller(policy: Policy, known: HostState | PortState, source: str) -> str:
    """Who told last; a report only of what nobody else has told of."""
    return known.source if policy.late and known.state else source


def _closes(policy: Policy, source: str) -> bool:
    """Whether a run may close what this source told last."""
    return policy.closing and (not policy.late or source == policy.source)


def _too_late(policy: Policy, now: float, looked: float) -> bool:
    """Whether that was looked at since, or is the same look, told once more."""
    return policy.late and now <= looked


def _port_flaps(state: PortState, key: Key, changes: list[Change]) -> PortState:
    if state.flapping & BY_STATE:
        if not steady(state.history, CALM):
            return state
        return replace(state, flapping=state.flapping & ~BY_STATE, history=latest(state.history, CALM))
    if (count := turns(state.history)) >= FLAPS:
        changes.append(_flapping(key, state.state, count, state.history))
        return replace(state, flapping=state.flapping | BY_STATE)
    return state


def _service(state: PortState, key: Key, seen: Service, now: float, changes: list[Change]) -> PortState:
    """The service of an open port after one look; a look that asked nothing says nothing."""
    known, differs = compare(state.service, seen)
    if seen.method != "probed" and not seen.tunnel:
        return state if known == state.service else replace(state, service=known)
    if state.flapping & BY_SERVICE:
        lately, since = compare(state.lately, seen)
        history = shown(state.service_history, bool(since))
        if not (steady(history, CALM - 1) and not since):  # with the look that they are compared to, that is CALM
            return replace(state, service_history=history, lately=lately)
        history = shown(NONE, bool(differs))
        state = replace(state, flapping=state.flapping & ~BY_SERVICE, lately=Service())
    elif (count := _ones(history := shown(state.service_history, bool(differs)))) >= FLAPS:
        changes.append(Change("flapping", key, state.service.label, f"{count} services in {looks(history)} looks"))
        return replace(state, service_history=NONE, flapping=state.flapping | BY_SERVICE, lately=seen)
    changes.extend(Change(kind, key, old, new) for kind, old, new in differs)
    changed = now if differs else state.last_changed
    return replace(state, service=known, service_history=history, last_changed=changed)


def _flapping(key: Key, state: str, count: int, history: int) -> Change:
    return Change("flapping", key, state, f"{count} changes in {looks(history)} looks")


def _ones(history: int) -> int:
    return history.bit_count() - 1


def _agree(believed: str, seen: str) -> bool:
    """Whether two states are one: what is silent may be so for two reasons, and of some it is not known which."""
    if believed == seen or (believed in _SILENT and seen in _SILENT):
        return True
    closed_somehow = ("closed", *_SILENT)
    return (believed == UNTOLD and seen in closed_somehow) or (seen == UNTOLD and believed in closed_somehow)
