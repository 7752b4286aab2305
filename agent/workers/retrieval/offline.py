"""Packets of a savefile, or of some bytes of one, that pass a filter: libpcap reads, judges and copies them in C.

libpcap reads from a stdio stream. That stream is memory here (fmemopen(3)): the header of the file, then the records in
question, wherever they came from. What passes is written by ``pcap_dump``, as the callback of ``pcap_dispatch``, into
memory too. So no Python runs per packet, and a file that shrinks while it is read does no harm, as it would if it were
mapped.

libpcap is loaded by itself: the bindings of scapy, which the capturing process uses, would cost every query 25 ms.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from agent.declaration.capture_limits import LONGEST_FILTER
from agent.declaration.wording import printable, shown
from agent.errors import CaptureFailure, StorageFailure, UsageError
from agent.linux import libpcap
from agent.workers.capture.savefile import FILE_HEADER, LONGEST_CAPTURE, RECORD_HEADER, parse_header

WINDOW = 2 << 20
"""Bytes of a file read at a time: longer than any record."""

BATCH = 1024
"""After so many packets it is noted how far reading has come."""

_ERRBUF_SIZE = 256  # pcap.h: PCAP_ERRBUF_SIZE
_NANOSECONDS = 1  # pcap.h: PCAP_TSTAMP_PRECISION_NANO
_NETMASK = 0  # as tcpdump(1) does for a file: then ``ip broadcast`` means 255.255.255.255 and 0.0.0.0

_RECORD = struct.Struct("=IIII")

_Pointer = ctypes.c_void_p
_Int = ctypes.c_int
_Size = ctypes.c_size_t


class _Program(ctypes.Structure):  # struct bpf_program, pcap/bpf.h
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def _function(library: Any, name: str, restype: Any, *argtypes: Any) -> Any:
    function = getattr(library, name)
    function.restype = restype
    function.argtypes = argtypes
    return function


_found = libpcap.load()
if _found is None:
    raise CaptureFailure("libpcap is not installed: on Debian and Ubuntu, `apt install libpcap0.8`")
_library = _found[1]
_libc = ctypes.CDLL(None, use_errno=True)

_open = _function(  # since libpcap 1.5
    _library, "pcap_fopen_offline_with_tstamp_precision", _Pointer, _Pointer, ctypes.c_uint, ctypes.c_char_p
)
_compile = _function(_library, "pcap_compile", _Int, _Pointer, _Pointer, ctypes.c_char_p, _Int, ctypes.c_uint32)
_freecode = _function(_library, "pcap_freecode", None, _Pointer)
_setfilter = _function(_library, "pcap_setfilter", _Int, _Pointer, _Pointer)
_dispatch = _function(_library, "pcap_dispatch", _Int, _Pointer, _Int, _Pointer, _Pointer)
_geterr = _function(_library, "pcap_geterr", ctypes.c_char_p, _Pointer)
_datalink = _function(_library, "pcap_datalink", _Int, _Pointer)
_dump_fopen = _function(_library, "pcap_dump_fopen", _Pointer, _Pointer, _Pointer)
_close = _function(_library, "pcap_close", None, _Pointer)
_fmemopen = _function(_libc, "fmemopen", _Pointer, _Pointer, _Size, ctypes.c_char_p)
_fclose = _function(_libc, "fclose", _Int, _Pointer)
_fflush = _function(_libc, "fflush", _Int, _Pointer)
_fseek = _function(_libc, "fseek", _Int, _Pointer, ctypes.c_long, _Int)
_ftell = _function(_libc, "ftell", ctypes.c_long, _Pointer)

#: Callbacks of ``pcap_dispatch``: one writes the packet, the other heeds nothing that it is given.
_DUMP = ctypes.cast(_library.pcap_dump, ctypes.c_void_p)
_NOTHING = ctypes.cast(_library.pcap_lib_version, ctypes.c_void_p)


class Packet(NamedTuple):
    """One packet: nanoseconds since the epoch, its length on the wire, and the bytes of it that were captured."""

    time: int
    length: int
    data: bytes


class Damaged(StorageFailure):
    """What stands at ``offset`` of a file is no packet, and so where the next one begins nobody knows."""

    def __init__(self, offset: int, reason: str) -> None:
        self.offset = offset
        super().__init__(f"at byte {offset}: {reason}")


def packets(records: bytes | memoryview) -> Iterator[Packet]:
    """The packets in what a ``Filter`` let pass."""
    place = 0
    while place < len(records):
        seconds, nanoseconds, captured, length = _RECORD.unpack_from(records, place)
        begin = place + RECORD_HEADER
        place = begin + captured
        yield Packet(seconds * 1_000_000_000 + nanoseconds, length, bytes(records[begin:place]))


class Filter:
    """An expression of pcap-filter(7), compiled for files that begin with this ``header`` (24 bytes).

    Names in it are looked up by the system's resolver. Raises ``UsageError`` for an expression that libpcap refuses,
    with what it says, and ``StorageFailure`` when this is not the header of a savefile.

    What passes comes as records of pcap-savefile(5) without the header of a file: in the byte order of this machine and
    with nanoseconds, whatever the file has.
    """

    def __init__(self, header: bytes, expression: str) -> None:
        self._program = _Program()
        self._output = bytearray()
        self._dumper: int | None = None
        self.place = 0
        """Up to where in a file the last scan came."""
        form = parse_header(header)
        if form is None:
            raise StorageFailure("no pcap file")
        self._header = header[:FILE_HEADER]
        self._captured = struct.Struct(form.order + "8xI4x")
        opened, _ = _opened(_address(self._header), FILE_HEADER)
        try:
            self.link_type: int = _datalink(opened)
            """libpcap's own number for it (DLT_), which for most is that of pcap-linktype(7)."""
            self._compile(opened, expression)
        finally:
            _close(opened)

    def _compile(self, opened: int, expression: str) -> None:
        if len(expression) <= LONGEST_FILTER and "\0" not in expression:
            text = expression.encode("utf-8", "surrogateescape")
            if _compile(opened, ctypes.byref(self._program), text, 1, _NETMASK) == 0:
                return
        self._program = _Program()
        from agent.workers.capture.expression_error import refusal  # loads the bindings of scapy

        raise UsageError(refusal(expression, self.link_type) or f"filter {shown(expression)}: {_said(opened)}")

    def __del__(self) -> None:
        """Give back what C holds."""
        if self._program.instructions:
            _freecode(ctypes.byref(self._program))
        self._end_output()

    def _end_output(self) -> None:
        if self._dumper is not None:
            _fclose(self._dumper)
            self._dumper = None

    def among(self, records: Iterable[bytes | memoryview]) -> memoryview:
        """Those of the records, whole ones in the form of the file, that pass. Valid until the next call.

        Raises ``Damaged``, with the place in all of them together, when one makes no sense.
        """
        data = b"".join((self._header, *records))
        address = _address(data)
        taken = self._passing(address, len(data))
        if taken is None:
            whole, reason = self._whole(address, memoryview(data))
            raise Damaged(whole - FILE_HEADER, reason or "a packet that is cut off")
        return taken

    def scan(self, fd: int, begin: int, end: int) -> Iterator[memoryview]:
        """What passes of the records between two offsets of a file, in pieces; each is valid until the next.

        ``begin`` is where a record begins. One that is not whole at ``end``, or that the file does not have, is left
        out: it may still be being written. Raises ``Damaged`` where something makes no sense, after what came before
        it, and ``OSError``.
        """
        window = bytearray(FILE_HEADER + WINDOW)
        window[:FILE_HEADER] = self._header
        view = memoryview(window)
        address = ctypes.addressof(ctypes.c_char.from_buffer(window))
        self.place = begin
        while begin < end:
            got = os.preadv(fd, [view[FILE_HEADER : FILE_HEADER + min(WINDOW, end - begin)]], begin)
            whole, reason = self._whole(address, view[: FILE_HEADER + got])
            begin += whole - FILE_HEADER
            self.place = begin
            if whole > FILE_HEADER and (taken := self._passing(address, whole)):
                yield taken
            if reason:
                raise Damaged(begin, reason)
            if whole == FILE_HEADER:
                return

    def skip(self, fd: int, begin: int, end: int) -> int:
        """Where the last whole record between two offsets of a file ends. Raises as ``scan`` does."""
        for _ in self.scan(fd, begin, end):
            pass
        return self.place

    def _passing(self, address: int, length: int) -> memoryview | None:
        """What passes of a savefile in memory; ``None`` when it does not end with a whole record."""
        opened, _ = _opened(address, length)
        try:
            if _setfilter(opened, ctypes.byref(self._program)) != 0:
                raise CaptureFailure(f"libpcap cannot use its own filter: {_said(opened)}")
            dumper = self._rewound(opened, length)
            done = _dispatch(opened, -1, _DUMP, dumper)
            _fflush(dumper)
            if done < 0:
                return None
            return memoryview(self._output)[FILE_HEADER : _ftell(dumper)]
        finally:
            _close(opened)

    def _rewound(self, opened: int, length: int) -> int:
        """What ``pcap_dump`` writes to, empty but for a file's header, with room for as much as ``length`` bytes."""
        dumper = self._dumper
        if dumper is None or len(self._output) <= length:
            self._end_output()
            self._output = bytearray(max(FILE_HEADER + WINDOW, length) + 1)  # fmemopen(3) ends it with a zero
            memory = (ctypes.c_char * len(self._output)).from_buffer(self._output)
            stream = _fmemopen(memory, len(self._output), b"wb")
            dumper = _dump_fopen(opened, stream) if stream else None
            if dumper is None:
                raise CaptureFailure(f"libpcap cannot write packets to memory: {_said(opened)}")
            self._dumper = dumper
        _fseek(dumper, FILE_HEADER, os.SEEK_SET)  # a dumper is its stream
        return int(dumper)

    def _whole(self, address: int, data: memoryview) -> tuple[int, str]:
        """How long a savefile in memory is up to its last whole record, and what is wrong there, if anything.

        Nothing is wrong with a record that is merely cut off.
        """
        opened, stream = _opened(address, len(data))
        try:
            place, done = FILE_HEADER, BATCH
            while done == BATCH:
                done = _dispatch(opened, BATCH, _NOTHING, None)
                if done >= 0:
                    place = _ftell(stream)
            if done >= 0:
                return place, ""
            while place + RECORD_HEADER <= len(data):
                (captured,) = self._captured.unpack_from(data, place)
                if captured > LONGEST_CAPTURE:
                    return place, _said(opened)
                if place + RECORD_HEADER + captured > len(data):
                    break
                place += RECORD_HEADER + captured
            return place, ""
        finally:
            _close(opened)


def _address(data: bytes) -> int:
    """Where these bytes are, as long as somebody holds them."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def _opened(address: int, length: int) -> tuple[int, int]:
    """A savefile in memory, and the stream that it is read from, which is closed with it."""
    stream: int | None = _fmemopen(address, length, b"rb")
    if stream is None:
        raise CaptureFailure(f"packets in memory cannot be read: {os.strerror(ctypes.get_errno())}")
    errbuf = ctypes.create_string_buffer(_ERRBUF_SIZE)
    opened: int | None = _open(stream, _NANOSECONDS, errbuf)
    if opened is None:
        _fclose(stream)
        raise StorageFailure(f"no savefile: {printable(errbuf.value.decode('utf-8', 'replace'))}")
    return opened, stream


def _said(opened: int) -> str:
    return printable((_geterr(opened) or b"").decode("utf-8", "replace"))
