"""From the begin of a frame to its network header, for each link type that is known: pcap-linktype(7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from agent.workers.index.model import ENCAPSULATED, ODD
from agent.workers.index.numbers import (
    AF_INET,
    AF_INET6,
    ETHERNET,
    IPV4,
    IPV4_ONLY,
    IPV6,
    IPV6_ONLY,
    LINUX_SLL,
    LINUX_SLL2,
    LOOP,
    MOST_TAGS,
    NULL,
    RAW,
    RAW_OLD,
    SHORTEST_ETHERTYPE,
    TAGS,
    WRAPPED,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Taker(Protocol):
    """Gathers numbers by where they begin."""

    def take(self, kind: str, places: NDArray[np.int64]) -> NDArray[Any]:
        """The numbers of this numpy type at these places."""


@dataclass(frozen=True, slots=True)
class Link:
    """One row a packet: where its network header begins, what it is, and its tags. See ``Flows`` for the columns."""

    start: NDArray[np.int64]
    ethertype: NDArray[np.uint16]
    tags: NDArray[np.uint8]
    vlan: NDArray[np.uint16]
    inner_vlan: NDArray[np.uint16]
    quirks: NDArray[np.uint8]


def network_layer(taken: Taker, frame: NDArray[np.int64], end: NDArray[np.int64], link_type: int) -> Link:
    """Find the network headers of frames that begin at ``frame`` and were captured up to ``end``."""
    link_type &= 0xFFFF  # above it, the length of the frame check sequence: pcap-savefile(5)
    if link_type == ETHERNET:
        return _behind_tags(taken, frame + 14, end, taken.take(">u2", frame + 12).astype(np.uint16))
    if link_type == LINUX_SLL:
        return _behind_tags(taken, frame + 16, end, taken.take(">u2", frame + 14).astype(np.uint16))
    if link_type == LINUX_SLL2:
        return _behind_tags(taken, frame + 20, end, taken.take(">u2", frame).astype(np.uint16))
    if link_type in (RAW, IPV4_ONLY, IPV6_ONLY, *RAW_OLD):
        version = taken.take("u1", frame) >> 4
        return _untagged(frame, end, _by(version == 4, version == 6))
    if link_type in (NULL, LOOP):
        family = taken.take(">u4" if link_type == LOOP else "=u4", frame)
        if link_type == NULL:  # in the byte order of the host that captured, whatever the file's
            family = np.where(family > 0xFFFF, family.byteswap(), family)
        return _untagged(frame + 4, end, _by(family == AF_INET, np.isin(family, AF_INET6)))
    nothing = np.zeros(len(frame), np.uint16)
    odd = np.full(len(frame), ODD, np.uint8)
    return Link(frame, nothing, nothing.astype(np.uint8), nothing, nothing.copy(), odd)


def _by(is_ipv4: NDArray[np.bool_], is_ipv6: NDArray[np.bool_]) -> NDArray[np.uint16]:
    return np.where(is_ipv4, np.uint16(IPV4), np.where(is_ipv6, np.uint16(IPV6), np.uint16(0)))


def _untagged(start: NDArray[np.int64], end: NDArray[np.int64], ethertype: NDArray[np.uint16]) -> Link:
    count = len(start)
    quirks = np.where((start >= end) | (ethertype == 0), np.uint8(ODD), np.uint8(0))
    zeros = np.zeros(count, np.uint16)
    return Link(start, ethertype, np.zeros(count, np.uint8), zeros, zeros.copy(), quirks)


def _behind_tags(taken: Taker, start: NDArray[np.int64], end: NDArray[np.int64], ethertype: NDArray[np.uint16]) -> Link:
    count = len(start)
    quirks = np.where(start > end, np.uint8(ODD), np.uint8(0))
    ethertype[quirks != 0] = 0
    tags = np.zeros(count, np.uint8)
    vlan, inner = np.zeros(count, np.uint16), np.zeros(count, np.uint16)
    rows = np.flatnonzero(_is_tag(ethertype))
    for depth in range(MOST_TAGS):
        if not len(rows):
            break
        cut = start[rows] + 4 > end[rows]
        quirks[rows[cut]] |= ODD
        rows = rows[~cut]
        words = taken.take("V4", start[rows]).view(">u2").reshape(-1, 2)
        if depth == 0:
            vlan[rows] = words[:, 0] & 0xFFF
        elif depth == 1:
            inner[rows] = words[:, 0] & 0xFFF
        tags[rows] += 1
        ethertype[rows] = words[:, 1]
        start[rows] += 4
        rows = rows[_is_tag(ethertype[rows])]
    else:
        quirks[rows] |= ODD
    quirks[(ethertype < SHORTEST_ETHERTYPE) | np.isin(ethertype, WRAPPED)] |= ENCAPSULATED
    return Link(start, ethertype, tags, vlan, inner, quirks)


def _is_tag(ethertype: NDArray[np.uint16]) -> NDArray[np.bool_]:
    first, second, third = TAGS
    found: NDArray[np.bool_] = (ethertype == first) | (ethertype == second) | (ethertype == third)
    return found
