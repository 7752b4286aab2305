"""What DHCP tells: RFC 2131 and 2132, and for IPv6 RFC 8415.

A client names itself; that it has an address is believed of the server that says so, or of the client while it renews
one that it uses. What a relay carries comes from another link, and says nothing of MACs here but what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.workers.inventory import layers
from agent.workers.inventory.control import Frame
from agent.workers.inventory.sighting import (
    CLIENT,
    DHCP,
    DHCPV6,
    LONGEST,
    NAME,
    ROLE,
    SEEN,
    Sighting,
    domain_name,
    station,
    unicast,
    words,
)

_REQUEST, _REPLY = 1, 2
_OFFER, _ACKNOWLEDGED = 2, 5
_FQDN_FLAGS = 3  # RFC 4702: flags and two result codes before the name
_ENCODED = 4  # and the flag that says that the name is as in DNS, with a length before each label
_FROM_CLIENT = {1, 3, 4, 5, 6, 8, 9, 11}  # RFC 8415, 7.3: Solicit, Request, Confirm, Renew, Rebind, Release, …
_ADVERTISE, _REPLY6 = 2, 7
_ON_LINK = ("fe8", "fe9", "fea", "feb")
"""How link-local addresses begin: no router has passed on what comes from one."""


def dhcp(frame: Frame, time: int) -> Iterator[Sighting]:
    """From a client its names, from a server the address that it gave, and that it is one."""
    message = layers.bootp(frame.payload)
    found = message.getlayer(layers.dhcp_options)
    if found is None or (message.htype, message.hlen) != (1, 6):
        return
    options: dict[Any, Any] = {}
    for option in found.options:
        if isinstance(option, tuple) and len(option) > 1:
            options.setdefault(option[0], option[1])
    mac = station(bytes(message.chaddr[:6]).hex())
    if not mac:
        return
    kind = options.get("message-type")
    address = ""
    if message.op == _REPLY:
        server = unicast(options.get("server_id"))
        if kind in (_OFFER, _ACKNOWLEDGED) and server:
            yield Sighting(time, time, DHCP, frame.vlan, "", server, ROLE, "dhcp server")
        if kind != _ACKNOWLEDGED:
            return
        address = unicast(message.yiaddr)
    elif message.op == _REQUEST:
        address = unicast(message.ciaddr)
    else:
        return
    yield Sighting(time, time, DHCP, frame.vlan, mac, address)
    told = [(NAME, domain_name(options.get("hostname", ""))), (NAME, _fqdn(options.get("client_FQDN", b"")))]
    if message.op == _REQUEST:
        told.append((CLIENT, bytes(options.get("client_id", b"")).hex()[:LONGEST]))
    for fact, value in told:
        if value:
            yield Sighting(time, time, DHCP, frame.vlan, mac, "", fact, value)


def _fqdn(option: Any) -> str:
    raw = bytes(option)
    if len(raw) <= _FQDN_FLAGS:
        return ""
    name = raw[_FQDN_FLAGS:]
    return _labels(name) if raw[0] & _ENCODED else domain_name(name)


def _labels(raw: bytes) -> str:
    labels, place = [], 0
    while place < len(raw) and 0 < raw[place] < 64:
        labels.append(raw[place + 1 : place + 1 + raw[place]])
        place += 1 + raw[place]
    return domain_name(b".".join(labels))


def dhcp6(frame: Frame, time: int) -> Iterator[Sighting]:
    """The same of DHCPv6. Between a client and who is on its link; relays are left out."""
    if not frame.payload:
        return
    kind = frame.payload[0]
    if kind in _FROM_CLIENT:
        mac, address = frame.mac, frame.address
    elif kind in (_ADVERTISE, _REPLY6):
        mac, address = frame.target_mac, frame.target
        if frame.address.startswith(_ON_LINK):
            yield Sighting(time, time, DHCPV6, frame.vlan, frame.mac, frame.address)
            yield Sighting(time, time, DHCPV6, frame.vlan, frame.mac, frame.address, ROLE, "dhcpv6 server")
    else:
        return
    if not mac or not address.startswith(_ON_LINK):
        return
    message = layers.dhcp6_messages[kind](frame.payload)
    yield Sighting(time, time, DHCPV6, frame.vlan, mac, address)
    client = message.getlayer(layers.dhcp6_client)
    told = [(CLIENT, bytes(client.duid).hex()[:LONGEST] if client is not None else "")]
    name = message.getlayer(layers.dhcp6_name)
    if name is not None:
        told.append((NAME, domain_name(words(name.fqdn))))
    for fact, value in told:
        if value:
            yield Sighting(time, time, DHCPV6, frame.vlan, mac, "", fact, value)
    lease = message.getlayer(layers.dhcp6_leases) if kind == _REPLY6 else None
    while lease is not None:
        for given in lease.ianaopts:
            if isinstance(given, layers.dhcp6_address) and given.validlft and unicast(given.addr):
                yield Sighting(time, time, DHCPV6, frame.vlan, mac, unicast(given.addr), SEEN)
        lease = lease.payload.getlayer(layers.dhcp6_leases)
