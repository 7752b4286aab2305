"""What the sweep asks of whoever sends its probes and hears the answers.

An engine knows how one kind of probe is sent (by connect, as a raw SYN, as a datagram) and how its answers are told
from anything else. It decides nothing: which probe goes out, when, how often, and what silence means, is the sweep's.
It is made for the addresses of one chunk, driven from the worker's own loop, and none of its methods ever waits.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

State = Literal["open", "closed", "filtered"]

SHORTEST: Final = 1e-6
"""Seconds of the quickest answer: 0 means unknown."""

NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What the kernel says when this host has no room for another socket: nobody who is asked is at fault."""

NOWHERE: Final[dict[int, str]] = {
    errno.ENETUNREACH: "net-unreach",
    errno.EHOSTUNREACH: "host-unreach",
    errno.EACCES: "admin-prohibited",  # a route of the kind `prohibit`, ip-route(8)
    errno.EINVAL: "net-unreach",  # a route of the kind `blackhole`
    errno.EADDRNOTAVAIL: "net-unreach",  # no address of this family to send from
}
"""What the kernel says at once of an address to which nothing goes, as the reason of a ``Reply``."""

Probe = tuple[int, int]
"""``(place, port)``: where the address stands among those that the engine was made for, from 0."""


class Reply(NamedTuple):
    """What came back for one probe. Silence is no reply: ``filtered`` means that something said so.

    ``reason`` is nmap's word: ``syn-ack``, ``reset``, ``conn-refused``, ``host-unreach``, ``net-unreach``,
    ``admin-prohibited``, ``port-unreach``, ``proto-unreach``, ``udp-response``. ``ttl`` is that of the packet, 0 when
    unknown; ``rtt`` is in seconds, 0 when unknown (an engine need not remember when it sent what).
    """

    place: int
    port: int
    state: State
    reason: str
    ttl: int = 0
    rtt: float = 0.0


class Engine(Protocol):
    """Times are those of one monotonic clock, in seconds. A reply may come twice, late, or for a probe given up."""

    patience: float
    """Seconds after which an attempt is given up. Set by the sweep, which knows how long answers take."""

    resting: bool
    """While it is set nothing leaves by itself: ``receive`` sends nothing of what waits here, and an attempt that the
    kernel would repeat is given up, without a reply."""

    @property
    def room(self) -> int:
        """How many probes it takes now; 0 when it holds as many as it can, or as the kernel lets it."""

    @property
    def waiting(self) -> int:
        """How many attempts it still holds; 0 for an engine that keeps none."""

    @property
    def trouble(self) -> str:
        """Why this host itself did not let probes out (its firewall, a full table), one line; empty when all went."""

    def send(self, probes: Sequence[Probe], now: float) -> int:
        """Send from the first on, each once; returns how many were taken. The rest was not sent.

        A probe that the kernel answers at once (no route) is taken too, and its reply comes with ``receive``.
        """

    def receive(self, now: float) -> list[Reply]:
        """What has come since; gives up, silently, on what is older than ``patience``."""

    def fileno(self) -> int:
        """A descriptor that polls readable when ``receive`` has something to read (an epoll or a socket)."""

    def forget(self) -> None:
        """Let go of all attempts; their replies may still come."""

    def close(self) -> None:
        """Release everything. Twice does no harm."""
