"""Which addresses of large networks answer at all: nmap's discovery (``-sn``), taken in host by host.

nmap asks in more ways than a sweep of ports does (ARP and neighbour discovery on the link, ICMP, a few ports), and
whole networks at a time. Its answer about a /20 is a megabyte of XML and about a /8 four gigabytes: none of it is kept
here. What it sends and hears before it tells of anybody is noted by a roll call, from which a discovery that was killed
or paused goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, summarize_address_range

from agent.errors import first_failure
from agent.workers.scan.argv import TRIES, Ask, Probe, ask_argv, probes_of
from agent.workers.scan.found import Host
from agent.workers.scan.nmap import run_nmap
from agent.workers.scan.plan import Family
from agent.workers.scan.program import Program
from agent.workers.scan.results import read_hosts
from agent.workers.scan.rollcall import Part
from agent.workers.scan.spans import Ranges, holds, of, size
from agent.workers.scan.stream import Verdict, XmlStream

LARGEST = 64 * 1024
"""Bytes that nmap may say of one host whose ports it was not asked for."""

AT_ONCE = 4
"""nmaps side by side, where a kill has left several things to ask."""


async def discover_parts(
    family: Family,
    parts: Sequence[Part],
    program: Program,
    *,
    rate: int,
    zone: str = "",
    listen: Callable[[], Callable[[bytes], None]],
    on_host: Callable[[Host, bytes], None],
    turn: Callable[[float], None],
    turn_every: float,
) -> str:
    """Ask what is left of a roll call, all parts at a ``rate`` together; returns nmap's version, empty without parts.

    A part gets as much of the rate as it is of the packets; if there is less than one a second for each, they go one
    after the other. ``listen`` makes what hears the trace of one nmap; the rest, and what is raised, is as in
    ``discover``.
    """
    every = len(probes_of(family, privileged=program.privileged))
    parts = sorted(parts, key=lambda part: -part.packets(every))
    packets = [part.packets(every) for part in parts]
    beside = rate >= len(parts)
    running = asyncio.Semaphore(AT_ONCE if beside else 1)
    through = [0.0] * len(parts)
    version = ""

    def advance(number: int, fraction: float) -> None:
        through[number] = fraction * packets[number]
        turn(sum(through) / sum(packets))

    async def ask(number: int, part: Part) -> None:
        nonlocal version
        share = 1 + (rate - len(parts)) * packets[number] // sum(packets) if beside else rate
        async with running:
            verdict = await discover(
                family,
                of(int(ip_address(address.partition("%")[0])) for address in part.addresses),
                program,
                rate=share,
                zone=zone,
                probes=part.probes,
                tries=part.tries,
                trace=listen(),
                on_host=on_host,
                turn=partial(advance, number),
                turn_every=turn_every,
            )
        version = verdict.version

    try:
        async with asyncio.TaskGroup() as group:
            for number, part in enumerate(parts):
                group.create_task(ask(number, part))
    except BaseExceptionGroup as failed:
        raise first_failure(failed) from failed
    return version


async def discover(
    family: Family,
    ranges: Ranges,
    program: Program,
    *,
    rate: int,
    zone: str = "",
    probes: tuple[Probe, ...] = (),
    tries: int = TRIES,
    trace: Callable[[bytes], None] = lambda said: None,
    on_host: Callable[[Host, bytes], None],
    turn: Callable[[float], None] = lambda fraction: None,
    turn_every: float = 0.5,
) -> Verdict:
    """Find the hosts of ``ranges`` that are up; those that nmap does not tell of did not answer.

    ``probes`` and ``tries`` are as in ``Ask``, ``trace`` gets what nmap says of its packets, as it does.
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
            partial(
                ask_argv,
                Ask(family, probes=probes, tries=tries),
                nmap=program.path,
                rate=rate,
                privileged=program.privileged,
            ),
            program.environment,
            b"".join(f"{line}\n".encode() for line in networks(family, ranges, zone)),
            capabilities=program.capabilities,
            hosts=size(ranges),
            stream=stream,
            trace=trace,
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
