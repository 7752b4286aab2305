"""What the numbers in a flow are called, for people and for JSON."""

from __future__ import annotations

import functools
import socket

import numpy as np

from agent.workers.index.model import ARP, IPV4, IPV6, OTHER

FAMILIES = {OTHER: "other", ARP: "arp", IPV4: "ipv4", IPV6: "ipv6"}

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58

# IANA, Assigned Internet Protocol Numbers
_PROTOCOLS = {
    0: "hopopt", ICMP: "icmp", 2: "igmp", 4: "ipip", TCP: "tcp", UDP: "udp", 33: "dccp", 41: "ipv6", 46: "rsvp",
    47: "gre", 50: "esp", 51: "ah", ICMPV6: "icmp6", 59: "none", 88: "eigrp", 89: "ospf", 103: "pim", 108: "ipcomp",
    112: "vrrp", 115: "l2tp", 132: "sctp", 136: "udplite", 137: "mpls",
}  # fmt: skip

# IANA, IEEE 802 Numbers
_ETHERTYPES = {
    0x0800: "ipv4", 0x0806: "arp", 0x8035: "rarp", 0x86DD: "ipv6", 0x8808: "pause", 0x8809: "slow", 0x8847: "mpls",
    0x8848: "mpls", 0x8863: "pppoed", 0x8864: "pppoes", 0x888E: "eapol", 0x88CC: "lldp", 0x88E5: "macsec",
    0x88F7: "ptp", 0x8902: "cfm", 0x9000: "loop",
}  # fmt: skip

PORTED = np.zeros(256, bool)
"""Protocols whose first four bytes are two ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""
PORTED[[TCP, UDP, 33, 132, 136]] = True

_FLAGS = "FSRPAUECN"  # from the lowest bit on: RFC 9293, the last of RFC 3540


@functools.lru_cache(65536)
def address(family: int, upper: int, lower: int) -> str:
    """An address as it is written: of IPv6, RFC 5952."""
    if family == IPV6:
        return socket.inet_ntop(socket.AF_INET6, (upper << 64 | lower).to_bytes(16, "big"))
    return socket.inet_ntop(socket.AF_INET, (lower & 0xFFFFFFFF).to_bytes(4, "big"))


def transport(protocol: int) -> str:
    """``tcp`` for 6; the number where it is not known by name."""
    return _PROTOCOLS.get(protocol, str(protocol))


def what(family: int, ethertype: int, protocol: int) -> str:
    """The protocol of a flow: what IP carries, else what the link does."""
    if family in (IPV4, IPV6):
        return transport(protocol)
    return "arp" if family == ARP else _ETHERTYPES.get(ethertype, f"0x{ethertype:04x}")


def flags(bits: int) -> str:
    """Flags of TCP by their letters, ``FSRPAUECN``; empty without any."""
    return "".join(letter for bit, letter in enumerate(_FLAGS) if bits >> bit & 1)
