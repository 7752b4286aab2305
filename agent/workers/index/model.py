"""What an index says, as arrays.

A **chunk** tells about the bytes ``begin..end`` of one segment. Its rows are flows in one direction: what has the same
addresses, ports, protocol, VLANs and kind. All columns of a chunk are numpy arrays of one length, but for those whose
docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    U1 = NDArray[np.uint8]
    U2 = NDArray[np.uint16]
    U4 = NDArray[np.uint32]
    U8 = NDArray[np.uint64]

# ``Flows.family``
OTHER, ARP, IPV4, IPV6 = 0, 2, 4, 6

# ``Flows.quirks``, bits
ODD = 1
"""Not decoded as far as its headers go: cut short, damaged, or of a kind or link type that is not known here."""
LATER_FRAGMENT = 2
"""A fragment that is not the first: there are no ports in it."""
FRAGMENTED = 4
"""A fragment, the first or a later one."""
EXTENDED = 8
"""Between the IPv6 header and the transport header there are extension headers."""
ENCAPSULATED = 16
"""The link header is followed by something else than VLAN tags before the network header: MPLS, PPPoE, LLC and SNAP."""

# ``Flows.tcp_flags``, beyond the nine bits of RFC 9293 and RFC 3540
SYN_ACK = 0x8000
"""There was a packet with both SYN and ACK: the sender offers a service."""


@dataclass(frozen=True, slots=True)
class Flows:
    """The table of flows.

    ``addresses``: the distinct addresses, ascending, shape (n, 2): the upper and the lower 64 bits as integers; an IPv4
    address is its 32 bits in the lower. ``source`` and ``destination`` are rows of it (for ARP the protocol addresses,
    for ``OTHER`` both are 0, which then stands for an address of zeros).
    ``family``: ``OTHER``, ``ARP``, ``IPV4`` or ``IPV6``. ``ethertype``: what follows the link header and its tags.
    ``protocol``: that of IP, behind extension headers; for ARP the operation.
    ``source_port``, ``destination_port``: of TCP, UDP, SCTP, DCCP and UDP-Lite; for ICMP and ICMPv6 the type and the
    code; else 0.
    ``tags``: how many VLAN tags there are; ``vlan``, ``inner_vlan``: VLAN identifiers of the outermost and the next.
    ``quirks``: see above. ``tcp_flags``: of all packets, or-ed.
    ``first``, ``last``: nanoseconds since the epoch. ``packets``, ``octets``: how many, and their length on the wire.
    """

    addresses: U8
    source: U4
    destination: U4
    source_port: U2
    destination_port: U2
    ethertype: U2
    vlan: U2
    inner_vlan: U2
    tcp_flags: U2
    family: U1
    protocol: U1
    tags: U1
    quirks: U1
    first: U8
    last: U8
    packets: U4
    octets: U8

    def __len__(self) -> int:
        return len(self.family)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where the packets of ``begin..end`` are, by flow.

    ``link_type`` is that of the file (pcap-linktype(7)). ``offsets`` are where the records of packets begin, counted
    from ``begin``: first those of the first flow in ascending order, then those of the second; how many each has is
    ``flows.packets``.
    ``marks``, ``mark_first``, ``mark_last``: every so many packets one mark: at what offset (from ``begin``) a stretch
    of packets starts, and the least and greatest timestamp in it; the next mark, or ``end``, ends it.
    ``first``, ``last``: nanoseconds since the epoch; both 0 when there is no packet. ``packets``, ``octets``: how many,
    and their length on the wire. ``cut``: how many were cut by the snaplen.
    """

    begin: int
    end: int
    link_type: int
    first: int
    last: int
    packets: int
    octets: int
    cut: int
    flows: Flows
    offsets: U4
    marks: U4
    mark_first: U8
    mark_last: U8

    def offsets_of(self, rows: NDArray[Any]) -> U4:
        """Offsets of the packets of these flows, ascending. ``rows`` is a mask or an array of row numbers."""
        return np.sort(self.offsets[stretches(self.flows.packets, rows)])


def stretches(lengths: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.int64]:
    """Of stretches that lie one after the other, each so long, the positions of those in ``rows``, in that order."""
    begins = np.cumsum(lengths, dtype=np.int64) - lengths
    wanted = lengths[rows].astype(np.int64)
    # 0, 1, 2 … within each stretch, from its begin: one long range, stepped back at each new one.
    within = np.arange(int(wanted.sum())) - np.repeat(np.cumsum(wanted) - wanted, wanted)
    positions: NDArray[np.int64] = np.repeat(begins[rows], wanted) + within
    return positions
