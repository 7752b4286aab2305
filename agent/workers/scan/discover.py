"""Which addresses of large networks answer at all: nmap's discovery (``-sn``), taken in host by host.

nmap asks in more ways than a sweep of ports does (ARP and neighbour discovery on the link, ICMP, a few ports), and
whole networks at a time. Its answer about a /20 is a megabyte of XML and about a /8 four gigabytes: none of it is kept
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, summarize_address_range

from agent.workers.scan.argv import Ask, ask_argv
from agent.workers.scan.found import Host
from agent.workers.scan.nmap import run_nmap
from agent.workers.scan.plan import Family
from agent.workers.scan.program import Program
from agent.workers.scan.results import read_hosts
from agent.workers.scan.spans import Ranges, holds, size
from agent.workers.scan.stream import Verdict, XmlStream

LARGEST = 64 * 1024
"""Bytes that nmap may say of one host whose ports it was not asked for."""


async def discover(
    family: Family,
    ranges: Ranges,
    program: Program,
    *,
    rate: int,
    zone: str = "",
    on_host: Callable[[Host, bytes], None],
    turn: Callable[[float], None] = lambda fraction: None,
    turn_every: float = 0.5,
) -> Verdict:
    """Find the hosts of ``ranges`` that are up; those that nmap does not tell of did not answer.

    ``on_host`` gets each as nmap tells of it, with the bytes of its element. ``rate`` is in packets per second.
    ``turn`` gets how far it is, from 0 to 1. Raises ``ScanFailure`` as ``run_nmap`` does; what was told by then stays.
    """
    make = IPv4Address if family == 4 else IPv6Address
    suffix = f"%{zone}" if zone else ""

    def given(address: str) -> str | None:
        number = ip_address(address)
        there = number.version == family and holds(ranges, int(number))
        return f"{make(int(number))}{suffix}" if there else None

    waiting: list[bytes] = []

    def take() -> None:
        """Many hosts are read for little more than one."""
        elements = tuple(waiting)
        waiting.clear()
        for host, element in zip(read_hosts(elements, given), elements, strict=True):
            on_host(host, element)

    def told() -> None:
        take()
        turn(stream.fraction)

    stream = XmlStream(on_host=waiting.append, limit=LARGEST)
    try:
        return await run_nmap(
            lambda fd: ask_argv(Ask(family), nmap=program.path, rate=rate, privileged=program.privileged, targets=fd),
            program.environment,
            b"".join(f"{line}\n".encode() for line in networks(family, ranges, zone)),
            capabilities=program.capabilities,
            hosts=size(ranges),
            stream=stream,
            turn=told,
            turn_every=turn_every,
        )
    finally:
        take()


def networks(family: Family, ranges: Ranges, zone: str = "") -> Iterator[str]:
    """The ranges as nmap takes them: a network or an address a line, with nothing in it but numbers (and a zone)."""
    make = IPv4Address if family == 4 else IPv6Address
    for low, high in ranges:
        if zone:
            yield from (f"{make(number)}%{zone}" for number in range(low, high + 1))
            continue
        for network in summarize_address_range(make(low), make(high)):
            yield str(network) if network.num_addresses > 1 else str(network.network_address)
