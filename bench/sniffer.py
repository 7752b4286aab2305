"""scapy's AsyncSniffer, counting: ``sniffer INTERFACE BUFFER``. For each line on stdin one with the packets since.

As everybody has it, by scapy.all: what is in a packet is found out before it is handed over. In scapy's favour it keeps
none, writes none, and has a socket buffer as large as is permitted.
"""

from __future__ import annotations

import sys
import time
from threading import Event

from scapy.all import AsyncSniffer, conf

DRAIN = 0.5
"""Seconds without a packet after which none is left."""


def main() -> None:
    conf.bufsize = int(sys.argv[2])
    seen, ready = 0, Event()

    def count(packet: object) -> None:
        nonlocal seen
        seen += 1

    sniffer = AsyncSniffer(iface=sys.argv[1], store=False, prn=count, started_callback=ready.set)
    sniffer.start()
    ready.wait()
    print("ready", flush=True)
    for _ in sys.stdin:
        before = -1
        while before != seen:
            before = seen
            time.sleep(DRAIN)
        print(seen, flush=True)
        seen = 0
    sniffer.stop()


if __name__ == "__main__":
    main()
