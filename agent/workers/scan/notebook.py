"""What phase 2 knows of each host that it is at, on disk: what is killed is continued where it stood.

One small file for each such host, in a directory of its own, to which each fact is appended as it becomes known: what
was heard of a port, and what a run of nmap was through with. It is gone once the host is identified, so there are never
more files than hosts under way. A fact is one line of JSON in one write(2), which survives a kill at any instruction;
lines that were cut short, as by a host that lost its power, are left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import StorageFailure
from agent.linux.files import open_regular, why
from agent.workers.scan.detect import PortKey, Stage
from agent.workers.scan.speak import How

MOST: Final = 64 * 1024 * 1024
"""Bytes of one file; a longer one is none of ours. One host says at most 4 MiB in one run of nmap."""


_END = ".notes"


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """What a TCP port reacted to."""

    port: int
    how: How


class Told(msgspec.Struct, frozen=True, tag="told"):
    """A run of nmap was through with these ports. ``element`` is what it said of the host, empty for nothing;
    ``given_up`` is why nobody will ask again, if that is so."""

    stage: Stage
    keys: tuple[PortKey, ...]
    element: bytes = b""
    given_up: str = ""


class Before(msgspec.Struct, frozen=True, tag="before"):
    """These ports are identified and stored already: only the others of the host are not."""

    keys: tuple[PortKey, ...]


class _Head(msgspec.Struct, frozen=True, tag="host"):
    run: str
    address: str


Fact = Heard | Told | Before
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Heard | Told | Before | _Head).decode


class Notebook:
    """The notes of one run, ``identity``. Those of another are none, and go. Every method raises ``StorageFailure``."""

    def __init__(self, directory: Path, identity: str) -> None:
        self._directory = directory
        self._identity = identity
        try:
            link = directory.is_symlink()
        except OSError as error:
            raise self._failure(directory, error) from error
        if link:  # what is there is removed
            raise StorageFailure(f"{directory}: it is a link, so no directory of ours")

    def read(self, address: str) -> list[Fact]:
        """What is known of a host, in the order in which it became known. Further facts are appended to that."""
        path = self._path(address)
        try:
            fd = open_regular(path, os.O_RDWR)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failure(path, error) from error
        try:
            with os.fdopen(fd, "rb+") as file:
                data = file.read(MOST + 1)
                facts, good = _read(data, _Head(self._identity, address)) if len(data) <= MOST else ([], 0)
                file.truncate(good)
        except OSError as error:
            raise self._failure(path, error) from error
        return facts

    def heard(self, address: str, port: int, how: How) -> None:
        """Keep what a port reacted to."""
        self._append(address, Heard(port, how))

    def told(
        self, address: str, stage: Stage, keys: Collection[PortKey], element: bytes = b"", given_up: str = ""
    ) -> None:
        """Keep what a run of nmap said."""
        self._append(address, Told(stage, tuple(keys), element, given_up))

    def before(self, address: str, keys: Collection[PortKey]) -> None:
        """Keep that these ports of a host of which more has become known are identified and stored."""
        self._append(address, Before(tuple(sorted(keys))))

    def forget(self, address: str) -> None:
        """A host is identified, and stored."""
        self._remove(self._path(address))

    def discard(self) -> None:
        """Forget all hosts."""
        try:
            left = [path for path in self._directory.iterdir() if path.name.endswith(_END)]
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failure(self._directory, error) from error
        for path in left:
            self._remove(path)

    def _append(self, address: str, fact: Fact) -> None:
        path = self._path(address)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            fd = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                line = _encode(fact) + b"\n"
                if os.fstat(fd).st_size == 0:
                    line = _encode(_Head(self._identity, address)) + b"\n" + line
                while line:
                    line = line[os.write(fd, line) :]
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failure(path, error) from error

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(path, error) from error

    def _path(self, address: str) -> Path:
        # A zone is the name of an interface, which may be nearly anything.
        return self._directory / f"{hashlib.blake2b(address.encode(), digest_size=16).hexdigest()}{_END}"

    @staticmethod
    def _failure(path: Path, error: OSError) -> StorageFailure:
        return StorageFailure(f"{path}: cannot be kept: {why(error)}")


def _read(data: bytes, head: _Head) -> tuple[list[Fact], int]:
    """The facts, and how many bytes they and their head are."""
    facts: list[Fact] = []
    good = 0
    for number, (line, end) in enumerate(_lines(data)):
        try:
            one = _decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            break
        if (number == 0) != isinstance(one, _Head) or (number == 0 and one != head):
            break
        if not isinstance(one, _Head):
            facts.append(one)
        good = end
    return facts, good


def _lines(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Each line that has an end, and where that is."""
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start:end], end + 1
        start = end + 1
