"""Names of addresses: DNS (RFC 1035), mDNS and DNS-SD (RFC 6762, 6763), and the name in a ClientHello.

What DNS answers is hearsay, kept with who asked: another may be told otherwise. In mDNS a host answers for itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from agent.workers.inventory import layers
from agent.workers.inventory.control import Frame
from agent.workers.inventory.sighting import (
    DNS,
    INSTANCE,
    MDNS,
    NAME,
    SERVICE,
    TLS,
    Sighting,
    domain_name,
    unicast,
    words,
)
from agent.workers.inventory.tls import server_name

_A, _PTR, _AAAA, _SRV = 1, 12, 28, 33
_ADDRESSES = (_A, _AAAA)
_PROTOCOLS = {"_tcp": "tcp", "_udp": "udp"}


def dns(frame: Frame, time: int) -> Iterator[Sighting]:
    """The name that was asked for, for each address in the answer; for a PTR the name that was answered."""
    message = layers.message(frame.payload)
    if not message.qr or message.rcode or not frame.target or not message.qd:
        return
    asked = domain_name(message.qd[0].qname)
    for record in message.an:
        kind = getattr(record, "type", 0)
        if kind in _ADDRESSES:
            name, address = asked, unicast(record.rdata)
        elif kind == _PTR:
            name, address = domain_name(record.rdata), reverse(domain_name(record.rrname))
        else:
            continue
        if name and address:
            yield Sighting(time, time, DNS, frame.vlan, "", address, NAME, name, frame.target)


def reverse(name: str) -> str:
    """The address that a name below in-addr.arpa or ip6.arpa stands for, RFC 1035 and 3596; empty for other names."""
    labels = name.split(".")[::-1]
    try:
        if labels[:2] == ["arpa", "in-addr"] and len(labels) == 6:
            return unicast(ipaddress.IPv4Address(".".join(labels[2:])))
        if labels[:2] == ["arpa", "ip6"] and len(labels) == 34:
            return unicast(ipaddress.IPv6Address(int("".join(labels[2:]), 16)))
    except ValueError:
        pass
    return ""


def mdns(frame: Frame, time: int) -> Iterator[Sighting]:
    """Names of the sender's addresses, and what it offers by which name. A lifetime of 0 takes back what was said."""
    message = layers.message(frame.payload)
    if not message.qr or not frame.address:
        return
    records = [record for record in [*message.an, *message.ar] if getattr(record, "ttl", 0)]
    # To the group it came from this link, and so from this MAC.
    yield Sighting(time, time, MDNS, frame.vlan, "" if frame.target else frame.mac, frame.address)
    where: dict[str, list[str]] = {}
    for record in records:
        if record.type in _ADDRESSES and (address := unicast(record.rdata)) and (name := domain_name(record.rrname)):
            where.setdefault(name, []).append(address)
            yield Sighting(time, time, MDNS, frame.vlan, "", address, NAME, name)
    for record in records:
        if record.type == _SRV:
            known = where.get(domain_name(record.target), [frame.address])
            address = frame.address if frame.address in known else known[0]
            yield from _service(words(record.rrname), record.port, address, frame.vlan, time)


def _service(name: str, port: int, address: str, vlan: int, time: int) -> Iterator[Sighting]:
    """Of ``Printer in the hall._ipp._tcp.local.``"""
    labels = name.rstrip(".").split(".")
    places = [place for place, label in enumerate(labels) if label in _PROTOCOLS and place >= 1]
    if not places or not port:
        return
    place = places[-1]
    yield Sighting(time, time, MDNS, vlan, "", address, SERVICE, f"{_PROTOCOLS[labels[place]]}/{port}")
    if place >= 2:
        yield Sighting(time, time, MDNS, vlan, "", address, INSTANCE, ".".join(labels[: place + 1]))


def tls(frame: Frame, time: int) -> Iterator[Sighting]:
    """By what name a client knows the server it connects to."""
    raw = server_name(frame.payload)
    name = domain_name(raw) if raw else ""
    if name and frame.target and frame.address:
        yield Sighting(time, time, TLS, frame.vlan, "", frame.target, NAME, name, frame.address)
