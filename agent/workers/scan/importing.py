"""Reports that nmap and masscan wrote on their own, as hosts and what they were asked for. No I/O.

Such a file may come from anywhere. It passes through ``stream``, which refuses entities and bounds depth and size, host
by host; so what is held in memory is one element and what was understood of those before. A report that is not whole is
not read at all: what it does not say would look as if it had gone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Final
from xml.etree import ElementTree

from agent.declaration.amounts import count
from agent.errors import ScanFailure
from agent.workers.scan import spans
from agent.workers.scan.diff import NOT_OPEN
from agent.workers.scan.found import PROTOCOLS, UNTOLD, Host, Port, Protocol, Rest
from agent.workers.scan.masscan import answer
from agent.workers.scan.memory.coverage import Asked
from agent.workers.scan.memory.picture import PortSet, join
from agent.workers.scan.memory.place import Line, place
from agent.workers.scan.report_words import (
    RANGE,
    SECONDS,
    ZONE,
    address_of,
    element_of,
    protocol_of,
    ranges_of,
    seconds_of,
    state_of,
)
from agent.workers.scan.results import OUTPUT_LIMIT, read_host
from agent.workers.scan.side import Detection, Side
from agent.workers.scan.spans import Ranges, common, holds, merge, size, without
from agent.workers.scan.stream import MAX_HOST, Verdict, XmlStream, clean
from agent.workers.scan.targets import given, only_open

MAX_REPORT: Final = 256 * 2**20
"""Bytes of one report."""

MAX_HOSTS: Final = 65_536
MAX_PORTS: Final = 500_000
"""Most hosts, and ports told of by themselves, of one report: what is read is held in memory until it is stored."""

_MAX_REASONS = 256
"""Most groups of ports of one host that are told of together; nmap has some ten states and reasons."""

_MAX_RANGES = 20_000_000
"""Most ranges of ports that are told of together, of all hosts: as many as 65,536 hosts have that were asked for nmap's
thousand ports."""

_MAX_PARTS = 2**20
"""Most that the groups of one host may be times their ranges: such is the work to hold two looks against each other.
Ten groups that share every other port of all are a third of it."""

_MAX_ASKED = 64
"""How often it may be said what was asked for; nmap says it once for each kind of scan, of which it has some ten."""

_MAX_AGAIN = 256
"""How often hosts may be told of once more."""

_ZONE = re.compile(rf"zone=({ZONE.pattern})", re.ASCII)
_DETECTS = re.compile(r"-s[A-Za-z]{0,10}V[A-Za-z]{0,10}|-A", re.ASCII)
_SCRIPTS = re.compile(r"-s[A-Za-z]{0,10}C[A-Za-z]{0,10}|-A|--?script[=-]?.*", re.ASCII)

_WORDS = (
    ("nmap wrote nothing", "it is empty"),
    ("nmap wrote something that is not its XML", "it is no XML report of nmap or masscan"),
    ("nmap's XML stops before its end", "the report stops before its end: whoever wrote it did not finish"),
    ("nmap's XML goes on behind its end", "more follows the end of the report, such as what --append-output adds"),
    ("nmap wrote more than", "it holds more than"),
    ("nmap's XML cannot be understood", "the report cannot be understood"),
)
"""What ``stream`` and ``results`` say of the nmap that they listen to, and what that means of a file."""


@dataclass(slots=True)
class Report:
    """One report. Times are unix seconds, 0 when it does not say. ``notes`` tell what of it is not used."""

    tool: str
    version: str
    arguments: str
    started: float
    ended: float
    hosts: tuple[Host, ...]
    ports: PortSet
    """What each address was to be asked for; empty when it does not say."""
    asked: tuple[Asked, ...]
    """Addresses that nobody answered at."""
    total: int
    """Addresses that were asked for."""
    detection: Detection
    scripts: bool
    digest: str
    """SHA-256 of the file, hexadecimal."""
    notes: list[str] = field(default_factory=list)
    left: frozenset[str] = frozenset()
    """Addresses of which it says that they were not asked, or not to the end."""

    def side(self) -> Side:
        """For a comparison."""
        silent = [part for part in self.asked if part.outcome == "silent"]

        def parts(address: str) -> list[Asked]:
            (line, number) = place(address)
            return [part for part in silent if part.line == line and holds(part.addresses, number)]

        return Side(
            looked=lambda address: bool(parts(address)),
            ports=lambda address: next((part.ports for part in parts(address)), self.ports),
            detection=self.detection,
            scripts=self.scripts,
            left=self.left.__contains__,
        )


def read_report(data: Iterable[bytes]) -> Report:
    """Read a report, given piece by piece. Raises ``ScanFailure`` with the reason, for a line that names the file."""
    reader = _Reader()
    digest = hashlib.sha256()
    length = 0
    try:
        for piece in data:
            length += len(piece)
            if length > MAX_REPORT:
                raise ScanFailure(f"it is larger than {MAX_REPORT // 2**20} MiB: give it in parts")
            digest.update(piece)
            reader.stream.feed(piece)
        return reader.close(digest.hexdigest())
    except ScanFailure as failure:
        text = str(failure)
        told = next(((words, means) for words, means in _WORDS if text.startswith(words)), None)
        raise (ScanFailure(told[1] + text[len(told[0]) :]) if told else failure) from None


class _Reader:
    """Takes the parts of a document as ``stream`` hands them out."""

    def __init__(self) -> None:
        self.stream = XmlStream(on_host=self._host, on_beside=self._beside)
        self._root: dict[str, str] = {}
        self._only_open = False
        self._finished: dict[str, str] | None = None
        self._asked: dict[Protocol, Ranges] = {}
        self._infos = 0
        self._ranges = 0
        self._hosts: dict[str, Host] = {}
        self._seen: dict[str, dict[tuple[str, int], Port]] = {}
        self._single = 0
        self._again = 0
        self._unplaced = 0
        self._timed_out: list[str] = []
        self._listed: list[str] = []
        self._foreign: set[str] = set()

    @property
    def _tool(self) -> str:
        return self._root.get("scanner", "nmap")

    def _beside(self, name: str, attributes: dict[str, str]) -> None:
        if name == "nmaprun" and not self._root:
            self._root = attributes
            self._only_open = only_open(attributes.get("args", ""))
            if self._tool not in ("nmap", "masscan"):
                raise ScanFailure(f"it was written by {clean(self._tool, 40)!r}; reports of nmap and masscan are read")
        elif name == "scaninfo":
            self._infos += 1
            if self._infos > _MAX_ASKED:
                raise ScanFailure("the report cannot be understood: it says too often what was asked for")
            protocol = protocol_of(attributes.get("protocol"))
            if protocol is None:
                self._foreign.add(clean(attributes.get("protocol"), 20))
            else:
                asked = ranges_of(attributes.get("services", ""))
                self._asked[protocol] = merge((*self._asked.get(protocol, ()), *asked))
        elif name == "finished":
            self._finished = attributes

    def _host(self, element: bytes) -> None:
        if self._tool == "masscan":
            self._of_masscan(element_of(element))
            return
        tree = element_of(element)
        if tree.get("timedout") == "true":
            self._timed_out += [address_of(one.get("addr")) for one in tree.iterfind("address")][:1]
            self._count(0, len(self._hosts) + len(self._timed_out))
            return
        host = read_host(element, address_of)
        if host.state not in ("up", "down"):  # nmap -sL lists what it would scan
            self._listed.append(host.address)
            self._count(0, len(self._hosts) + len(self._listed))
            return
        for port in host.ports:
            state_of(port.state)
        rest, unplaced, ranges = _rest(tree, host, self._asked, self._only_open)
        self._unplaced += unplaced
        self._ranges += ranges
        if self._ranges > _MAX_RANGES:
            raise ScanFailure(f"it tells of more than {_MAX_RANGES} ranges of ports: give it in parts")
        host = replace(host, address=_with_zone(host.address, tree.get("comment", "")), rest=rest)
        if host.address in self._hosts:
            self._again += 1
            if self._again > _MAX_AGAIN:
                raise ScanFailure(f"it tells of hosts more than once, {host.address} among them")
            host = join(self._hosts[host.address], host)
        self._hosts[host.address] = host
        self._count(len(host.ports), len(self._hosts))

    def _of_masscan(self, tree: ElementTree.Element) -> None:
        """Each element is one answer of a port: ``scaninfo`` does not say what else was asked."""
        found = tree.find("address")
        address = address_of(found.get("addr") if found is not None else "")
        ports = self._seen.setdefault(address, {})
        for each in tree.iterfind("ports/port"):
            protocol = protocol_of(each.get("protocol"))
            number = each.get("portid", "")
            if protocol is None or not RANGE.fullmatch(number) or "-" in number or int(number) > 65535:
                continue  # an answer to a ping, say
            known = ports.get((protocol, int(number)), Port(protocol, int(number), "", ""))
            ports[known.key] = answer(known, each)
            self._count(1, len(self._seen))

    def _count(self, ports: int, hosts: int) -> None:
        self._single += ports
        if hosts > MAX_HOSTS or self._single > MAX_PORTS:
            raise ScanFailure(f"it tells of more than {MAX_HOSTS} hosts or {MAX_PORTS} ports: give it in parts")

    def close(self, digest: str) -> Report:
        verdict = self.stream.close()
        if verdict.oversized:
            raise ScanFailure(f"it says more than {MAX_HOST // 2**20} MiB about one host")
        if self._finished is None:
            raise ScanFailure("the report does not say that it is finished: whoever wrote it was stopped")
        if self._tool == "nmap" and verdict.exit != "success":
            raise ScanFailure(f"nmap did not finish: {verdict.error or 'it does not say why'}")
        notes = []
        if self._timed_out:
            more = f", {self._timed_out[0]} first"
            notes.append(f"nmap gave up on {count(len(self._timed_out), 'host')}{more}: not taken for down")
        if self._unplaced:
            notes.append(
                f"which ports were in which state is not said of {count(self._unplaced, 'port')}, as an old nmap does:"
                " they are left out"
            )
        if self._foreign:
            notes.append(f"results for the protocol {', '.join(sorted(self._foreign))} are left out")
        if self._listed:
            notes.append(
                f"{count(len(self._listed), 'host')} only listed and not asked, {self._listed[0]} first: not taken for"
                " down"
            )
        ports: PortSet = tuple((name, self._asked[name]) for name in PROTOCOLS if self._asked.get(name))
        arguments = clean(self._root.get("args"), OUTPUT_LIMIT)
        words = arguments.split()
        hosts = self._hosts or {
            address: Host(
                address, "up", next(iter(found.values())).reason, ports=tuple(sorted(found.values(), key=_order))
            )
            for address, found in self._seen.items()
            if found
        }
        silent = self._silent(verdict, notes, ports)
        probed = any(port.method == "probed" for host in hosts.values() for port in host.ports)
        detection: Detection = "none"
        if self._tool == "masscan":
            detection = "some" if probed else "none"
        elif probed or any(_DETECTS.fullmatch(word) for word in words):
            detection = "every"
        return Report(
            tool=self._tool,
            version=verdict.version,
            arguments=arguments,
            started=seconds_of(self._root.get("start")),
            ended=seconds_of(self._finished.get("time")),
            hosts=tuple(hosts[address] for address in sorted(hosts, key=place)),
            ports=ports,
            asked=silent,
            total=(verdict.hosts_total or len(hosts)) if self._tool == "nmap" else len(hosts),
            detection=detection,
            scripts=self._tool == "nmap" and any(_SCRIPTS.fullmatch(word) for word in words),
            digest=digest,
            notes=notes,
            left=frozenset((*self._timed_out, *self._listed)) - self._hosts.keys(),
        )

    def _silent(self, verdict: Verdict, notes: list[str], ports: PortSet) -> tuple[Asked, ...]:
        """The addresses that were asked and are not told of."""
        told: dict[Line, list[tuple[int, int]]] = {}
        late: dict[Line, list[tuple[int, int]]] = {}
        for address in (*self._hosts, *self._timed_out, *self._listed):
            line, number = place(address)
            told.setdefault(Line(line.family, ""), []).append((number, number))
        for address in self._timed_out:
            line, number = place(address)
            late.setdefault(Line(line.family, ""), []).append((number, number))
        gave_up = tuple(Asked(line, merge(numbers), ports, "timed_out") for line, numbers in late.items())
        total = verdict.hosts_total or 0
        named = len(self._hosts) + len(self._timed_out) + len(self._listed)
        if self._tool != "nmap" or total <= named:
            return gave_up
        found = given(self._root.get("args", ""), total, verdict.skipped)
        heard = {line: merge(numbers) for line, numbers in told.items()}
        known = all(size(common(numbers, found.get(line, ()))) == size(numbers) for line, numbers in heard.items())
        if not found or not known or self._only_open:
            notes.append(
                f"{count(total - named, 'host')} that did not answer are not named: they are not taken for down"
            )
            return gave_up
        return (
            *(
                Asked(line, left, ports, "silent")
                for line, ranges in found.items()
                if (left := without(ranges, heard.get(line, ())))
            ),
            *gave_up,
        )


def _with_zone(address: str, comment: str) -> str:
    """A link-local address is one on a link: of which, nmap does not say, and ``exporting`` does."""
    match = _ZONE.fullmatch(comment)
    return f"{address}%{match[1]}" if match and ip_address(address).is_link_local and ":" in address else address


def _rest(
    tree: ElementTree.Element, host: Host, asked: dict[Protocol, Ranges], only_open: bool
) -> tuple[tuple[Rest, ...], int, int]:
    """What a host says of ports together, how many of these cannot be told apart, and how many ranges that were.

    The work grows with what stands there, and not with its square: a stranger may have written it.
    """
    groups = tree.findall("ports/extraports")
    reasons = [(group, reason) for group in groups for reason in group.iterfind("extrareasons")]
    if len(groups) > _MAX_REASONS or len(reasons) > _MAX_REASONS:
        raise ScanFailure(f"the report cannot be understood: {host.address} has too many groups of ports")
    found: list[Rest] = []
    for group, reason in reasons:
        protocol = protocol_of(reason.get("proto"))
        if protocol is not None and (ports := ranges_of(reason.get("ports", ""))):
            found.append(Rest(protocol, state_of(group.get("state", "")), clean(reason.get("reason"), 40), ports))
    ranges = sum(len(rest.ports) for rest in found)
    if ranges * len(found) > _MAX_PARTS:
        raise ScanFailure(f"the report cannot be understood: {host.address} has too many groups of ports")
    alone = {name: spans.of(port.number for port in host.ports if port.protocol == name) for name in PROTOCOLS}
    for name, ports in alone.items():
        parts = [ports, *(rest.ports for rest in found if rest.protocol == name)]
        if size(merge(one for part in parts for one in part)) != sum(map(size, parts)):
            raise ScanFailure(f"the report cannot be understood: {host.address} has a {name} port in two states")
    counted = sum(int(number) for group in groups if SECONDS.fullmatch(number := group.get("count", "")))
    if found or len(groups) > 1 or not (groups or only_open):
        return tuple(found), max(0, counted - sum(size(rest.ports) for rest in found)), ranges
    left = {name: ports for name in PROTOCOLS if (ports := without(asked.get(name, ()), alone[name]))}
    ranges = sum(map(len, asked.values()))
    if not groups:
        known = left if host.state == "up" and host.ports else {}
        return tuple(Rest(name, UNTOLD, NOT_OPEN, ports) for name, ports in known.items()), 0, ranges
    if len(left) == 1:  # before 7.90 or so nmap did not name them
        ((name, ports),) = left.items()
        if size(ports) == counted:
            reason_of = clean(reasons[0][1].get("reason"), 40) if len(reasons) == 1 else ""
            return (Rest(name, state_of(groups[0].get("state", "")), reason_of, ports),), 0, ranges
    return (), counted, ranges


def _order(port: Port) -> tuple[int, int]:
    return PROTOCOLS.index(port.protocol), port.number
