"""Which ports: ``"1-1024,5432,udp/53,web,top-100"`` becomes spans of TCP and UDP ports, and one spelling of them. Pure.

An item is a port or a range, of TCP unless ``udp/`` stands before it; the name of a set; ``all``; or ``top-N``, the N
ports that are open most often. Which those are is not ours to say: the word stays a word here, and the worker of a scan
looks it up in the file that came with the host's nmap (``agent.workers.scan.services_file``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from agent.declaration.wording import shown
from agent.errors import UsageError

Protocol = Literal["tcp", "udp"]
Span = tuple[int, int]
"""The first and the last port of a range."""

LAST = 65_535

LONGEST = 16_384
"""Characters of one such text at most."""

NAMED: dict[str, str] = {
    "web": "80,443,3000,5000,8000,8008,8080,8081,8443,8888,9000,9443,udp/443",
    "mail": "25,110,143,465,587,993,995,4190",
    "databases": "1433,1521,3306,5432,5984,6379,7000,7687,8086,9042,9200,9300,11211,27017-27019,28015,50000,udp/1434",
    "remote": "22,23,512-514,2222,3389,5800-5803,5900-5903,5985,5986,6000-6003,udp/3389",
    "windows": "88,135,139,389,445,464,593,636,3268,3269,3389,5357,5985,5986,9389,udp/88,udp/137,udp/138,udp/389",
    "files": "20,21,69,111,139,445,548,873,990,2049,3260,udp/69,udp/111,udp/2049",
    "printing": "515,631,9100-9102,udp/161,udp/631,udp/3702,udp/5353",
    "voip": "1720,2000,5060,5061,udp/2427,udp/4569,udp/5060",
    "names": "53,853,5353,5355,udp/53,udp/137,udp/853,udp/5353,udp/5355",
    "management": "22,23,161,443,623,830,5666,8443,10000,10050,10051,16992,16993,udp/161,udp/162,udp/514,udp/623",
    "containers": "2375-2377,2379,2380,4243,5000,6443,7946,8472,9090,9323,10250,10255,10257,10259,udp/7946,udp/8472",
    "messaging": "1883,4222,5222,5223,5269,5671,5672,6667,6697,8883,9092,15672,61613,61616",
    "industrial": "102,502,789,1911,1962,2404,4840,4911,5006,5007,9600,18245,20000,44818,udp/2222,udp/44818,udp/47808",
}
"""Our own sets. They say what is asked, not what should be there; docs/declaration.md lists them."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_TOP = re.compile(r"top-([0-9]{1,9})", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?", re.ASCII)
_HINT = 'write ports and ranges, such as "1-1024,5432,udp/53"'
_TAKEN = ("all", "tcp", "udp", "top")


class Ports(NamedTuple):
    """Sorted spans that do not touch. ``top_tcp`` and ``top_udp``: also so many of the ports open most often."""

    tcp: tuple[Span, ...] = ()
    udp: tuple[Span, ...] = ()
    top_tcp: int = 0
    top_udp: int = 0

    def __str__(self) -> str:
        """The one spelling, which ``parse_ports`` reads back as the same."""
        items = [_written(span) for span in self.tcp] + [f"udp/{_written(span)}" for span in self.udp]
        items += [f"top-{self.top_tcp}"] if self.top_tcp else []
        items += [f"udp/top-{self.top_udp}"] if self.top_udp else []
        return ",".join(items)

    @property
    def settled(self) -> bool:
        """Whether it is all numbers, with no word left to look up."""
        return not (self.top_tcp or self.top_udp)

    @property
    def number(self) -> int:
        """How many ports, of both protocols; a word counts for what it will be at most."""
        return sum(high - low + 1 for low, high in (*self.tcp, *self.udp)) + self.top_tcp + self.top_udp

    def holds(self, protocol: str, port: int) -> bool:
        """Whether a port is one of its numbers."""
        spans = self.tcp if protocol == "tcp" else self.udp if protocol == "udp" else ()
        return any(low <= port <= high for low, high in spans)


def parse_ports(value: str | int, sets: Mapping[str, str] = {}) -> Ports:
    """``sets`` are the operator's own, in normal form. Raises ``UsageError``."""
    text = str(value)
    if len(text) > LONGEST:
        raise UsageError(f"{len(text)} characters are too many for ports; write at most {LONGEST}, with ranges")
    tcp: list[Span] = []
    udp: list[Span] = []
    top = {"tcp": 0, "udp": 0}
    for item in text.split(","):
        protocol, word = _split(item.strip())
        if protocol is None and (named := sets.get(word) or NAMED.get(word)):
            found = parse_ports(named)
            tcp += found.tcp
            udp += found.udp
            top = {"tcp": max(top["tcp"], found.top_tcp), "udp": max(top["udp"], found.top_udp)}
        elif match := _TOP.fullmatch(word):
            if not 1 <= int(match[1]) <= LAST:
                raise UsageError(f"{shown(item.strip())} names no number of ports; write top-1 to top-{LAST}")
            top[protocol or "tcp"] = max(top[protocol or "tcp"], int(match[1]))
        else:
            (udp if protocol == "udp" else tcp).append(_span(item.strip(), word, sets))
    return Ports(merge(tcp), merge(udp), top["tcp"], top["udp"])


def set_name(name: str) -> str:
    """The name of a set that an operator declares. Raises ``UsageError``."""
    if name in NAMED:
        raise UsageError(f"{name} is a set of the program's own; choose another name")
    if not _NAME.fullmatch(name) or name.startswith("top-") or name in _TAKEN:
        raise UsageError(
            "a set's name begins with a letter a to z; letters, digits, - and _ follow, and it is not all or top-N"
        )
    return name


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The union of any spans, sorted, those that touch made one."""
    result: list[Span] = []
    for low, high in sorted(spans):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return tuple(result)


def _split(item: str) -> tuple[Protocol | None, str]:
    protocol, slash, word = item.partition("/")
    if slash and protocol.strip() == "tcp":
        return "tcp", word.strip()
    if slash and protocol.strip() == "udp":
        return "udp", word.strip()
    return None, item


def _span(item: str, word: str, sets: Mapping[str, str]) -> Span:
    """A number, a range or ``all``; ``item`` is how it stands there."""
    if word == "all":
        return 1, LAST
    match = _RANGE.fullmatch(word)
    if match is None:
        if _NAME.fullmatch(item):
            from agent.declaration.wording import listed, nearest  # only a mistake needs it

            known = sorted({*NAMED, *sets})
            hint = nearest(item, known)
            advice = f"did you mean {hint}?" if hint else f"there are {listed(known, 'and')}, and [ports] declares more"
            raise UsageError(f"{shown(item)} is neither a port nor a set of ports; {advice}")
        raise UsageError(f"{shown(item)} is not a port; {_HINT}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= LAST or not 1 <= last <= LAST:
        raise UsageError(f"{shown(item)} is not a port; ports go from 1 to {LAST}")
    if first > last:
        raise UsageError(f"{shown(item)} runs backwards; write {last}-{first}")
    return first, last


def _written(span: Span) -> str:
    low, high = span
    return str(low) if low == high else f"{low}-{high}"
