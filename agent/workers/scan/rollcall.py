"""Who was asked whether it is there, how often and by what, and who has answered: what a kill or a pause leaves to do.

nmap asks thousands of addresses together and tells of them when all have had their time. What it sends and hears is
noted meanwhile (``trace``), in a file that outlives this process: a line a fact, appended as it becomes known. So an
address is asked as often as it would have been by one nmap that nobody ended, and no more than that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import StorageFailure
from agent.linux.files import open_regular, why
from agent.workers.scan.argv import TRIES, Probe
from agent.workers.scan.trace import Answered, Way, read_line

MOST: Final = 64 * 1024 * 1024
"""Bytes of the file; a longer one is none of ours. 4,096 addresses that are silent need less than 1 MiB."""

_LINE: Final = 1024
"""Most bytes of a line of nmap's."""

_WAYS: Final[dict[str, Way]] = {"arp": "arp", "echo": "echo", "443": "443", "80": "80", "timestamp": "timestamp"}

_NOTE: Final = re.compile(r"([0-9a-f.:]{2,45}) ([a-z0-9]{2,9}|-)(?: ([a-z-]{5,20}) ([0-9a-f:]{17}|-))?\n", re.ASCII)
"""An address and by what it was asked, or by what it answered and how; ``-`` is nothing."""

Counts = Mapping[Way, int]


@dataclass(frozen=True, slots=True)
class Part:
    """Addresses of which the same is left: to be asked by these ``probes``, by all if there are none, so many times."""

    probes: tuple[Probe, ...]
    tries: int
    addresses: tuple[str, ...]

    def packets(self, probes: int) -> int:
        """The most packets that this takes, where all are so many ``probes``."""
        return len(self.addresses) * self.tries * (len(self.probes) or probes)


def parts(addresses: Iterable[str], sent: Mapping[str, Counts], probes: Sequence[Probe]) -> list[Part]:
    """What is left to ask addresses that have not answered, of whom some were ``sent`` something. ``probes`` are those
    that nmap sends of itself, behind a router. An address in none of the parts has had its time. Pure."""
    found: dict[tuple[tuple[Probe, ...], int], list[str]] = {}
    for address in addresses:
        counts = sent.get(address, {})
        if not any(counts.get(probe) for probe in probes):
            left = TRIES - counts.get("arp", 0)
            lacking: list[tuple[tuple[Probe, ...], int]] = [((), left)] if left > 0 else []
        else:
            never = tuple(probe for probe in probes if not counts.get(probe))
            lacking = [(never, TRIES)] if never else []
            # Each by itself: who is to try but once (--max-retries 0) gives a host up at the first probe that is late.
            lacking += [((probe,), 1) for probe in probes if counts.get(probe) == TRIES - 1]
        for key in lacking:
            found.setdefault(key, []).append(address)
    return [Part(those, left, tuple(some)) for (those, left), some in found.items()]


def _noted(said: Answered) -> str:
    return f"{said.address} {said.way or '-'} {said.reason} {said.mac or '-'}\n"


class RollCall:
    """The notes of one group of addresses. Those of another ``identity`` are none. Every method raises
    ``StorageFailure``; ``close`` and ``discard`` may be called twice."""

    def __init__(self, path: Path, identity: str, log: Callable[[str], None] = lambda text: None) -> None:
        """Go on with what is noted at ``path``, or begin. ``log`` is told of what is damaged, and so asked again."""
        self._path = path
        self._log = log
        self._failed = False
        self._sent: dict[str, dict[Way, int]] = {}
        self._answered: dict[str, Answered] = {}
        head = f"{identity}\n".encode()
        self._head = len(head)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                data = os.pread(self._fd, MOST, 0)
                good = self._recall(data, head)
                os.ftruncate(self._fd, good)
                if not good:
                    self._append(head)
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise self._failure(error) from error

    def answer(self, address: str) -> Answered | None:
        """How an address answered, if it did. It is taken without its zone, as nmap writes it."""
        return self._answered.get(address.partition("%")[0])

    def left(self, addresses: Iterable[str], probes: Sequence[Probe]) -> list[Part]:
        """What is left to ask those of the addresses that have not answered (``parts``)."""
        bare = {address.partition("%")[0]: address for address in addresses}
        return [
            Part(part.probes, part.tries, tuple(bare[address] for address in part.addresses))
            for part in parts((address for address in bare if address not in self._answered), self._sent, probes)
        ]

    def listen(self) -> Callable[[bytes], None]:
        """What takes whatever one nmap says, in whatever pieces it comes, and notes it."""
        rest = b""

        def hear(data: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[:_LINE]
            self._note(line[:_LINE].decode("ascii", "replace") for line in lines)

        return hear

    def forget(self) -> None:
        """Whoever asked is not to be trusted, so who has not answered is asked everything again."""
        self._sent.clear()
        try:
            os.ftruncate(self._fd, self._head)
            self._append("".join(map(_noted, self._answered.values())).encode())
            self._failed = False
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Let go of the file, which stays."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def discard(self) -> None:
        """Let go of it, and delete it: all of it is stored elsewhere."""
        self.close()
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(error) from error

    def _note(self, lines: Iterable[str]) -> None:
        noted = []
        for line in lines:
            said = read_line(line)
            if isinstance(said, Answered):
                if self._believe(said):
                    noted.append(_noted(said))
            elif said is not None:
                self._count(said.address, said.way)
                noted.append(f"{said.address} {said.way}\n")
        if not noted or self._failed:
            return
        try:
            self._append("".join(noted).encode())
        except OSError as error:
            self._failed = True  # there may be half a line now, to which nothing can be added
            raise self._failure(error) from error

    def _append(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def _count(self, address: str, way: Way) -> None:
        counts = self._sent.setdefault(address, {})
        counts[way] = counts.get(way, 0) + 1

    def _believe(self, said: Answered) -> bool:
        """Only the first answer of an address, and none to what it was not asked; but a neighbour that advertises
        itself is there, whoever has asked."""
        sent = self._sent.get(said.address, {})
        if said.address in self._answered or not (said.way in sent if said.way else sent or said.mac):
            return False
        self._answered[said.address] = said
        return True

    def _recall(self, data: bytes, head: bytes) -> int:
        """Take up what was noted; returns how many bytes of it are good."""
        if not data.startswith(head) or len(data) >= MOST:
            return 0
        good = len(head)
        text = data.decode("ascii", "replace")  # as many characters as bytes
        while found := _NOTE.match(text, good):
            address, way, reason, mac = found[1], _WAYS.get(found[2]), found[3], found[4]
            if reason is not None and (way or found[2] == "-"):
                self._answered.setdefault(address, Answered(address, way or "", reason, mac.strip("-")))
            elif way and reason is None:
                self._count(address, way)
            else:
                break
            good = found.end()
        if good < len(data):
            self._log(f"{self._path.name}: damaged after {good} bytes; what was noted there is asked again")
        return good

    def _failure(self, error: OSError) -> StorageFailure:
        return StorageFailure(f"{self._path}: cannot be kept: {why(error)}")
