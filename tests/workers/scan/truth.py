"""What is on the network of ``lab``: the truth that results are held against. Nothing here is started.

``lab.PREFIX`` (10.99.0.0/24 and fd99::/64) is on the link of who scans. ``FAR_PREFIX`` (10.98.0.0/24) is behind a way
that loses, delays or limits packets, by address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

Rest = Literal["closed", "filtered", "rejected", "open"]
"""Of TCP ports that nobody listens on: a RST, silence, an ICMP message that says so, or an answer as from anybody."""

NEAR, FAR = "10.99.0.254", "10.99.0.253"
"""Who scans, and the link of who is scanned."""
NEAR6, FAR6 = "fd99::fe", "fd99::fd"
INTERFACE: Final = "wire"
"""Of the link, in both namespaces."""
LINK_LOCAL: Final = "fe80::99"


@dataclass(frozen=True)
class Truth:
    """One host. ``tcp`` are its open ports and what speaks there; ``udp`` those that answer a question."""

    address: str
    kind: str
    tcp: Mapping[int, str] = field(default_factory=dict)
    rest: Rest = "closed"
    udp: Mapping[int, str] = field(default_factory=dict)
    up: bool = True
    """Whether it answers a ping, or ARP."""

    @property
    def open(self) -> frozenset[int]:
        return frozenset(self.tcp)


class Way(NamedTuple):
    """How packets get to an address and back: seconds and part lost each way, and packets a second there (0: any)."""

    delay: float = 0.0
    loss: float = 0.0
    cap: int = 0


WEB = {80: "http", 443: "https"}
SSH = {22: "ssh"}
SILENT = dict.fromkeys(range(7001, 7041), "silent")
SPEAKING_SSH = dict.fromkeys(range(2201, 2241), "ssh")
SPEAKING_HTTP = dict.fromkeys(range(8001, 8041), "http")
HUNDRED = dict.fromkeys((round(655.3 * number) + 7 for number in range(100)), "silent")
"""A hundred ports spread over all."""

_KINDS: tuple[tuple[int, str, Mapping[int, str], Rest, Mapping[int, str]], ...] = (
    (12, "web", WEB, "closed", {}),
    (8, "ssh", SSH, "closed", {}),
    (4, "redis", {6379: "redis"}, "closed", {}),
    (2, "dns", {53: "domain"}, "closed", {53: "domain"}),
    (12, "mixed", {**SSH, **WEB, 6379: "redis"}, "closed", {}),
    (5, "closed", {}, "closed", {}),
    (1, "says once a second that a port is closed", {}, "closed", {}),
    (4, "behind a firewall that drops", SSH, "filtered", {}),
    (3, "behind a firewall that rejects", {80: "http"}, "rejected", {}),
    (3, "silent after accept", dict.fromkeys(range(7001, 7005), "silent"), "closed", {}),
    (2, "late", {21: "late"}, "closed", {}),
    (2, "closes at once", {23: "closes"}, "closed", {}),
    (1, "tarpit", {22: "tarpit", 2323: "tarpit"}, "closed", {}),
    (1, "limits its resets", WEB, "closed", {}),
    (1, "passes 5,000 packets a second", {**WEB, 7001: "silent"}, "closed", {}),
    (1, "says open to everything", {}, "open", {}),
    (1, "many services", {**SILENT, **SPEAKING_SSH, **SPEAKING_HTTP}, "closed", {}),
)


def _hosts() -> tuple[Truth, ...]:
    made: list[Truth] = []
    for count, kind, tcp, rest, udp in _KINDS:
        made += [Truth(f"10.99.0.{len(made) + number + 1}", kind, tcp, rest, udp) for number in range(count)]
    made.append(Truth("fd99::64", "v6 only", {**WEB, **SSH}))
    return tuple(made)


HOSTS: Final = _hosts()
"""The 64 of the link, of which the last has an IPv6 address only."""

GONE: Final = Truth("10.99.0.200", "nobody", rest="filtered", up=False)
LOCAL: Final = Truth(f"{LINK_LOCAL}%{INTERFACE}", "by link-local address", {**SSH, 7001: "silent"})

FAR_HOSTS: Final = (
    Truth("10.98.0.1", "10 ms away", HUNDRED),
    Truth("10.98.0.2", "10 ms away, loses 5 % each way", HUNDRED),
    Truth("10.98.0.3", "10 ms away, behind 5,000 packets a second", HUNDRED),
    Truth("10.98.0.4", "200 ms away", HUNDRED),
)
WAYS: Final = {
    "10.98.0.1": Way(0.005),
    "10.98.0.2": Way(0.005, 0.05),
    "10.98.0.3": Way(0.005, cap=5000),
    "10.98.0.4": Way(0.1),
}


def of_kind(kind: str) -> tuple[Truth, ...]:
    """All hosts of a kind. Raises ``KeyError`` when there is none."""
    found = tuple(host for host in (*HOSTS, GONE, LOCAL, *FAR_HOSTS) if host.kind == kind)
    if not found:
        raise KeyError(kind)
    return found
