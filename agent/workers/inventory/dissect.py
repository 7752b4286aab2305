"""From the bytes of one control packet to what is told in it. Pure; and hostile bytes raise ``Crashed``, nothing else.

Scapy is loaded with the first packet that needs it: a capture on which nothing of the kind is seen never pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.workers.inventory.control import Frame, frame
from agent.workers.inventory.sighting import ARP, DHCP, DHCPV6, DNS, LLDP, MDNS, ND, TLS, Sighting

LONGEST = 2048
"""Octets of a message, at most: dissectors take time for each, some for each of each. More fits no link of 1500."""

MOST = 256
"""Sightings of one packet, at most."""


class Crashed(Exception):
    """A dissector could not make sense of a message; the message says which, and how it ended."""


class TooLong(Exception):
    """A message longer than ``LONGEST``."""


def sightings(link_type: int, data: bytes, time: int) -> list[Sighting]:
    """What a control packet tells. ``time`` is when it was captured, nanoseconds since the epoch.

    A packet of another kind or link type tells nothing. Raises ``Crashed`` and ``TooLong``.
    """
    found = frame(link_type, data)
    return tell(found, time) if found is not None else []


def tell(found: Frame, time: int) -> list[Sighting]:
    """As ``sightings``, of a message that was found in its packet already."""
    if len(found.payload) > LONGEST:
        if found.kind != TLS:  # what its sender cut into segments we look at the first of
            raise TooLong
        found = found._replace(payload=found.payload[:LONGEST])
    told = []
    try:
        for sighting in _dissectors()[found.kind](found, time):
            told.append(sighting)
            if len(told) == MOST:
                break
    except Exception as error:  # whatever a hostile message makes of scapy
        raise Crashed(f"{found.kind}: {type(error).__name__}") from error
    return told


Dissector = Callable[[Frame, int], Iterator[Sighting]]
_known: dict[str, Dissector] = {}


def _dissectors() -> dict[str, Dissector]:
    if not _known:
        from agent.workers.inventory import dhcp, names, neighbours

        _known.update({ARP: neighbours.arp, ND: neighbours.nd, LLDP: neighbours.lldp})
        _known.update({DHCP: dhcp.dhcp, DHCPV6: dhcp.dhcp6})
        _known.update({DNS: names.dns, MDNS: names.mdns, TLS: names.tls})
    return _known
