"""One segment file as it is written: a stdio stream that libpcap dumps into, with its errors made visible.

``pcap_dump`` returns nothing and, after the first failed write, silently discards every further packet; even
``pcap_dump_flush`` may then say that all is well. So the stream is ours: after each turn of reading it is flushed and
its error flag looked at. What was in the file at the last good flush is certain; whatever came after it is cut off when
a write fails, and counted as not written.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from agent.workers.capture import binding, savefile
from agent.workers.capture.finish import rename
from agent.workers.capture.handle import Handle
from agent.workers.capture.hold import Hold, scratch

#: Bytes collected before they are written: as much as one ring block holds.
BUFFER = 256 * 1024

_MODE = 0o640
_GUESS = 1024


class Stream:
    """A stdio stream over ``fd``, begun as a pcap file of ``handle``. Owns ``fd``, also when it cannot be made.

    Raises ``OSError``; ``CaptureFailure`` when there is no pcap format for the packets of this handle.
    """

    def __init__(self, handle: Handle, fd: int) -> None:
        self._fd = fd
        stream: int | None = binding.fdopen(fd, b"w+b")
        if stream is None:
            code = ctypes.get_errno()
            os.close(fd)
            raise OSError(code, os.strerror(code))
        self._stream = stream
        self._failure: OSError | None = None
        self._buffer = ctypes.create_string_buffer(BUFFER)  # must live as long as the stream
        binding.set_buffer(stream, self._buffer)
        try:
            dumper = handle.dumper(stream)
        except BaseException:
            binding.fclose(stream)
            raise
        #: What ``Handle.dispatch`` takes.
        self.user = ctypes.cast(ctypes.c_void_p(dumper), ctypes.POINTER(ctypes.c_ubyte))

    def position(self) -> int:
        """Bytes of the file, including those not flushed yet."""
        position: int = binding.pcap_dump_ftell64(self.user)
        return position

    def flush(self) -> None:
        """Hand everything to the kernel. Raises ``OSError`` when that fails or any write before it did."""
        if (
            self._failure is not None
        ):  # the stream has forgotten what it could not write, and would say that all is well
            raise self._failure
        if binding.fflush(self._stream) != 0:
            code = ctypes.get_errno()
            self._failure = OSError(code, os.strerror(code))
            raise self._failure
        if binding.ferror(self._stream):
            # It was a write in the middle of a dispatch that failed, and its errno is gone: ask again.
            os.pwrite(self._fd, b"\0", os.fstat(self._fd).st_size)
            raise OSError(errno.EIO, "a write failed, and now succeeds again")

    def read(self, length: int, offset: int) -> bytes:
        """Bytes of the file itself, past the stream's buffer."""
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """Close stream and file, once. Raises ``OSError`` when the kernel reports a write that failed late."""
        if binding.fclose(self._stream) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def sink(handle: Handle) -> Stream:
    """A stream that keeps nothing: packets that no segment takes are still read, and so counted."""
    return Stream(handle, os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))


class Dumper:
    """A segment being written at ``path``, which must not exist yet. Raises what ``Stream`` raises.

    It is held by ``hold``, also once it is closed: until it has its last name, and whoever gave it that lets go.
    ``size`` and ``packets`` are what is in the file for certain; ``opened`` is the instant it was opened at. ``lag`` is
    how many nanoseconds passed from the first packet of the last flush to that flush.
    """

    def __init__(self, handle: Handle, path: Path, opened: int) -> None:
        self.path = path
        self.opened = opened
        self.packets = 0
        self.lag = 0
        self._noted = 0
        made = scratch(path)
        fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            self.hold = _held(fd)
            try:
                self._stream = Stream(handle, fd)
                form = self._begun(made)
            except BaseException:
                self.hold.release()
                raise
        except BaseException:
            made.unlink(missing_ok=True)
            raise
        self.user = self._stream.user
        self.size = self._stream.position()
        self._form = form

    def _begun(self, made: Path) -> savefile.Format:
        """Write what every segment begins with, and let it be called one. Raises ``OSError``; it is closed then."""
        try:
            self._stream.flush()
            form = savefile.parse_header(self._stream.read(savefile.FILE_HEADER, 0))
            if form is None:
                raise OSError(errno.EIO, "what was written cannot be read back")
            rename(made, self.path)
        except OSError:
            with suppress(OSError):  # the first error says why
                self._stream.close()
            raise
        return form

    def position(self) -> int:
        """Bytes of the segment, including those not flushed yet."""
        return self._stream.position()

    def mean_record(self) -> int:
        """Bytes that a packet took on average, rounded up; a guess before the first."""
        return -(-(self.position() - savefile.FILE_HEADER) // self._noted) if self._noted else _GUESS

    def note(self, packets: int) -> None:
        """Account for packets that were dispatched into this segment."""
        self._noted += packets

    @property
    def uncertain(self) -> int:
        """Packets dispatched into this segment since the last flush that succeeded."""
        return self._noted - self.packets

    def flush(self) -> int:
        """Make everything certain; returns how many packets became so. Raises ``OSError`` when a write failed."""
        self._stream.flush()
        gained = self.uncertain
        if gained:
            self.lag = time.time_ns() - self._instant(self.size)
        self.size = self._stream.position()
        self.packets = self._noted
        return gained

    def first_instant(self) -> int | None:
        """When the first packet was captured, in nanoseconds since the epoch; ``None`` while there is none."""
        return self._instant(savefile.FILE_HEADER) if self.packets else None

    def _instant(self, position: int) -> int:
        """When the packet was captured whose record begins there. Raises ``OSError``."""
        return savefile.first_instant(self._form, self._stream.read(savefile.RECORD_HEADER, position))

    def close(self) -> None:
        """Close the file, cut to what is certain. It is closed too when this raises ``OSError``."""
        damaged = self.uncertain > 0
        try:
            self._stream.close()
        finally:
            # What the stream still held may have gone out while closing, behind a gap.
            if damaged:
                os.truncate(self.path, self.size)


def _held(fd: int) -> Hold:
    """Hold what ``fd`` is open on, which is closed when that raises ``OSError``."""
    try:
        return Hold(fd, wait=True)
    except OSError:
        os.close(fd)
        raise
