"""Which packets are looked into: the filter that finds them, and where in such a packet the message is.

The filter is libpcap's to run, in C over all packets; what passes it is taken apart down to its message here, by hand,
so that ``rate`` can tell kinds apart before scapy is asked. Nothing here believes a length.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from agent.workers.index import numbers
from agent.workers.inventory.sighting import ARP, DHCP, DHCPV6, DNS, LLDP, MDNS, ND, TLS, address_text, mac_text

ETHERNET, RAW, COOKED, COOKED_V2 = 1, 101, 113, 276
"""LINKTYPE_ of pcap-linktype(7): ETHERNET, RAW, LINUX_SLL, LINUX_SLL2. Packets of others are not looked into."""

# In the IPv6 header: next header at 6, hop limit at 7; what follows it begins at 40. In a TCP header the upper half of
# octet 12 is its length in words. A record of TLS begins with its type (0x16, handshake), 3 for any version, and after
# five octets the type of the handshake (1, ClientHello): RFC 8446. The first bit of octet 2 of DNS marks an answer.
_IP = " or ".join(
    (
        "(udp and (port 67 or port 68 or port 546 or port 547 or port 5353))",
        "(udp src port 53 and (udp[10] & 0x80 != 0 or (ip6 and ip6[50] & 0x80 != 0)))",
        "(ip6[6] = 58 and ip6[7] = 255 and ip6[40] >= 133 and ip6[40] <= 136)",
        "(tcp[(tcp[12] & 0xf0) >> 2] = 0x16 and tcp[((tcp[12] & 0xf0) >> 2) + 1] = 3"
        " and tcp[((tcp[12] & 0xf0) >> 2) + 5] = 1)",
        "(ip6[6] = 6 and ip6[40 + ((ip6[52] & 0xf0) >> 2)] = 0x16 and ip6[41 + ((ip6[52] & 0xf0) >> 2)] = 3"
        " and ip6[45 + ((ip6[52] & 0xf0) >> 2)] = 1)",
    )
)
_LINK = f"arp or ether proto 0x88cc or {_IP}"

CONTROL_FILTER = f"({_LINK}) or (vlan and (({_LINK}) or (vlan and ({_LINK}))))"
"""In the language of pcap-filter(7), for Ethernet, with up to two VLAN tags: each ``vlan`` moves what follows on."""

FILTERS = {ETHERNET: CONTROL_FILTER, RAW: _IP, COOKED: f"arp or {_IP}", COOKED_V2: f"arp or {_IP}"}
"""By link type: where there are no tags, the word ``vlan`` is an error, and where there are no MACs nothing is ARP."""

_PLAIN = {numbers.ARP: ARP, numbers.LLDP: LLDP}
_MOST_TAGS = 2
_UDP_KINDS = {67: DHCP, 68: DHCP, 546: DHCPV6, 547: DHCPV6, 5353: MDNS}


class Frame(NamedTuple):
    """The message in a control packet, and who sent it to whom. What is not known is empty.

    ``kind`` is one of the sources in ``sighting``. ``target_mac`` and ``target`` are empty for groups. ``icmp`` is the
    type of ND. ``fragment``: the message goes on in another packet.
    """

    kind: str
    payload: bytes
    vlan: int = 0
    mac: str = ""
    target_mac: str = ""
    address: str = ""
    target: str = ""
    fragment: bool = False


def frame(link_type: int, data: bytes) -> Frame | None:
    """The message in a packet that passed the filter of its link type; ``None`` where there is none after all."""
    if link_type == ETHERNET and len(data) >= 14:
        place, vlan, ethertype = _untagged(data)
        ends = Frame("", b"", vlan, mac_text(data[6:12]), mac_text(data[:6]))
    elif link_type == COOKED and len(data) >= 16:  # LINKTYPE_LINUX_SLL: length of the address at 4, address, protocol
        place, ethertype = 16, _number(data, 14)
        ends = Frame("", b"", 0, mac_text(data[6:12]) if _number(data, 4) == 6 else "")
    elif link_type == COOKED_V2 and len(data) >= 20:  # LINKTYPE_LINUX_SLL2: protocol, …, length at 11, address
        place, ethertype = 20, _number(data, 0)
        ends = Frame("", b"", 0, mac_text(data[12:18]) if data[11] == 6 else "")
    elif link_type == RAW and data:
        place, ethertype, ends = 0, {4: numbers.IPV4, 6: numbers.IPV6}.get(data[0] >> 4, 0), Frame("", b"")
    else:
        return None
    body = data[place:]
    if ethertype in _PLAIN:
        return ends._replace(kind=_PLAIN[ethertype], payload=body)
    if ethertype == numbers.IPV4:
        return _ipv4(ends, body)
    return _ipv6(ends, body) if ethertype == numbers.IPV6 else None


def hasty_kind(link_type: int, data: bytes) -> str | None:
    """The kind of message in a packet of the sort that comes in floods, if it is one; ``None`` tells nothing.

    For whom a full look at each packet would take too long: ARP, and DNS and TLS over IPv4, without tags.
    """
    if link_type != ETHERNET:
        return None
    ethertype = data[12:14]
    if ethertype == b"\x08\x06":
        return ARP
    if ethertype != b"\x08\x00" or data[14:15] != b"\x45":
        return None
    protocol = data[23:24]
    if protocol == b"\x06":
        return TLS
    return DNS if protocol == b"\x11" and data[34:36] == b"\x00\x35" and data[36:38] > b"\x03\xff" else None


def _untagged(data: bytes) -> tuple[int, int, int]:
    """Where the network header of an Ethernet frame begins, its outermost VLAN, and what it is."""
    place, vlan = 14, 0
    for level in range(_MOST_TAGS):
        if _number(data, place - 2) not in numbers.TAGS:
            break
        if not level:
            vlan = _number(data, place) & 0xFFF
        place += 4
    return place, vlan, _number(data, place - 2)


def _ipv4(ends: Frame, data: bytes) -> Frame | None:
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    length, total, place = (data[0] & 15) * 4, _number(data, 2), _number(data, 6)
    if length < 20 or place & 0x1FFF:
        return None
    ends = ends._replace(
        address=address_text(data[12:16]), target=address_text(data[16:20]), fragment=bool(place & 0x2000)
    )
    # A total of 0 is a packet that the sender's network card was to divide (TSO).
    return _transport(ends, data[9], data[length : max(total, length) if total else None])


def _ipv6(ends: Frame, data: bytes) -> Frame | None:
    if len(data) < 40 or data[0] >> 4 != 6:
        return None
    ends = ends._replace(address=address_text(data[8:24]), target=address_text(data[24:40]))
    length = _number(data, 4)
    body = data[40 : 40 + length if length else None]
    if data[6] == socket.IPPROTO_ICMPV6:
        # RFC 4861: what has come through a router has a lower hop limit, and is to be ignored.
        valid = data[7] == 255 and len(body) >= 8 and 133 <= body[0] <= 136 and body[1] == 0
        return ends._replace(kind=ND, payload=body) if valid else None
    return _transport(ends, data[6], body)


def _transport(ends: Frame, protocol: int, data: bytes) -> Frame | None:
    if protocol == socket.IPPROTO_UDP and len(data) >= 8:
        source, destination = _number(data, 0), _number(data, 2)
        kind = _UDP_KINDS.get(destination) or _UDP_KINDS.get(source) or (DNS if source == 53 else None)
        length = _number(data, 4)
        return ends._replace(kind=kind, payload=data[8 : length if length > 8 else None]) if kind else None
    if protocol == socket.IPPROTO_TCP and len(data) >= 20:
        return ends._replace(kind=TLS, payload=data[(data[12] >> 4) * 4 :])
    return None


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 2])
