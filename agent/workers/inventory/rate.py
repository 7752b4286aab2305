"""How many control packets are dissected: so many of each kind in a second of packet time, and so much of a processor.

Neighbours that are asked for a thousand times a second tell nothing new the second time. What is over is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.workers.inventory.sighting import ARP, DHCP, DHCPV6, DNS, LLDP, MDNS, ND, TLS

PER_SECOND = {ARP: 100, ND: 100, DHCP: 50, DHCPV6: 50, MDNS: 50, LLDP: 20, DNS: 100, TLS: 100}
"""Packets of each kind on one interface, of packet time; twice as many at once after a pause."""

SHARE = 0.2
"""Of one processor, at most. Of what is indexed late, such as after a start, less is dissected for it."""

_BURST = 2.0
_SECOND = 1_000_000_000
_INTERFACES = 64


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: int


class Rate:
    """Buckets by interface and kind."""

    def __init__(self, per_second: dict[str, int] | None = None) -> None:
        self._per_second = PER_SECOND if per_second is None else per_second
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def take(self, interface: str, kind: str, time: int) -> bool:
        """Whether one more packet of this kind may be dissected at ``time``, nanoseconds of packet time."""
        rate = self._per_second[kind]
        bucket = self._buckets.get((interface, kind))
        if bucket is None:
            if len(self._buckets) >= _INTERFACES * len(self._per_second):  # interfaces come and go
                self._buckets.clear()
            bucket = self._buckets[interface, kind] = _Bucket(rate * _BURST, time)
        passed = (time - bucket.at) / _SECOND
        if passed > 0:
            bucket.tokens = min(rate * _BURST, bucket.tokens + passed * rate)
        if passed > 0 or passed < -_BURST:  # packets are not quite in order; further back the clock was set
            bucket.at = time
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


class Processor:
    """Seconds of a processor that may be spent: ``share`` of those that pass, and up to ``share * most`` at once."""

    def __init__(self, share: float = SHARE, most: float = 10.0) -> None:
        self._share = share
        self._most = share * most
        self._left = self._most
        self._at: float | None = None

    def allows(self, now: float) -> bool:
        """Whether there is anything left at ``now``, seconds of a clock that is not set back."""
        if self._at is not None:
            self._left = min(self._most, self._left + (now - self._at) * self._share)
        self._at = now
        return self._left > 0

    def spend(self, seconds: float) -> None:
        """So much was spent."""
        self._left -= seconds
