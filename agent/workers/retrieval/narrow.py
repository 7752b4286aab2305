"""Which flows of an index an expression may mean: decided for all rows at once, and none is left out that could be.

Every part of an expression is true, false or unknown of a row: two masks, ``may`` be true and ``must`` be true. What
is known is known as libpcap's filter would find it, so the rules here are those of gencode.c (libpcap 1.10), odd as
some are. What they do not cover is unknown, and then it is libpcap that looks at the packets themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from agent.workers.index import numbers
from agent.workers.index.model import ARP, EXTENDED, IPV4, IPV6, LATER_FRAGMENT, ODD, Flows
from agent.workers.index.numbers import ETHERNET, LINUX_SLL, LINUX_SLL2, RAW, RAW_OLD, TAGS
from agent.workers.retrieval import expression as ex
from agent.workers.retrieval.expression import Direction, Expression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

_CERTAIN = (ETHERNET, LINUX_SLL, LINUX_SLL2, RAW, *RAW_OLD)
"""Link types of which libpcap is known to find the network header where the index found it: pcap-linktype(7)."""

_LOWER = (1 << 64) - 1


class Truth(NamedTuple):
    """Per row, whether something may be true, and whether it is so for certain."""

    may: Mask
    must: Mask


def candidates(flows: Flows, link_type: int, wanted: Expression) -> Mask:
    """The rows that ``wanted`` may be true of, as a mask. ``link_type`` is that of the chunk."""
    return truth(flows, link_type, wanted).may


def truth(flows: Flows, link_type: int, wanted: Expression) -> Truth:
    """What is known of each row about ``wanted``: what ``must`` be true is so of every packet of the row."""
    if link_type & 0xFFFF not in _CERTAIN:
        every = np.ones(len(flows), np.bool_)
        return Truth(every, every if isinstance(wanted, ex.Everything) else ~every)
    return _Judge(flows).judge(wanted)


class _Judge:
    """Judges the rows of one table. What several parts of an expression look at is found once."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows
        self._odd: Mask = (flows.quirks & ODD) != 0
        self._extended: Mask = (flows.quirks & EXTENDED) != 0

    def judge(self, wanted: Expression) -> Truth:
        """What is known about an expression."""
        match wanted:
            case ex.And(left, right):
                one, other = self.judge(left), self.judge(right)
                return Truth(one.may & other.may, one.must & other.must)
            case ex.Or(left, right):
                one, other = self.judge(left), self.judge(right)
                return Truth(one.may | other.may, one.must | other.must)
            case ex.Not(part):
                one = self.judge(part)
                return Truth(~one.must, ~one.may)
            case ex.Everything():
                every = np.ones(len(self._flows), np.bool_)
                return Truth(every, every)
            case ex.Unknown():
                return self._unknown()
            case ex.Vlan():
                return self._vlan(wanted)
            case ex.Ethertype(number, depth):
                return self._found(self._flows.ethertype == number, depth, outer_unknown=number in TAGS)
            case ex.Protocol():
                return self._protocol(wanted)
            case ex.Address():
                return self._address(wanted)
            case ex.Ports():
                return self._ports(wanted)

    def _unknown(self) -> Truth:
        every = np.ones(len(self._flows), np.bool_)
        return Truth(every, ~every)

    def _found(
        self, true: Mask, depth: int, unknown: Mask | None = None, *, outer_unknown: bool = False, certain: bool = True
    ) -> Truth:
        """``true`` of the rows that have ``depth`` tags, and for certain where nothing stands against that.

        Who has fewer tags is looked at in the wrong place. Who has more has a tag where the type of a packet is looked
        for, and so is none of those that are; ``outer_unknown``: unless it is looked for that very type.
        """
        tags = self._flows.tags
        here = true & (tags == depth)
        doubtful = self._odd | (tags < depth)
        if unknown is not None:
            doubtful = doubtful | (unknown & (tags == depth))
        if outer_unknown:
            doubtful = doubtful | (tags > depth)
        return Truth(here | doubtful, here & ~doubtful if certain else np.zeros(len(here), np.bool_))

    def _vlan(self, wanted: ex.Vlan) -> Truth:
        flows, depth = self._flows, wanted.depth
        tagged = flows.tags > depth
        doubtful = self._odd | (flows.tags < depth)
        if wanted.number is not None:
            if depth > 1:
                doubtful = doubtful | tagged
            else:
                tagged = tagged & ((flows.inner_vlan if depth else flows.vlan) == wanted.number & 0xFFF)
        return Truth(tagged | doubtful, tagged & ~doubtful)

    def _protocol(self, wanted: ex.Protocol) -> Truth:
        family = self._flows.family
        named = np.zeros(len(family), np.bool_)
        if 4 in wanted.versions:
            named |= family == IPV4
        if 6 in wanted.versions:
            named |= family == IPV6
        # libpcap looks behind no extension header but one of a fragment; the index says what is behind all of them.
        return self._found(
            named & (self._flows.protocol == wanted.number), wanted.depth, named & (family == IPV6) & self._extended
        )

    def _address(self, wanted: ex.Address) -> Truth:
        flows = self._flows
        tall = numbers.IPV6 in wanted.ethertypes
        families = {numbers.IPV4: IPV4, numbers.ARP: ARP, numbers.RARP: ARP, numbers.IPV6: IPV6}
        asked = np.zeros(len(flows), np.bool_)
        for ethertype in wanted.ethertypes:
            asked |= (flows.family == families[ethertype]) & (flows.ethertype == ethertype)
        alike = self._alike(wanted.value, wanted.mask, tall=tall)
        found = _either(alike[flows.source], alike[flows.destination], wanted.direction)
        return self._found(asked & found, wanted.depth)

    def _alike(self, value: int, mask: int, *, tall: bool) -> Mask:
        """Which addresses of the table are ``value`` as far as ``mask`` goes."""
        addresses = self._flows.addresses
        alike: Mask = (addresses[:, 1] & np.uint64(mask & _LOWER)) == np.uint64(value & _LOWER)
        if tall:
            alike &= (addresses[:, 0] & np.uint64(mask >> 64)) == np.uint64(value >> 64)
        return alike

    def _ports(self, wanted: ex.Ports) -> Truth:
        flows = self._flows
        asked = np.zeros(len(flows), np.bool_)
        for protocol in wanted.protocols:
            asked |= flows.protocol == protocol
        ip = (flows.family == IPV4) | (flows.family == IPV6)
        asked &= ip & ((flows.quirks & LATER_FRAGMENT) == 0)
        source, destination = (_within(ports, wanted) for ports in (flows.source_port, flows.destination_port))
        found = _either(source, destination, wanted.direction)
        return self._found(asked & found, wanted.depth, ip & self._extended, certain=wanted.certain)


def _within(ports: NDArray[Any], wanted: ex.Ports) -> Mask:
    found: Mask = (ports >= wanted.low) & (ports <= wanted.high)
    return found


def _either(source: Mask, destination: Mask, direction: Direction) -> Mask:
    match direction:
        case Direction.SOURCE:
            return source
        case Direction.DESTINATION:
            return destination
        case Direction.BOTH:
            return source & destination
        case Direction.EITHER:
            return source | destination
