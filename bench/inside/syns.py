"""Sends a SYN to each port of an address and reads the answers: ``syns WITH ADDRESS COUNT``, WITH is scapy or agent.

It tells the answers that it has read, the seconds that it took and those of processor, with nothing of its start. Each
sends as fast as it goes; scapy reads by its AsyncSniffer in a thread, as its users do, with a filter in the kernel.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable

DRAIN = 0.5
"""Seconds without an answer after which none is expected."""
PORT = 40_000
"""That scapy sends from; the agent has one of its own."""


def main() -> None:
    ways: dict[str, Callable[[str, int], tuple[int, float]]] = {"scapy": by_scapy, "agent": by_agent}
    before = time.process_time()
    answers, seconds = ways[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    print(answers, seconds, time.process_time() - before)


def by_scapy(address: str, count: int) -> tuple[int, float]:
    from scapy.all import IP, TCP, AsyncSniffer, conf

    seen, last = 0, time.monotonic()

    def heard(packet: object) -> None:
        nonlocal seen, last
        seen, last = seen + 1, time.monotonic()

    sniffer = AsyncSniffer(filter=f"tcp and src {address} and dst port {PORT}", store=False, prn=heard)
    sniffer.start()
    begun = time.monotonic()
    with conf.L3socket() as out:
        for port in range(1, count + 1):
            out.send(IP(dst=address) / TCP(sport=PORT, dport=port, flags="S", seq=port))
    while seen < count and time.monotonic() - max(last, begun) < DRAIN:
        time.sleep(DRAIN / 50)
    sniffer.stop()
    return seen, max(last, begun) - begun


def by_agent(address: str, count: int) -> tuple[int, float]:
    from agent.workers.scan.syn import SynEngine

    engine = SynEngine([address])
    probes = [(0, port) for port in range(1, count + 1)]
    sent = seen = 0
    begun = last = time.monotonic()
    while seen < count and time.monotonic() - last < DRAIN:
        if sent < count:
            sent += engine.send(probes[sent : sent + engine.room], time.monotonic())
        elif not select.select([engine.fileno()], [], [], DRAIN)[0]:
            break
        if replies := engine.receive(time.monotonic()):
            seen, last = seen + len(replies), time.monotonic()
    engine.close()
    return seen, last - begun


if __name__ == "__main__":
    main()
