"""In which ways a host is known to answer, and whether it was asked in any of them when it was silent. Pure.

Silence says something only about who would have answered: a host that drops everything but SSH does not show itself to
a run that asks for port 443, and one that answers a ping not to a discovery that may only connect.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from agent.workers.scan.found import ANSWERED, PROTOCOLS, Host
from agent.workers.scan.memory.picture import PortSet
from agent.workers.scan.spans import common, merge

Discovery = Literal["raw", "connect", "any", ""]
"""How it is asked who is there: by raw packets (ARP, ICMP, two ports), by connecting to two ports, or not at all.
``any``: it is not known how, as of a report of another program, and so it counts as each of them."""

SILENCE: Final = ("", "no-response", "host-unreach", "net-unreach")
"""Reasons of ports from which nothing was heard, or only from somebody else on the way."""


class Ways(msgspec.Struct, frozen=True):
    """How a host has answered: the ``discovery``, and these ``ports``. Or how it was asked."""

    discovery: str = "any"
    ports: PortSet = ()


def discovery_of(declared: object) -> Discovery:
    """What a run has noted of its discovery; ``any`` where it has not."""
    return "raw" if declared == "raw" else "connect" if declared == "connect" else "any"


def answers(host: Host, discovery: Discovery) -> Ways:
    """How a host has answered a run that discovers in this way."""
    found: dict[str, list[tuple[int, int]]] = {}
    for port in host.ports:
        if port.state in ANSWERED or port.reason not in SILENCE:
            found.setdefault(port.protocol, []).append((port.number, port.number))
    for rest in host.rest:
        if rest.state in ANSWERED or rest.reason not in SILENCE:
            found.setdefault(rest.protocol, []).extend(rest.ports)
    ports = tuple((protocol, merge(found[protocol])) for protocol in PROTOCOLS if protocol in found)
    return Ways(discovery if host.discovered or discovery == "any" else "", ports)


def reached(known: Ways, asked: Ways) -> bool:
    """Whether a host that is known in these ways was asked in one of them."""
    if "any" in (known.discovery, asked.discovery) or (known.discovery and known.discovery == asked.discovery):
        return True
    theirs = dict(asked.ports)
    return any(common(ports, theirs.get(protocol, ())) for protocol, ports in known.ports)
