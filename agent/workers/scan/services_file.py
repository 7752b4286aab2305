"""Which ports are open most often, as the host's nmap knows it. The file is the host's own, and never part of ours.

``nmap-services`` has a line for each port: a name, ``PORT/PROTOCOL``, how often it was found open (a decimal or a
fraction), a comment (Nmap Network Scanning, chapter 14, "nmap-services"). ``--top-ports`` goes by the same numbers.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from agent.declaration.ports import LAST, Ports, Protocol, merge
from agent.errors import ScanFailure

LARGEST = 16 * 1024 * 1024
"""Bytes of the file at most: Debian's has one million."""

_LINE = re.compile(
    r"\S{1,200}[ \t]+([0-9]{1,5})/(tcp|udp)[ \t]+([0-9.]{1,20})(?:/([0-9.]{1,20}))?(?:[ \t]|$)", re.ASCII
)


class Ranks(NamedTuple):
    """The ports of each protocol, the one open most often first."""

    tcp: tuple[int, ...]
    udp: tuple[int, ...]

    def top(self, protocol: Protocol, number: int) -> tuple[int, ...]:
        """The first ``number`` (0 to 65535). Where the file has fewer, ports it does not know follow in order."""
        ranked = (self.tcp if protocol == "tcp" else self.udp)[:number]
        if len(ranked) < number:
            known = set(ranked)
            rest = (port for port in range(1, LAST + 1) if port not in known)
            ranked += tuple(port for port, _ in zip(rest, range(number - len(ranked)), strict=False))
        return ranked


def parse_services(text: str) -> Ranks:
    """Read the text of the file. Lines that say nothing of a TCP or UDP port count for nothing."""
    often: dict[str, dict[int, float]] = {"tcp": {}, "udp": {}}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        port, frequency = int(match[1]), _frequency(match[3], match[4])
        if 1 <= port <= LAST and frequency is not None:
            of_protocol = often[match[2]]
            of_protocol[port] = max(frequency, of_protocol.get(port, 0.0))
    return Ranks(_ranked(often["tcp"]), _ranked(often["udp"]))


def settle(ports: Ports, ranks: Ranks) -> Ports:
    """``ports`` in numbers alone."""
    tcp = merge([*ports.tcp, *((port, port) for port in ranks.top("tcp", ports.top_tcp))])
    udp = merge([*ports.udp, *((port, port) for port in ranks.top("udp", ports.top_udp))])
    return Ports(tcp, udp)


def read_services(path: Path) -> Ranks:
    """Raises ``ScanFailure`` when there is no such file or nothing in it that can be used."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ScanFailure(f"{path}: is not a regular file; top-N needs nmap's list of ports")
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise ScanFailure(
            f"{path}: {error.strerror}; top-N needs the list of ports that comes with nmap (apt-get install nmap)"
        ) from error
    if len(content) > LARGEST:
        raise ScanFailure(f"{path}: is larger than {LARGEST} bytes; top-N needs nmap's list of ports")
    ranks = parse_services(content.decode("utf-8", "replace"))
    if not ranks.tcp:
        raise ScanFailure(f"{path}: names no port; top-N needs nmap's list of ports")
    return ranks


def _frequency(above: str, below: str | None) -> float | None:
    try:
        return float(above) / float(below) if below else float(above)
    except (ValueError, ZeroDivisionError):
        return None


def _ranked(often: dict[int, float]) -> tuple[int, ...]:
    """nmap leaves out what it never found, and so does this."""
    return tuple(sorted((port for port, share in often.items() if share > 0), key=lambda port: (-often[port], port)))
