"""What a capture cannot do without: the bounds that its declaration is checked by, and its worker once more. Pure.

They follow from libpcap and from how segments are written, and stand here so that ``agentctl validate`` accepts no
capture whose worker would refuse to start.
"""

from __future__ import annotations

import re

RING = (512 * 1024, 1024**3)
"""Bytes of kernel memory for the ring of one interface. libpcap makes it of blocks of 256 KiB, and needs two."""

MOST_INTERFACES = 64
"""So many are captured by one service, however many its patterns match."""

MOST_PROCESSES = 64
"""So many share the packets of one service's interfaces."""

LONGEST_FILTER = 4096
"""Characters: libpcap's optimizer takes a second for a filter of that many, and minutes for one ten times as long."""

_ENDLESS = re.compile(r"(?<![\w.\\])protochain(?![\w.])", re.ASCII)

ENDLESS = (
    "protochain follows the headers of a packet in a loop, in which a made-up packet keeps libpcap for ever; "
    "write ip6 proto or ip proto"
)
"""What to say of a filter that is ``endless``."""

LARGEST_SNAPLEN = 262_144
"""Bytes of one packet: ``MAXIMUM_SNAPLEN`` in libpcap's pcap-int.h."""

RECORD_HEADER = 16
"""Bytes before each packet in a pcap file (pcap-savefile(5))."""

LARGEST_FRAME = 65536 + 64
"""The largest frame an interface shows: 64 KiB on loopback and of segments merged by the driver, and its link header.

(Linux can be told to merge more, by ``ip link set gro_max_size``; that is off unless asked for.)
"""


def endless(filter: str) -> bool:
    """Whether libpcap may not come to an end with this filter on some packet.

    ``protochain`` alone makes it jump back in its program (gen_protochain in gencode.c). The kernel refuses such a
    program, and libpcap then runs it itself.
    """
    return _ENDLESS.search(filter) is not None


def is_interface_pattern(text: str) -> bool:
    """Whether it stands for whatever interfaces match it, or are to be left out, and not for the one of this name."""
    return text.startswith("!") or any(character in "*?[" for character in text)


def record_limit(snaplen: int) -> int:
    """The most bytes one packet takes in a segment."""
    return RECORD_HEADER + min(snaplen, LARGEST_FRAME)


def least_budget(record: int, interfaces: int) -> int:
    """The smallest budget that works: each open segment may then hold a few packets, of ``record`` bytes at most."""
    return 2 * interfaces * 4 * record
