"""Packets that crashed a dissector, kept for whoever mends it: ``spool/NAME/INTERFACE/aside.pcap``.

An ordinary pcap file with nanoseconds, of ``MOST`` bytes at the most; what comes when it is full is only counted. It
lies beside the segments, whose link type it has, and is somebody else's to everybody who looks for segments.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from agent.errors import StorageFailure
from agent.linux.files import open_regular
from agent.workers.capture.savefile import FILE_HEADER, file_header, parse_header, whole_records

NAME = "aside.pcap"
MOST = 1 << 20

_RECORD = struct.Struct("<IIII")
_SNAPLEN = 262144


def keep(directory: Path, link_type: int, time: int, length: int, data: bytes) -> bool:
    """Add a packet to the file in this directory; returns whether there was room. Raises ``StorageFailure``.

    ``time`` is nanoseconds since the epoch, ``length`` that on the wire. A file of another link type, or one that is
    none, is begun anew; one that is cut off within a packet goes on after the last whole one.
    """
    path = directory / NAME
    seconds, fraction = divmod(time, 1_000_000_000)
    record = _RECORD.pack(seconds & 0xFFFFFFFF, fraction, len(data), max(length, len(data))) + data
    try:
        fd = open_regular(path, os.O_RDWR | os.O_CREAT, 0o640)
        with os.fdopen(fd, "r+b") as file:
            held = file.read(MOST + 1)
            header = file_header(link_type, _SNAPLEN, "<")
            form = parse_header(held)
            if form is None or held[:FILE_HEADER] != header:
                file.seek(0)
                file.truncate()
                file.write(header)
                end = FILE_HEADER
            else:
                end = FILE_HEADER + whole_records(held[FILE_HEADER:], form).length
            if end + len(record) > MOST:
                return False
            file.seek(end)
            file.truncate()
            file.write(record)
            return True
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be written: {error.strerror}") from error
