"""What phase 2 knows of one host, and what follows from it: what to ask next, and what the host is. Pure.

All of it comes from what was heard of its ports and what runs of nmap told; so whoever reads that from a notebook
(``notebook``) after a kill stands where his predecessor did.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from agent.workers.scan.detect import PortKey, Stage, askable, better, settled, unknown
from agent.workers.scan.found import Host, Port, Script
from agent.workers.scan.speak import MUTE, How

Due = Literal["new", "due", "held"]
"""Of a port on which nobody learned what it is: ``new`` is one of which that is not known yet, ``due`` may be asked at
length again, ``held`` may not."""

_REMARKS: Final = {
    "nothing": "says nothing",
    "endless": "never stops talking",
    "unreachable": "takes no connection now",
}


@dataclass(frozen=True, slots=True)
class Held:
    """A port on which nobody learned what it is: it said nothing of use (``silent``) or nothing that nmap knows.

    ``tried``: nmap asked it at length just now, so that its clock starts anew.
    """

    protocol: str
    number: int
    silent: bool
    tried: bool


@dataclass(frozen=True, slots=True)
class Identified:
    """A host and all that was learned of it. ``held`` are the ports to ask seldom: all others need no clock any more.

    ``raw`` are the bytes of what nmap said, an element of its XML each. ``complete`` is false when this was broken off
    before all was asked. ``before`` are ports of which nothing was asked, since they had been identified already.
    """

    host: Host
    held: tuple[Held, ...]
    raw: tuple[bytes, ...]
    complete: bool
    before: frozenset[PortKey] = frozenset()


class Next(NamedTuple):
    """What nmap is to be asked of a host: ``light`` together with others, ``odd`` lightly too, but alone."""

    light: list[PortKey]
    odd: list[PortKey]
    slow: list[PortKey]
    deep: list[PortKey]


@dataclass(slots=True)
class Knowledge:
    """``udp``: whether its UDP ports can be asked what they are. ``looked``: all its TCP ports were listened to."""

    host: Host
    udp: bool = True
    looked: bool = False
    heard: dict[PortKey, How] = field(default_factory=dict)
    asked: set[tuple[Stage, PortKey]] = field(default_factory=set)
    underway: set[tuple[Stage, PortKey]] = field(default_factory=set)
    ports: dict[PortKey, Port] = field(default_factory=dict)
    given_up: dict[PortKey, str] = field(default_factory=dict)
    raw: list[bytes] = field(default_factory=list)
    system: tuple[str, ...] = ()
    scripts: tuple[Script, ...] = ()
    wanted: tuple[PortKey, ...] = ()
    before: frozenset[PortKey] = frozenset()

    def __post_init__(self) -> None:
        self.wanted = askable(self.host)

    def leave_out(self, keys: Iterable[PortKey]) -> None:
        """These ports are identified already, in ``host`` too: nothing is asked of them."""
        self.before |= frozenset(keys)
        self.wanted = tuple(key for key in self.wanted if key not in self.before)

    @property
    def to_hear(self) -> list[int]:
        """The TCP ports that nobody has listened to yet."""
        return [number for protocol, number in self.wanted if protocol == "tcp" and ("tcp", number) not in self.heard]

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        busy = {key for _, key in self.underway} | {("tcp", number) for number in self.to_hear}
        return 1 - len(busy) / len(self.wanted) if self.wanted else 1.0

    def told(
        self, stage: Stage, keys: Collection[PortKey], host: Host | None, element: bytes, kept: frozenset[str]
    ) -> None:
        """A run is through with these ports: nmap said this of the host, or nothing. ``kept``: scripts to keep."""
        self._through(stage, keys)
        if host is None:
            return
        self.raw.append(element)
        for port in host.ports:
            if port.key in self.wanted:
                scripts = tuple(script for script in port.scripts if script.name in kept)
                self.ports[port.key] = better(self.ports.get(port.key), replace(port, scripts=scripts))
        self.system = host.os or self.system
        self.scripts = host.scripts or self.scripts

    def give_up(self, stage: Stage, keys: Collection[PortKey], remark: str) -> None:
        """A run was not through with these ports, and none ever will be."""
        self._through(stage, keys)
        self.given_up.update(dict.fromkeys(keys, remark))

    def _through(self, stage: Stage, keys: Collection[PortKey]) -> None:
        done = {(stage, key) for key in keys if key in self.wanted}
        self.asked |= done
        self.underway -= done

    def plan(self, clock: Callable[[str, str, int], Due], *, slow: bool) -> Next:
        """What can be asked now and was not: it is under way from here on. ``slow``: silent ports may be."""
        address, found = self.host.address, Next([], [], [], [])
        for key in self.wanted:
            how = self._how(key)
            if how is None or how == "unreachable" or (key[0] == "udp" and not self.udp):
                continue
            if how in MUTE:
                if slow and clock(address, *key) == "due" and self._new("slow", key):
                    found.slow.append(key)
            elif self._new("light", key):
                (found.odd if how == "odd" else found.light).append(key)
        self.underway |= {("light", key) for key in (*found.light, *found.odd)} | {("slow", key) for key in found.slow}
        if self.looked and not any(stage == "light" for stage, _ in self.underway):
            for key, port in self.ports.items():
                again = unknown(port) and key not in self.given_up and self._how(key) not in MUTE
                if again and self._new("deep", key) and clock(address, *key) != "held":
                    found.deep.append(key)
            self.underway |= {("deep", key) for key in found.deep}
        return found

    def _how(self, key: PortKey) -> How | None:
        return self.heard.get(key) if key[0] == "tcp" else "protocol"

    def _new(self, stage: Stage, key: PortKey) -> bool:
        return (stage, key) not in self.asked and (stage, key) not in self.underway

    @property
    def done(self) -> bool:
        """After ``plan``: whether there is nothing more to wait for."""
        return self.looked and not self.underway

    def identified(self, *, complete: bool) -> Identified:
        """What is known of it by now."""
        ports, remarks = dict(self.ports), dict(self.given_up)
        silent = {key for key, how in self.heard.items() if how in MUTE}
        nothing = set(self.given_up) | {key for key in self.wanted if key in ports and unknown(ports[key])} - silent
        for key in self.wanted:
            if key[0] == "udp" and not self.udp:
                remarks[key] = "what it is can be asked with CAP_NET_RAW only"
            if self.heard.get(key) == "unreachable":
                remarks[key] = _REMARKS["unreachable"]
        for key in silent:
            if key in ports and not unknown(ports[key]):
                continue  # nmap got a word out of it
            remarks[key] = _REMARKS[self.heard[key]]
            nothing.add(key)
            ports.pop(key, None)
        tried = {key for stage, key in self.asked if stage != "light"} | set(self.given_up)
        held = (Held(*key, silent=key in silent, tried=key in tried) for key in sorted(nothing))
        host = settled(self.host, ports, remarks, system=self.system, scripts=self.scripts)
        return Identified(host, tuple(held), tuple(self.raw), complete, self.before)
