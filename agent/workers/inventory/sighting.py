"""A sighting: at some time, somebody on some VLAN was seen to have an address, or was told to have something else.

What is taken out of packets is put in order here: addresses and MACs in one spelling, names as text of bounded length.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import NamedTuple

# ``Sighting.source``: what tells.
ARP, ND, DHCP, DHCPV6, MDNS, LLDP, DNS, TLS, FLOW = (
    *("arp", "nd", "dhcp", "dhcpv6", "mdns", "lldp", "dns", "tls", "flow"),
)
SOURCES = (ARP, ND, DHCP, DHCPV6, MDNS, LLDP, DNS, TLS, FLOW)

# ``Sighting.fact``: what is told.
SEEN = ""
"""That it is there, and if both are given that the MAC has the address."""
NAME = "name"
SERVICE = "service"
"""A port at which it answers, or says that it would: ``tcp/22``."""
INSTANCE = "instance"
"""A service by its name in DNS-SD (RFC 6763): ``Printer in the hall._ipp._tcp``."""
ROLE = "role"
"""``router``, ``dhcp server``, ``dhcpv6 server``, or a capability of LLDP: ``bridge`` …"""
CLIENT = "client"
"""By what it is known to a DHCP server: client identifier or DUID, in hexadecimal."""
CHASSIS, PORT, SYSTEM, MANAGEMENT = "chassis", "port", "system", "management"
"""Of LLDP: chassis identifier, port identifier, description of the system, management address."""
FACTS = (NAME, SERVICE, INSTANCE, ROLE, CLIENT, CHASSIS, PORT, SYSTEM, MANAGEMENT)

LONGEST = 255
"""Characters of a fact, at most: as long as a name in DNS can be."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_GROUP = 1  # IEEE 802: the bit of the first octet that marks a group of stations
_LOCAL = 2  # and the one that marks an address that no manufacturer gave


class Sighting(NamedTuple):
    """One statement. ``first`` and ``last`` are nanoseconds since the epoch, the same for a single packet.

    ``vlan`` is the outermost VLAN, 0 for none. ``mac`` is as in ``aa:bb:cc:dd:ee:ff``, ``address`` as ``ipaddress``
    writes it; either may be empty, not both. A ``fact`` with its ``value`` is about the MAC where there is one, else
    about the address. ``asker`` is not empty when this is hearsay: somebody else was told so, at that address, and that
    alone does not mean that there is such a host.
    """

    first: int
    last: int
    source: str
    vlan: int
    mac: str = ""
    address: str = ""
    fact: str = SEEN
    value: str = ""
    asker: str = ""


def mac_text(octets: bytes) -> str:
    """Six octets as text; empty for what cannot be one station: a group, all zeros, another length."""
    if len(octets) != 6 or octets[0] & _GROUP or octets == bytes(6):
        return ""
    return octets.hex(":")


def station(text: str) -> str:
    """A MAC written as text in its one spelling; empty for what cannot be one station."""
    try:
        return mac_text(bytes.fromhex(text.replace(":", "")))
    except ValueError:
        return ""


def locally_administered(mac: str) -> bool:
    """Whether nobody's factory gave it: made up by a container, a virtual machine, or a phone that hides."""
    return _MAC.fullmatch(mac) is not None and bool(int(mac[:2], 16) & _LOCAL)


def address_text(octets: bytes) -> str:
    """4 or 16 octets as text; empty for what cannot be one host: unspecified, multicast, broadcast, another length."""
    if len(octets) == 4:
        if octets[0] == 0 or octets[0] >= 224:
            return ""
        return socket.inet_ntop(socket.AF_INET, octets)
    if len(octets) != 16 or octets[0] == 0xFF or octets == bytes(16):
        return ""
    return str(ipaddress.IPv6Address(octets))


def unicast(text: object) -> str:
    """An address written as text in its one spelling; empty for what is none, or cannot be one host."""
    try:
        return address_text(ipaddress.ip_address(str(text)).packed)
    except ValueError:
        return ""


def words(raw: object) -> str:
    """Text of bytes or text that somebody sent, without NULs and blanks at its ends, cut to ``LONGEST``."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    text = text[: 4 * LONGEST].encode("utf-8", "replace").decode().strip("\0 \t\r\n")
    return text[:LONGEST]


def domain_name(raw: object) -> str:
    """A name in DNS: in lower case, without the root's dot."""
    return words(raw).lower().rstrip(".")[:LONGEST]
