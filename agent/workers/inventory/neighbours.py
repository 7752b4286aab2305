"""What neighbours on a link say of themselves: ARP (RFC 826), ND (RFC 4861), LLDP (IEEE 802.1AB).

Only who speaks is believed about itself: that A asks for B does not show that there is a B.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.workers.inventory import layers
from agent.workers.inventory.control import Frame
from agent.workers.inventory.sighting import (
    ARP,
    CHASSIS,
    LLDP,
    MANAGEMENT,
    NAME,
    ND,
    PORT,
    ROLE,
    SEEN,
    SYSTEM,
    Sighting,
    address_text,
    mac_text,
    station,
    unicast,
    words,
)

_REQUEST, _REPLY = 1, 2
_USUAL = (1, 0x0800, 6, 4)
_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT, _NEIGHBOUR_ADVERTISEMENT = 133, 134, 136
_MOST_LAYERS = 128
"""TLVs or options of one message that are looked at."""


def arp(frame: Frame, time: int) -> Iterator[Sighting]:
    """The sender has the address it says it has. A probe (RFC 5227) has none yet: then it is only there."""
    message = layers.arp(frame.payload)
    # Ethernet and IPv4; else scapy's fields are of other lengths, and mean something else.
    if message.op not in (_REQUEST, _REPLY) or (message.hwtype, message.ptype, message.hwlen, message.plen) != _USUAL:
        return
    mac = station(message.hwsrc)
    if mac:
        yield Sighting(time, time, ARP, frame.vlan, mac, unicast(message.psrc))


def nd(frame: Frame, time: int) -> Iterator[Sighting]:
    """Whose address the sender's is, and in an advertisement the target; a router says that it is one."""
    kind = frame.payload[0]
    message = layers.solicitations[kind](frame.payload)
    link = message.getlayer(layers.target_link if kind == _NEIGHBOUR_ADVERTISEMENT else layers.source_link)
    # A solicitation without the option comes from who has no address yet, an advertisement in answer to one needs none.
    mac = (station(link.lladdr) if link is not None else "") or frame.mac
    address = unicast(message.tgt) if kind == _NEIGHBOUR_ADVERTISEMENT else frame.address
    if not mac and not address:
        return
    yield Sighting(time, time, ND, frame.vlan, mac, address)
    advertised = kind == _ROUTER_ADVERTISEMENT and message.routerlifetime > 0
    if advertised or (kind == _NEIGHBOUR_ADVERTISEMENT and message.R):
        yield Sighting(time, time, ND, frame.vlan, mac, address, ROLE, "router")


def lldp(frame: Frame, time: int) -> Iterator[Sighting]:
    """What a switch, an access point or a host says on a port of its own; the MAC is that of the port."""
    if not frame.mac:
        return
    told: list[tuple[str, str]] = [(SEEN, "")]
    part = layers.lldp_message(frame.payload).payload
    for _ in range(_MOST_LAYERS):
        told.extend(_told(part))
        part = part.payload
        if not part:
            break
    for fact, value in told:
        if value or fact == SEEN:
            yield Sighting(time, time, LLDP, frame.vlan, frame.mac, "", fact, value)


def _told(part: Any) -> Iterator[tuple[str, str]]:
    if isinstance(part, layers.lldp_chassis):
        yield CHASSIS, words(part.id)
    elif isinstance(part, layers.lldp_port):
        yield PORT, words(part.id)
    elif isinstance(part, layers.lldp_name):
        yield NAME, words(part.system_name)
    elif isinstance(part, layers.lldp_system):
        yield SYSTEM, words(part.description)
    elif isinstance(part, layers.lldp_management):
        yield MANAGEMENT, _management(part)
    elif isinstance(part, layers.lldp_capabilities):
        for bit, role in _CAPABILITIES.items():
            if getattr(part, bit):
                yield ROLE, role


_CAPABILITIES = {
    "mac_bridge_enabled": "bridge",
    "wlan_access_point_enabled": "access point",
    "router_enabled": "router",
    "telephone_enabled": "telephone",
    "docsis_cable_device_enabled": "cable device",
    "repeater_enabled": "repeater",
}
"""Of the names that scapy gives the bits, those that say what a thing is for."""


def _management(part: Any) -> str:
    octets, family = bytes(part.management_address), part.management_address_subtype
    if family in (1, 2):  # IANA's address family numbers: IPv4, IPv6; 6 is a MAC
        return address_text(octets)
    return mac_text(octets) if family == 6 else ""
