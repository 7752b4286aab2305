"""Numbers that headers bear, in one place, so that whoever reads a packet finds the same in it. No numpy is needed.

Link types are those of pcap-linktype(7), ethertypes those of IEEE 802, protocols those of IP (the registries of IANA).
"""

from __future__ import annotations

NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4_ONLY, IPV6_ONLY, LINUX_SLL2 = 0, 1, 101, 108, 113, 228, 229, 276

AF_INET = 2
AF_INET6 = (10, 24, 28, 30)
"""What ``NULL`` and ``LOOP`` begin with: on Linux, NetBSD and OpenBSD, FreeBSD, Darwin."""

RAW_OLD = (12, 14)
"""What DLT_RAW is on some systems, and therefore in some files."""

TAGS = (0x8100, 0x88A8, 0x9100)
"""IEEE 802.1Q, IEEE 802.1ad, and what QinQ was before that: those that libpcap takes for a VLAN tag."""

SHORTEST_ETHERTYPE = 0x0600
"""IEEE 802.3: what is less is a length, and a header of IEEE 802.2 follows."""

IPV4, ARP, RARP, IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
LLDP = 0x88CC
WRAPPED = (0x8847, 0x8848, 0x8863, 0x8864)
"""MPLS, RFC 3032; PPPoE, RFC 2516."""

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136

PORTED = (TCP, UDP, DCCP, SCTP, UDPLITE)
"""Protocols that begin with the port of the source and that of the destination."""

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, SHIM6 = 0, 43, 44, 51, 60, 140

EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, SHIM6)
"""RFC 8200, RFC 4302, RFC 5533: headers of IPv6 that say what comes next. Those of mobility (RFC 6275) and of host
identity (RFC 7401) could, but nothing ever does: they are what the packet is about."""

MOST_TAGS = 8
MOST_EXTENSIONS = 12
"""More of them than that in one packet are not followed."""
