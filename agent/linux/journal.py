"""systemd-journald's native protocol: entries made of named fields, handed over without ever waiting for anybody.

The protocol is https://systemd.io/JOURNAL_NATIVE_PROTOCOL: an entry is one datagram, or a sealed memory file passed
along with an empty one when it is too large for that. Values may hold any bytes: a value cannot end its field early and
begin another, because one with a line end in it is sent with its length.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_BUFFER = (
    8 * 1024 * 1024
)  # bytes asked for, as sd_journal_sendv(3) does; the kernel gives what net.core.wmem_max allows
_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NOEXEC_SEAL = 0x0008  # MFD_NOEXEC_SEAL, linux/memfd.h: from Linux 6.3, and demanded where vm.memfd_noexec is 2


def is_ours(environ: Mapping[str, str], fd: int = 2) -> bool:
    """Whether ``fd`` leads to the journal: JOURNAL_STREAM names its device and inode, systemd.exec(5).

    The variable alone proves nothing: it is inherited by programs whose output somebody has redirected.
    """
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def encode(fields: Iterable[tuple[str, bytes]]) -> bytes:
    """An entry, or a part of one, as it travels. A name may come more than once: the field then has several values.

    Raises ``ValueError`` for a name that is not made of A-Z, 0-9 and _, at most 64 of them, a letter first. (journald
    drops other fields without a word, and those that begin with _ are its own.)
    """
    parts: list[bytes] = []
    for name, value in fields:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not the name of a field: {name[:80]!r}")
        if b"\n" in value:
            parts += (name.encode(), b"\n", len(value).to_bytes(8, "little"), value, b"\n")
        else:
            parts += (name.encode(), b"=", value, b"\n")
    return b"".join(parts)


class Journal:
    """The way to the journal at ``address``. Each entry looks for it anew: a journald that was restarted is found."""

    def __init__(self, address: Path = SOCKET) -> None:
        self._address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def send(self, entry: bytes) -> bool:
        """Hand an encoded entry over. Never blocks and never raises.

        ``False`` when it is lost: the journal is gone, or so busy that it would have to be waited for.
        """
        try:
            try:
                self._socket.sendto(entry, self._address)
            except OSError as error:
                if error.errno not in _TOO_LARGE:
                    raise
                self._send_file(entry)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the socket. Twice does no harm."""
        self._socket.close()

    def _send_file(self, entry: bytes) -> None:
        fd = _memory_file()
        try:
            os.pwrite(fd, entry, 0)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            self._socket.sendmsg([b""], [rights], 0, self._address)
        finally:
            os.close(fd)


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("journal-entry", flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("journal-entry", flags)
