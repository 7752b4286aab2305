"""What this machine itself is called on its links."""

from __future__ import annotations

import socket

import psutil

from agent.workers.inventory.sighting import station, unicast


def own() -> list[str]:
    """The MACs and addresses of all interfaces, sorted; empty where the kernel does not tell."""
    try:
        interfaces = psutil.net_if_addrs()
    except OSError:
        return []
    found: set[str] = set()
    for addresses in interfaces.values():
        for address in addresses:
            if address.family == socket.AF_PACKET:
                found.add(station(address.address))
            else:
                found.add(unicast(address.address.partition("%")[0]))
    return sorted(found - {""})
