"""Traffic as it is on networks: mixes of sizes and of lengths of flows, the same each time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tests.workers.index import lab
from tests.workers.index.lab import Packet

_TCP, _UDP = 6, 17
_DURATION = 60 * lab.SECOND


def imix(rng: random.Random, forth: bool) -> int:
    """Seven of 64 bytes to four of 576 and one of 1500, whatever the direction."""
    return rng.choices([64, 576, 1500], [7, 4, 1])[0]


def download(rng: random.Random, forth: bool) -> int:
    """Full packets come back, acknowledgements and the odd request go forth."""
    return rng.choices([66, 400], [12, 1])[0] if forth else rng.choices([1514, 600, 66], [10, 1, 1])[0]


def calls(rng: random.Random, forth: bool) -> int:
    """RTP of G.711: 20 ms in each packet."""
    return 214


def mix(count: int, lookups: float, length: Callable[[random.Random], int], size: Callable[..., int]) -> bytes:
    """A pcap file of at least ``count`` packets.

    ``lookups``: the share of flows that are one question and one answer by UDP; ``length``: packets of one of the
    others, both directions together; ``size``: bytes of a packet of those, given its direction.
    """
    rng = random.Random(20)
    packets: list[Packet] = []
    while len(packets) < count:
        packets += _flow(rng, lookups, length, size)
    packets.sort(key=lambda packet: packet.time)
    return lab.savefile(lab.ETHERNET, packets)


def _flow(
    rng: random.Random, lookups: float, length: Callable[[random.Random], int], size: Callable[..., int]
) -> Iterator[Packet]:
    host, peer = rng.randrange(1, 500), rng.randrange(1, 255)
    if rng.random() < 0.2:
        near, far, server = f"2001:db8::{host:x}", f"2001:db8:ffff::{peer:x}", "2001:db8::53:1"
    else:
        near, far, server = f"10.0.{host >> 8}.{host & 255}", f"203.0.0.{peer}", "10.0.9.53"
    port, time = rng.randrange(32768, 61000), lab.BEGIN + rng.randrange(_DURATION)
    if rng.random() < lookups:
        yield _packet(time, _UDP, near, port, server, 53, rng.randrange(70, 100))
        yield _packet(time + 20_000_000, _UDP, server, 53, near, port, rng.randrange(90, 300))
        return
    protocol, service = (_UDP, 5004) if size is calls else (_TCP, 443)
    for number in range(max(2, length(rng))):
        forth = number == 0 or (number > 1 and rng.random() < 0.5)
        time += int(rng.expovariate(1 / 40_000_000))
        ends = (near, port, far, service) if forth else (far, service, near, port)
        flags = {0: 0x02, 1: 0x12}.get(number, rng.choice([0x10, 0x10, 0x18, 0x11]))
        yield _packet(time, protocol, *ends, size(rng, forth), flags)


def _packet(
    time: int, protocol: int, source: str, port: int, destination: str, service: int, size: int, flags: int = 0
) -> Packet:
    kind, network, length = (0x86DD, lab.ipv6, 40) if ":" in source else (0x0800, lab.ipv4, 20)
    payload = b"x" * (size - 14 - length - (20 if protocol == _TCP else 8))
    inner = lab.tcp(port, service, flags, payload) if protocol == _TCP else lab.udp(port, service, payload)
    frame = lab.ethernet(kind, network(protocol, inner, source, destination)).data
    return Packet(time, frame, len(frame))


def heavy_tailed(mean: float) -> Callable[[random.Random], int]:
    """Most flows are short and most packets are in long ones: a Pareto distribution of shape 1.3."""
    least = mean * 0.3 / 1.3
    return lambda rng: int(min(least * rng.paretovariate(1.3), 5000))
