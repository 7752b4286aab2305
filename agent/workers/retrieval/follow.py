"""Packets of a store as they are written: its files are followed, so that watching needs no right to capture.

An open segment is read on as it grows. When it is closed it gets another name and perhaps a successor: the file is read
to its end, which its descriptor still leads to, before the next is looked for. So nothing is left out, however fast
segments follow each other, and nothing comes twice.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from agent.declaration.capture_limits import ENDLESS, endless
from agent.declaration.wording import shown
from agent.errors import StorageFailure, UsageError
from agent.linux.files import open_regular, why
from agent.workers.capture.catalogue import Segment, segments
from agent.workers.capture.savefile import FILE_HEADER, file_header, link_type, parse_header
from agent.workers.capture.timely import changes, settled
from agent.workers.index.numbers import ETHERNET
from agent.workers.retrieval.offline import Damaged, Filter


class _File:
    """A segment that is read on, from its begin at first."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.fd = open_regular(segment.path, os.O_RDONLY)
        self.place = FILE_HEADER
        self.damaged = False
        #: Which file this is, whatever it is called by now; nobody else's as long as it is open.
        self.identity = _identity(os.fstat(self.fd))

    def renamed(self) -> bool:
        """Whether it was closed, and so will not grow any more."""
        try:
            return _identity(self.segment.path.stat(follow_symlinks=False)) != self.identity
        except OSError:
            return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class Follower:
    """The packets that come into one store from now on, and that ``expression`` means.

    ``names`` are the interfaces, or all that the store has or gets when there is none. Where it can be, ``without`` is
    left out. ``take`` gives what came since it was called last. Raises ``UsageError`` for a wrong expression, and when
    there are packets of several link types, ``StorageFailure`` when the store cannot be read.
    """

    def __init__(self, store: Path, names: tuple[str, ...], expression: str, without: str | None = None) -> None:
        if endless(expression):
            raise UsageError(f"filter {shown(expression)}: {ENDLESS}")
        self._store = store
        self._names = names
        self._expression = expression
        self._without = without
        self._filters: dict[bytes, Filter] = {}
        self._files: list[_File] = []
        self._seen: set[tuple[str, str]] = set()
        self._kind: tuple[bytes, str] | None = None
        #: Lines about what is left out.
        self.notes: list[str] = []
        self._stamps = changes(store)
        for segment in self._listed():
            if segment.closed:
                self._seen.add((segment.interface, segment.path.name))
            file = self._follow(segment)
            if file is None:
                continue
            self._judge(file, first=True)
            if segment.closed:
                self._drop(file)
            else:
                self._skip(file)
        if self._kind is None:  # a wrong expression is told now, and not when there is a packet
            Filter(file_header(ETHERNET), expression)

    @property
    def link_type(self) -> int | None:
        """What the packets begin with, pcap-linktype(7); ``None`` while there is no segment."""
        if self._kind is None:
            return None
        header, _ = self._kind
        form = parse_header(header)
        return link_type(form, header) if form else None

    def take(self) -> list[tuple[str, bytes]]:
        """What came since the last call, as interfaces and records: with nanoseconds, in this byte order."""
        ended = [file for file in self._files if file.renamed()]
        taken = [(file.segment.interface, self._read(file)) for file in self._files]
        stamps = changes(self._store)
        if ended or stamps != self._stamps or not settled(stamps):
            self._stamps = stamps
            taken += self._look_again()
        for file in ended:  # their new names are known by now
            self._drop(file)
        return [(interface, records) for interface, records in taken if records]

    def close(self) -> None:
        """Let go of all files."""
        while self._files:
            self._drop(self._files[0])

    def _look_again(self) -> list[tuple[str, bytes]]:
        """What is in segments that were not there before."""
        taken: list[tuple[str, bytes]] = []
        held = {file.identity for file in self._files}
        listed = self._listed()
        self._seen &= {(segment.interface, segment.path.name) for segment in listed}
        for segment in listed:
            name = segment.interface, segment.path.name
            if name in self._seen:
                continue
            file = self._follow(segment)
            if file is None:
                continue
            if segment.closed:
                self._seen.add(name)
            if file.identity in held:  # the same by another name
                self._drop(file)
                continue
            taken.append((segment.interface, self._read(file)))
            if segment.closed:
                self._drop(file)
        return taken

    def _listed(self) -> list[Segment]:
        return [each for each in segments(self._store) if not self._names or each.interface in self._names]

    def _follow(self, segment: Segment) -> _File | None:
        """A segment, opened; ``None`` when it is gone or has another name by now, which another look tells."""
        try:
            file = _File(segment)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageFailure(f"{segment.path}: cannot be read: {why(error)}") from error
        self._files.append(file)
        return file

    def _drop(self, file: _File) -> None:
        if file in self._files:
            self._files.remove(file)
            os.close(file.fd)

    def _skip(self, file: _File) -> None:
        """Go to the end of what is there."""
        with suppress(Damaged):
            judge = self._judge(file)
            if judge is not None:
                file.place = judge.skip(file.fd, file.place, os.fstat(file.fd).st_size)

    def _read(self, file: _File) -> bytes:
        """What passes of what was added to a segment."""
        end = os.fstat(file.fd).st_size
        if end <= file.place or file.damaged or (judge := self._judge(file)) is None:
            return b""
        taken = []
        try:
            for records in judge.scan(file.fd, file.place, end):
                taken.append(bytes(records))
        except Damaged as error:
            file.damaged = True
            self.notes.append(f"{file.segment.path}: {error}")
        file.place = judge.place
        return b"".join(taken)

    def _judge(self, file: _File, *, first: bool = False) -> Filter | None:
        """The filter for a segment; ``None`` when its begin is not written yet, or its packets are of another kind."""
        header = os.pread(file.fd, FILE_HEADER, 0)
        if len(header) < FILE_HEADER or parse_header(header) is None:
            return None
        if self._kind is None:
            self._kind = header, file.segment.interface
        known, interface = self._kind
        if header[20:24] != known[20:24]:
            told = f"{file.segment.interface} has packets of another link type than {interface}; name an --interface"
            if first:
                raise UsageError(told)
            if told not in self.notes:
                self.notes.append(told)
            return None
        if header not in self._filters:
            self._filters[header] = self._compiled(header)
        return self._filters[header]

    def _compiled(self, header: bytes) -> Filter:
        judge = Filter(header, self._expression)
        if self._without is None:
            return judge
        everything = f"{self._without} and ({self._expression})" if self._expression.strip() else self._without
        try:
            return Filter(header, everything)
        except UsageError:  # packets of this kind have nothing of what is to be left out
            return judge
