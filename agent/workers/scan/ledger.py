"""What is known of each probe of a chunk, in a file that outlives this process: one byte a probe.

The file is mapped, so an answer is stored by assigning a byte. What was assigned is in the page cache, and survives
this process however it ends; only with the machine goes what was not written back. All numbers are little-endian::

    0   8   magic and version
    8   32  ``Grid.key``: what the probes are
    40  4   how many probes
    44  4   CRC-32 of bytes 0 to 43, and 64 to 71
    48  4   the round under way, from 0
    52  4   positions of this round's order that were asked and given up
    56  4   positions of this round's order that were asked
    64  8   when the file was made, unix seconds as a double
    4096    the bytes

A byte below 126 says how often the probe was sent so far, in vain, 127 that it will not be sent again, and 126 that it
is never sent, because its host is not there. Beyond it is
``128 | answer << 3 | attempts - 1``: the answer as an index of ``ANSWERS``, and at which attempt it came (8 is 8 or
more).
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.errors import StorageFailure

ANSWERED: Final = 128
BELIEVED: Final = 127
SKIPPED: Final = 126
ANSWERS: Final = (
    ("open", "syn-ack"),
    ("open", "udp-response"),
    ("closed", "reset"),
    ("closed", "conn-refused"),
    ("closed", "port-unreach"),
    ("filtered", "port-unreach"),
    ("filtered", "host-unreach"),
    ("filtered", "net-unreach"),
    ("filtered", "proto-unreach"),
    ("filtered", "admin-prohibited"),
    ("filtered", "host-prohibited"),
    ("filtered", "net-prohibited"),
    ("filtered", "time-exceeded"),
    ("filtered", "unreachable"),
)
"""State and reason. The place of each is part of the format; ``unreachable`` stands for any other word."""

MOST_SENT: Final = 100
"""A count in a byte stops here."""

_CODES: Final = {answer: code for code, answer in enumerate(ANSWERS)}
_OTHER: Final = _CODES[("filtered", "unreachable")]
_SILENCE: Final = bytes(BELIEVED if byte < SKIPPED else byte for byte in range(256))
_MAGIC: Final = b"SWEEP\r\n\x01"
_HEADER: Final = 4096
_FIXED = struct.Struct("<8s32sI")
_CRC = struct.Struct("<I")
_PLACE = struct.Struct("<III")
_MADE = struct.Struct("<d")


def encode(state: str, reason: str, attempt: int) -> int:
    """The byte of an answer that came at ``attempt``, 1 or more."""
    code = _CODES.get((state, reason))
    if code is None:
        code = next((at for at, (known, _) in enumerate(ANSWERS) if known == state and state != "filtered"), _OTHER)
    return ANSWERED | code << 3 | min(attempt, 8) - 1


def decode(byte: int) -> tuple[str, str] | None:
    """State and reason; ``None`` while there is no answer."""
    return ANSWERS[(byte & 0x7F) >> 3] if byte >= ANSWERED else None


class Ledger:
    """The file of one chunk, open. ``states`` is the bytes, one a probe; assigning one stores it."""

    def __init__(self, path: Path, key: bytes, count: int, *, now: float, within: float) -> None:
        """Go on with the file at ``path``, or make it: ``count`` probes of what ``key`` (32 bytes) says.

        ``fresh`` tells whether it was made, ``discarded`` why the one that was there is gone: damaged, of other probes,
        or made more than ``within`` seconds before ``now`` (unix seconds). Raises ``StorageFailure``.
        """
        self.path = path
        self.discarded = ""
        self.fresh = False
        try:
            fd, self.discarded = _reopen(path, key, count, now, within)
            if fd is None:
                self.fresh = True
                fd = _make(path, key, count, now)
            try:
                self._map = mmap.mmap(fd, _HEADER + count)
            finally:
                os.close(fd)
        except OSError as error:
            raise StorageFailure(f"{path}: cannot be kept: {error.strerror}") from error
        self._view = memoryview(self._map)
        self.states = self._view[_HEADER:]

    @property
    def place(self) -> tuple[int, int, int]:
        """The round under way, and up to which position of its order probes were given up, and sent."""
        round_number, settled, sent = _PLACE.unpack_from(self._map, 48)
        return round_number, settled, sent

    def mark(self, round_number: int, settled: int, sent: int) -> None:
        """Remember how far it is: ``settled <= sent <= count``."""
        _PLACE.pack_into(self._map, 48, round_number, settled, sent)

    def tally(self, start: int, stop: int) -> Counter[int]:
        """How many probes from number ``start`` to ``stop - 1`` have each byte."""
        return Counter(bytes(self.states[start:stop]))

    def believe(self, start: int, stop: int) -> None:
        """Of those from number ``start`` to ``stop - 1`` none that is silent is sent again."""
        self.states[start:stop] = bytes(self.states[start:stop]).translate(_SILENCE)

    def skip(self, start: int, stop: int) -> None:
        """Those from number ``start`` to ``stop - 1`` are not to be sent."""
        self.states[start:stop] = bytes((SKIPPED,)) * (stop - start)

    def close(self) -> None:
        """Let go of it; the file stays. Twice does no harm."""
        self.states.release()
        self._view.release()
        self._map.close()

    def remove(self) -> None:
        """Let go of it and delete it: what it says is stored elsewhere."""
        self.close()
        with suppress(OSError):
            self.path.unlink()


def _reopen(path: Path, key: bytes, count: int, now: float, within: float) -> tuple[int | None, str]:
    """A descriptor of what can be continued, or why it cannot (empty when there is nothing)."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"it cannot be opened ({error.strerror})"
    why = _objection(fd, key, count, now, within)
    if why:
        os.close(fd)
        return None, why
    return fd, ""


def _objection(fd: int, key: bytes, count: int, now: float, within: float) -> str:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        return "it is no file"
    head = os.pread(fd, 72, 0)
    if len(head) < 72 or head[:8] != _MAGIC:
        return "it is damaged, or of another version"
    if _CRC.unpack_from(head, 44)[0] != zlib.crc32(head[:44] + head[64:72]):
        return "it is damaged"
    _, stored_key, stored_count = _FIXED.unpack_from(head)
    if (stored_key, stored_count) != (key, count):
        return "it is of other probes"
    (made,) = _MADE.unpack_from(head, 64)
    if not abs(now - made) <= within:
        return "it is too old to be part of a new picture"
    _, settled, sent = _PLACE.unpack_from(head, 48)
    if found.st_size != _HEADER + count or not settled <= sent <= count:
        return "it is damaged"
    highest = ANSWERED | len(ANSWERS) - 1 << 3 | 7
    strange = set(os.pread(fd, count, _HEADER)) - {
        *range(MOST_SENT + 1),
        SKIPPED,
        BELIEVED,
        *range(ANSWERED, highest + 1),
    }
    return "it is damaged" if strange else ""


def _make(path: Path, key: bytes, count: int, now: float) -> int:
    """A new file in the place of whatever is there. Its blocks are taken now: a mapped write to a full disk kills."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with suppress(FileNotFoundError):
        new.unlink()
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        os.posix_fallocate(fd, 0, _HEADER + count)
        fixed, made = _FIXED.pack(_MAGIC, key, count), _MADE.pack(now)
        os.pwrite(fd, fixed + _CRC.pack(zlib.crc32(fixed + made)) + bytes(16) + made, 0)
        new.replace(path)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            new.unlink()
        raise
    return fd
