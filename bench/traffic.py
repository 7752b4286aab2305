"""Traffic that is made up, the same each time: flows of TCP and UDP over IPv4 and IPv6, some of them in a VLAN.

Arrays all the way: 10 GB take half a minute. Nothing in there is anybody's packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = 64
"""Bytes of each frame where all are small: the least that Ethernet carries, with what its check takes."""
MIXED = (64, 64, 128, 576, 1400)
"""Bytes of a frame where they differ, each as likely as the others."""

SERVICES = (80, 443, 123, 22, 5432)
DATAGRAMS = 123
"""Ports at the second address of a flow. This one is UDP, as are small frames of IPv6: they have no room for TCP."""
EPHEMERAL = (32_768, 61_000)
"""Ports at the first one: what Linux takes, ip_local_port_range in ip(7). No protocol is known by any of these."""
IPV6_SHARE, VLAN_SHARE = 0.15, 0.1
"""Of all flows."""
VLAN = 42

HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)
"""Of a savefile of Ethernet frames with nanoseconds, pcap-savefile(5)."""
RECORD = 16
"""Bytes of a record before its frame."""
NUMBERED = 0x88B5
"""IEEE 802 local experimental ethertype: of frames that are told apart by the number that follows it."""
NUMBER_AT = 14
STATIONS = bytes.fromhex("020000000001020000000002")
_MOST_HEADERS = 14 + 4 + 40 + 20

# Columns of ``Flows.table``
SOURCE, DESTINATION, PORT, SERVICE, IPV6, UDP, TAGGED = range(7)


@dataclass(frozen=True)
class Packets:
    """Records of a savefile, one after the other. ``starts`` and ``lengths`` are those of the frames, in bytes."""

    records: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


class Flows:
    """``count`` flows; each packet belongs to any of them, and goes in either direction."""

    def __init__(self, count: int, *, mixed: bool, seed: int = 1) -> None:
        self.mixed = mixed
        self._random = np.random.default_rng(seed)
        table = np.empty((count, 7), np.uint32)
        table[:, SOURCE] = self._random.integers(0x0A000000, 0x0A00FFFF, count)
        table[:, DESTINATION] = self._random.integers(0xC0A80000, 0xC0A8FFFF, count)
        table[:, PORT] = self._random.integers(*EPHEMERAL, count)
        table[:, SERVICE] = self._random.choice(SERVICES, count)
        table[:, IPV6] = self._random.random(count) < IPV6_SHARE
        table[:, UDP] = (table[:, SERVICE] == DATAGRAMS) | ((not mixed) & (table[:, IPV6] == 1))
        table[:, TAGGED] = (self._random.random(count) < VLAN_SHARE) & (mixed | (table[:, IPV6] == 0))
        self.table = table
        both = np.concatenate([table, table[:, [DESTINATION, SOURCE, SERVICE, PORT, IPV6, UDP, TAGGED]]])
        self._headers, self._used = _headers(both)
        self._link = np.where(both[:, TAGGED] == 1, 18, 14)
        self._six, self._udp = both[:, IPV6] == 1, both[:, UDP] == 1

    def packets(self, count: int, begin: int, every: float) -> Packets:
        """The next ``count`` packets, ``every`` nanoseconds from ``begin`` on, nanoseconds since the epoch."""
        flow = self._random.integers(0, len(self._headers), count)
        sizes = self._random.choice(MIXED, count) if self.mixed else np.full(count, SMALL)
        lengths = np.maximum(sizes, self._used[flow])
        rows = self._headers[flow]
        self._measure(rows, flow, lengths)
        instants = begin + (np.arange(count) * every).astype(np.int64)
        head = np.empty((count, 4), np.uint32)
        head[:, 0], head[:, 1] = np.divmod(instants, 10**9)
        head[:, 2] = head[:, 3] = lengths
        rows[:, :RECORD] = head.view(np.uint8)
        starts = np.cumsum(lengths + RECORD) - lengths
        records = np.full(int(starts[-1] + lengths[-1]), ord("x"), np.uint8)
        _scatter(records, starts - RECORD, rows[:, : RECORD + SMALL])
        for length in np.unique(np.minimum(lengths, _MOST_HEADERS)):  # what the headers of a small frame leave out
            longer = np.minimum(lengths, _MOST_HEADERS) == length
            _scatter(records, starts[longer] + SMALL, rows[longer, RECORD + SMALL : RECORD + length])
        return Packets(records, starts, lengths)

    def _measure(self, rows: NDArray[np.uint8], flow: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Write into headers how long what follows them is."""
        six, udp = self._six[flow], self._udp[flow]
        at = RECORD + self._link[flow]
        datagram = lengths + RECORD - at
        _put(rows, ~six, at + 2, datagram, 2)
        _put(rows, six, at + 4, datagram - 40, 2)
        network = np.where(six, 40, 20)
        _put(rows, udp, at + network + 4, datagram - network, 2)


def _headers(flow: NDArray[np.uint32]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A row for each of these flows: room for the head of a record, and the headers of its packets, with no lengths.

    Also how long these are. Checksums are 0, as where the network card makes them.
    """
    count = len(flow)
    rows = np.full((count, RECORD + _MOST_HEADERS), ord("x"), np.uint8)
    tagged, six, udp = (flow[:, column] == 1 for column in (TAGGED, IPV6, UDP))
    rows[:, RECORD : RECORD + 12] = np.frombuffer(STATIONS, np.uint8)
    everyone = np.ones(count, bool)
    at = np.full(count, RECORD + 12)
    _put(rows, tagged, at, 0x8100_0000 + VLAN, 4)
    at[tagged] += 4
    _put(rows, everyone, at, np.where(six, 0x86DD, 0x0800), 2)
    at += 2
    protocol = np.where(udp, 17, 6)
    _put(rows, ~six, at, 0x4500_0000_0000_4000, 8)  # no options, not to be fragmented
    _put(rows, ~six, at + 8, (64 << 24) + (protocol << 16), 4)
    _put(rows, six, at, 0x6000_0000, 4)
    _put(rows, six, at + 6, (protocol << 8) + 64, 2)
    for position, column in enumerate((SOURCE, DESTINATION)):
        _put(rows, ~six, at + 12 + 4 * position, flow[:, column], 4)
        _put(rows, six, at + 8 + 16 * position, 0xFD << 56, 8)  # fd00::10.0.0.1
        _put(rows, six, at + 16 + 16 * position, flow[:, column], 8)
    at += np.where(six, 40, 20)
    _put(rows, everyone, at, flow[:, PORT], 2)
    _put(rows, everyone, at + 2, flow[:, SERVICE], 2)
    _put(rows, udp, at + 6, 0, 2)
    _put(rows, ~udp, at + 4, 0, 8)
    _put(rows, ~udp, at + 12, 0x5010_03E8_0000_0000, 8)  # ACK, a window of 1000
    return rows, at + np.where(udp, 8, 20) - RECORD


def _put(
    rows: NDArray[np.uint8], which: NDArray[np.bool_], at: NDArray[np.int64], values: NDArray[Any] | int, length: int
) -> None:
    """``values`` into the chosen rows, big-endian and so many bytes long, each at its own place."""
    chosen = np.flatnonzero(which)
    wanted = np.broadcast_to(np.asarray(values, np.uint64), len(rows))[chosen]
    for number in range(length):
        rows[chosen, at[chosen] + number] = wanted >> np.uint64(8 * (length - 1 - number)) & np.uint64(255)


def _scatter(into: NDArray[np.uint8], at: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
    """Each row to its place, all at once."""
    if rows.size:
        kind = np.dtype((np.void, rows.shape[1]))
        places = np.ndarray((len(into) - rows.shape[1] + 1,), kind, into.data, strides=(1,))
        places[at] = np.ascontiguousarray(rows).view(kind)[:, 0]


def host(number: int) -> str:
    """The IPv4 address with this value."""
    return ".".join(str(part) for part in number.to_bytes(4, "big"))


def write(path: Path, packets: Packets) -> int:
    """A savefile of these; returns its length in bytes."""
    with path.open("wb") as file:
        file.write(HEADER)
        file.write(packets.records.data)
        return file.tell()


def datagram(port: int) -> Packets:
    """One small UDP packet to this port."""
    udp = struct.pack(">4H", port, port, SMALL - 34, 0).ljust(SMALL - 34, b"\0")
    ip = struct.pack(">2B3H2BH", 0x45, 0, SMALL - 14, 0, 0x4000, 64, 17, 0) + bytes((10, 0, 0, 1, 10, 0, 0, 2))
    return _alike(STATIONS + b"\x08\0" + ip + udp, 1)


def numbered(count: int, size: int = SMALL) -> Packets:
    """Frames that are to be numbered."""
    frame = (STATIONS + NUMBERED.to_bytes(2, "big")).ljust(size, b"\0")
    return _alike(frame, count)


def _alike(frame: bytes, count: int) -> Packets:
    record = struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame
    records = np.frombuffer(record * count, np.uint8)
    lengths = np.full(count, len(frame))
    return Packets(records, np.arange(count) * len(record) + RECORD, lengths)


def numbers(path: Path, size: int = SMALL) -> NDArray[np.uint32]:
    """The numbers of the frames in a savefile that has nothing but frames of that size, each whole.

    What comes after the last whole record is left out. Raises ``ValueError`` when there is anything else in it.
    """
    data = path.read_bytes()[len(HEADER) :]
    length = RECORD + size
    records = np.frombuffer(data[: len(data) // length * length], np.uint8).reshape(-1, length)
    if (records[:, 8:12].copy().view(np.uint32) != size).any():
        raise ValueError(f"{path}: not only frames of {size} bytes")
    begin = RECORD + NUMBER_AT
    return records[:, begin : begin + 4].copy().view(">u4")[:, 0].astype(np.uint32)


def read(path: Path) -> Packets:
    """What is in a savefile of ours, with nothing between its records."""
    data = np.fromfile(path, np.uint8)[len(HEADER) :]
    starts = np.fromiter(_starts(data.tobytes()), np.int64)
    ends = np.append(starts[1:] - RECORD, len(data))
    return Packets(data, starts, ends - starts)


def _starts(data: bytes) -> Iterator[int]:
    at = RECORD
    captured = struct.Struct("=I")
    while at <= len(data):
        yield at
        at += captured.unpack_from(data, at - 8)[0] + RECORD
