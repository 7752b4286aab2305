"""Which addresses a finished nmap had been given, judged by its command line. Pure.

nmap writes down its words and how many addresses they made, but not which: hosts that are down are left out. So the
words that can be targets are counted, and only when they make exactly as many addresses as nmap says are they believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_network
from itertools import product
from math import prod

from agent.workers.scan.memory.place import Line
from agent.workers.scan.nmap_options import Command, split, taken_apart
from agent.workers.scan.spans import Ranges, merge, size, without

MOST_RANGES = 65_536
"""Of all words together, such as ``10.0-255.0-255.1,3``; beyond that they are not believed."""

MOST_STEPS = 2**24
"""Words times excluded ranges: each is held against each. Beyond that they are not believed."""

MOST_CHARACTERS = 131_072
"""Of the command line; the kernel takes no longer word, ARG_MAX in execve(2)."""

_ELSEWHERE = ("iL", "iR", "i", "excludefile", "resume")
"""Options with which other addresses are asked than those of the command line, or not all of these. Should as many
others come as are left out, the number would be right all the same."""

_OCTET = re.compile(r"(\*|[0-9]{0,3}-?[0-9]{0,3})(,[0-9]{0,3}-?[0-9]{0,3}){0,255}", re.ASCII)
_CHARACTERS = re.compile(r"[0-9a-fA-F.:,/*-]{1,400}", re.ASCII)


def given(arguments: str, total: int, skipped: Iterable[str] = ()) -> dict[Line, Ranges]:
    """The addresses of nmap's command line, empty unless they are ``total``; ``skipped`` are words nmap left out."""
    program, command = _parsed(arguments)
    if command is None or any(command.values(name) for name in _ELSEWHERE):
        return {}
    excluded = command.values("exclude")
    if len(excluded) > 1 or any(_ranges(word) for word in skipped):
        return {}
    families = (4, 6) if program == "agentctl" else (6,) if command.values("6") else (4,)
    wanted: list[tuple[Line, Ranges]] = []
    holes: list[tuple[Line, Ranges]] = []
    held = 0
    spared = excluded[0].split(",") if excluded else []
    for where, words in ((holes, spared), (wanted, command.targets)):
        for word in words:
            found = _ranges(word)
            held += sum(len(ranges) for _, ranges in found)
            if held > MOST_RANGES or (where is holes and not found):  # a name: who knows whose
                return {}
            where += (one for one in found if one[0].family in families)
    if len(wanted) * sum(len(ranges) for _, ranges in holes) > MOST_STEPS:
        return {}
    left = {line: _union(holes, line) for line in dict.fromkeys(line for line, _ in wanted)}
    result = {line: without(_union(wanted, line), hole) for line, hole in left.items()}
    twice = sum(size(without(ranges, left[line])) for line, ranges in wanted)  # nmap counts them as they come
    return result if total in (twice, sum(map(size, result.values()))) else {}


def only_open(arguments: str) -> bool:
    """Whether nmap was told to leave out what is not open, hosts without an open port among it."""
    _, command = _parsed(arguments)
    return command is not None and bool(command.values("open"))


def _parsed(arguments: str) -> tuple[str, Command | None]:
    """The program, and what it was told; ``None`` when that is not clear."""
    try:
        program, *words = split(arguments) if len(arguments) <= MOST_CHARACTERS else []
    except ValueError:
        return "", None
    return program, taken_apart(words)


def _union(parts: Iterable[tuple[Line, Ranges]], line: Line) -> Ranges:
    return merge(one for where, ranges in parts if where == line for one in ranges)


def _ranges(word: str) -> list[tuple[Line, Ranges]]:
    """A target as nmap(1) takes it, ``TARGET SPECIFICATION``; nothing for a word that is none, or a name."""
    if not _CHARACTERS.fullmatch(word):
        return []
    if word.count(".") != 3 or not re.search(r"[-,*]", word):
        try:
            network = ip_network(word, strict=False)
        except ValueError:
            return []
        line = Line(4 if network.version == 4 else 6, "")
        return [(line, ((int(network.network_address), int(network.broadcast_address)),))]
    octets = [_octet(part) for part in word.split(".")]
    spread = [[number for low, high in octet for number in range(low, high + 1)] for octet in octets[:3]]
    if not all(octets) or prod(map(len, spread)) * len(octets[3]) > MOST_RANGES:
        return []
    found = []
    for first, second, third in product(*spread):
        base = (first << 24) | (second << 16) | (third << 8)
        found += [(base | low, base | high) for low, high in octets[3]]
    return [(Line(4, ""), merge(found))]


def _octet(text: str) -> Ranges:
    """``5``, ``1-3,7``, ``-100``, ``*``; nothing when it is none of these."""
    if not _OCTET.fullmatch(text) or not text:
        return ()
    found = []
    for part in text.split(","):
        low, dash, high = ("0", "-", "255") if part == "*" else part.partition("-")
        first = int(low or (0 if dash else -1))
        last = int(high or 255) if dash else first
        if not 0 <= first <= last <= 255:
            return ()
        found.append((first, last))
    return merge(found)
