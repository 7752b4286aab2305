"""A stand-in for journald: its socket, and the protocol read by the letter of https://systemd.io/JOURNAL_NATIVE_PROTOCOL.

Written on its own, so that a mistake of the sender is not repeated here.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import socket
from pathlib import Path

Entry = list[tuple[str, bytes]]

SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Journald:
    """Bound to ``path``; reads only when it is asked to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.files = 0
        """How many entries came in a file."""

    def entries(self) -> list[Entry]:
        """Everything that has arrived since."""
        found: list[Entry] = []
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(1 << 22, socket.CMSG_SPACE(64))
            except BlockingIOError:
                return found
            for level, kind, rights in ancillary:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                (fd,) = array.array("i", rights)
                assert data == b""
                data = self._sealed(fd)
            found += parse(data)

    def messages(self) -> list[str]:
        """The text of everything that has arrived since."""
        return [dict(entry)["MESSAGE"].decode() for entry in self.entries()]

    def _sealed(self, fd: int) -> bytes:
        self.files += 1
        try:
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALED == SEALED
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)

    def go(self) -> None:
        """As ``systemctl stop``: nobody reads any more, and the socket's file is gone."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


def parse(data: bytes) -> list[Entry]:
    """The entries of one datagram or file; an empty line ends one."""
    entries: list[Entry] = []
    fields: Entry = []
    while data:
        line, newline, rest = data.partition(b"\n")
        assert newline, "the last line is not finished"
        if not line:
            entries.append(fields)
            fields = []
        elif line[:1] not in (b"#", b"."):  # comments and control lines
            name, equals, value = line.partition(b"=")
            if not equals:
                size = int.from_bytes(rest[:8], "little")
                assert len(rest) > 8 + size
                assert rest[8 + size : 9 + size] == b"\n"
                value, rest = rest[8 : 8 + size], rest[9 + size :]
            if re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name):
                fields.append((name.decode(), value))
        data = rest
    return [entry for entry in [*entries, fields] if entry]
