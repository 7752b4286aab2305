"""The layers of scapy that take messages apart, and nothing else of it.

``scapy.all`` is never imported. Left to itself scapy reads routes, makes directories in a home, and keeps there what it
reads back by pickle at the next start; here it finds neither a home nor a reason. What it would log about a malformed
message is for us to count instead: an error inside of a layer is raised, and not turned into a layer of raw bytes.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_HOMES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
_NOWHERE = "/proc/nowhere"  # where nobody, not even root, can make a directory

MOST_RECORDS = 256
"""Records in one list of a message, at most; ``dissect.LONGEST`` has room for 180."""


@contextmanager
def _homeless() -> Iterator[None]:
    """As if there were no home."""
    before = {name: os.environ.get(name) for name in _HOMES}
    os.environ.update(dict.fromkeys(_HOMES, _NOWHERE))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _without_makers() -> None:
    """Spare scapy the names of all makers of network cards, which nobody asks for: 24 MB of memory, and 120 ms.

    It takes them from Wireshark where that is installed, and else from this module, which a bundle does not hold.
    """
    makers = ModuleType("scapy.libs.manuf")
    vars(makers)["DATA"] = ""
    sys.modules.setdefault(makers.__name__, makers)


logging.getLogger("scapy").setLevel(logging.CRITICAL + 1)
_without_makers()
with _homeless():
    from scapy.config import conf

    conf.route_autoload = conf.route6_autoload = False
    from scapy.contrib import lldp
    from scapy.layers import dhcp, dhcp6, dns, inet6, l2

conf.debug_dissector = True
conf.max_list_count = MOST_RECORDS
conf.contribs["LLDP"].strict_mode_disable()  # its checks keep notes from one message to the next

arp: Any = l2.ARP
bootp: Any = dhcp.BOOTP
dhcp_options: Any = dhcp.DHCP
message: Any = dns.DNS

solicitations: dict[int, Any] = {
    133: inet6.ICMPv6ND_RS,
    134: inet6.ICMPv6ND_RA,
    135: inet6.ICMPv6ND_NS,
    136: inet6.ICMPv6ND_NA,
}
"""Messages of ND by their type in ICMPv6."""
source_link: Any = inet6.ICMPv6NDOptSrcLLAddr
target_link: Any = inet6.ICMPv6NDOptDstLLAddr

dhcp6_messages: dict[int, Any] = {kind: getattr(dhcp6, name) for kind, name in dhcp6.dhcp6_cls_by_type.items()}
"""Messages of DHCPv6 by their type."""
dhcp6_client: Any = dhcp6.DHCP6OptClientId
dhcp6_name: Any = dhcp6.DHCP6OptClientFQDN
dhcp6_leases: Any = dhcp6.DHCP6OptIA_NA
dhcp6_address: Any = dhcp6.DHCP6OptIAAddress

lldp_message: Any = lldp.LLDPDU
lldp_chassis: Any = lldp.LLDPDUChassisID
lldp_port: Any = lldp.LLDPDUPortID
lldp_name: Any = lldp.LLDPDUSystemName
lldp_system: Any = lldp.LLDPDUSystemDescription
lldp_capabilities: Any = lldp.LLDPDUSystemCapabilities
lldp_management: Any = lldp.LLDPDUManagementAddress
