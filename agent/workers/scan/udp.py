"""The engine that asks UDP ports: a connected socket and a question (``payloads``) for each attempt. No privilege.

Connected, a socket gets the answers of its peer and the ICMP messages about what it sent, and nothing else. A datagram
back is ``open``, ICMP port unreachable is ``closed``, any other message ``filtered``. What silence means is the sweep's
to say: an open port that did not understand us is as silent as a firewall.

A host says only so often that a port is closed. Linux sends six such messages to somebody at once and then one a second
(icmp_ratelimit of icmp(7)), so that an impatient scanner takes nearly all of its ports for filtered. Hence a host that
is known to say it and then falls silent is asked more slowly, and it alone: what was taken for it waits here.
"""

from __future__ import annotations

import errno
import heapq
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from agent.workers.scan.connect import descriptors, spared
from agent.workers.scan.engine import NO_ROOM, NOWHERE, SHORTEST, Probe, Reply
from agent.workers.scan.itself import met_itself
from agent.workers.scan.payloads import payloads
from agent.workers.scan.unreachable import IP_RECVERR, IPV6_RECVERR, told

MOST: Final = 1024
"""Attempts at once, each with a descriptor of its own."""

QUEUED: Final = 8192
"""Probes that may wait here for hosts that are asked slowly."""

SLOWEST: Final = 1.1
"""Seconds between two questions to a host that says once a second that a port is closed: a little more than that, or
whichever came a little early would be the one that is not answered."""

_FIRST_GAP = 0.2
_FASTER = 0.97
"""What an answer does to the gap: who says more than once a second that a port is closed is found out slowly."""
_FALLEN_SILENT = 3  # questions in a row without an answer, from a host that has said "closed" before
_ANSWER = 512

_IP_RECVTTL, _IP_TTL = 12, 2  # linux/in.h
_PLAIN: Final = {
    errno.ECONNREFUSED: "port-unreach",
    errno.EHOSTUNREACH: "host-unreach",
    errno.ENETUNREACH: "net-unreach",
}


@dataclass(slots=True)
class _Host:
    """How a host is asked: not before ``due``, and ``gap`` seconds apart."""

    gap: float = 0.0
    due: float = 0.0
    says: bool = False
    """Whether it has ever said that a port is closed."""
    silent: int = 0
    waiting: deque[int] = field(default_factory=deque)


class UdpEngine:
    """See ``Engine``. ``addresses`` are of one family, a link-local one with its zone."""

    def __init__(self, addresses: Sequence[str], most: int = MOST) -> None:
        """``most`` is how many attempts there are at once. Raises ``OSError`` when a zone is no interface."""
        self.patience = 1.0
        self.trouble = ""
        self.resting = False
        self._six = ":" in addresses[0]
        zone = addresses[0].partition("%")[2]
        self._scope = socket.if_nametoindex(zone) if zone else 0
        self._addresses = addresses
        self._most = max(1, min(most, (found := descriptors(most)) - spared(found)))
        self._hosts: dict[int, _Host] = {}
        self._held = 0
        self._turns: list[tuple[float, int]] = []  # a heap: when a host with something waiting may be asked
        self._attempts: dict[int, tuple[socket.socket, int, int, float]] = {}
        self._replies: list[Reply] = []
        self._poll = select.epoll()
        self._due = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._due, select.EPOLLIN)

    @property
    def room(self) -> int:
        return max(0, min(self._most - len(self._attempts), QUEUED - self._held))

    @property
    def waiting(self) -> int:
        return len(self._attempts) + self._held

    def fileno(self) -> int:
        return self._poll.fileno()

    def send(self, probes: Sequence[Probe], now: float) -> int:
        """As ``Engine`` says. What is taken for a host that is asked slowly goes out at its time, by ``receive``."""
        for taken, (place, port) in enumerate(probes):
            host = self._hosts.setdefault(place, _Host())
            if host.waiting or now < host.due:
                if self._held >= QUEUED:
                    return taken
                if not host.waiting:
                    heapq.heappush(self._turns, (host.due, place))
                host.waiting.append(port)
                self._held += 1
            elif len(self._attempts) >= self._most or not self._ask(host, place, port, now):
                return taken
        return len(probes)

    def receive(self, now: float) -> list[Reply]:
        replies, self._replies = self._replies, []
        if replies:
            os.eventfd_read(self._due)
        for fd, _ in self._poll.poll(0):
            if fd != self._due:
                self._hear(fd, replies, now)
        self._expire(now)
        if not self.resting:
            self._turn(now)
        return replies

    def forget(self) -> None:
        for one, *_ in self._attempts.values():
            one.close()
        self._attempts.clear()
        for host in self._hosts.values():
            host.waiting.clear()
        self._turns.clear()
        self._held = 0

    def close(self) -> None:
        self.forget()
        if not self._poll.closed:
            os.close(self._due)
            self._poll.close()

    def _turn(self, now: float) -> None:
        """Ask the hosts whose time has come."""
        while self._turns and self._turns[0][0] <= now and len(self._attempts) < self._most:
            _, place = heapq.heappop(self._turns)
            host = self._hosts[place]
            if not self._ask(host, place, host.waiting[0], now):
                heapq.heappush(self._turns, (now, place))
                return
            host.waiting.popleft()
            self._held -= 1
            if host.waiting:
                heapq.heappush(self._turns, (max(host.due, now), place))

    def _ask(self, host: _Host, place: int, port: int, now: float) -> bool:
        """Whether it went out, or this host's own kernel had an answer."""
        one: socket.socket | None = None
        try:
            one = self._connected(place, port)
            if met_itself(one):
                with one:  # as long as this one has the port, the next gets another
                    other = self._connected(place, port)
                one = other
            first, *others = payloads(port)
            one.send(first)
            with suppress(OSError):  # an answer to the first may be there by now: it waits in the error queue
                for payload in others:
                    one.send(payload)
        except OSError as error:
            if one is not None:
                one.close()
            return self._refused(error, place, port)
        self._attempts[one.fileno()] = (one, place, port, now)
        self._poll.register(one, select.EPOLLIN)
        host.due = now + host.gap
        return True

    def _connected(self, place: int, port: int) -> socket.socket:
        """A socket that is told of refusals as well. Raises ``OSError``."""
        one = socket.socket(socket.AF_INET6 if self._six else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if self._six:
                one.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
                one.connect((self._addresses[place], port, 0, self._scope))
            else:
                one.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
                one.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
                one.connect((self._addresses[place], port))
        except OSError:
            one.close()
            raise
        return one

    def _refused(self, error: OSError, place: int, port: int) -> bool:
        """Whether a probe that did not go out is done with all the same."""
        if error.errno in NO_ROOM or error.errno == errno.EAGAIN:
            self.trouble = f"this host has no room for more UDP probes: {error.strerror}"
            return False
        if error.errno == errno.EPERM:
            self.trouble = "the firewall of this host does not let probes out"
            return True
        if not self._replies:
            os.eventfd_write(self._due, 1)
        self._replies.append(Reply(place, port, "filtered", NOWHERE.get(error.errno or 0, "net-unreach")))
        return True

    def _hear(self, fd: int, replies: list[Reply], now: float) -> None:
        one, place, port, asked = self._attempts[fd]
        host, rtt = self._hosts[place], max(SHORTEST, now - asked)
        try:
            _, controls, _, _ = one.recvmsg(_ANSWER, 64)
        except OSError as error:
            reason = told(one) or _PLAIN.get(error.errno or 0)
            if reason is None:
                return
            if reason == "port-unreach":
                host.says, host.silent = True, 0
                host.gap *= _FASTER
                replies.append(Reply(place, port, "closed", reason, 0, rtt))
            else:
                replies.append(Reply(place, port, "filtered", reason, 0, rtt))
        else:
            ttl = next((int.from_bytes(data[:1], "little") for _, kind, data in controls if kind in _TTLS), 0)
            replies.append(Reply(place, port, "open", "udp-response", ttl, rtt))
        del self._attempts[fd]
        one.close()

    def _expire(self, now: float) -> None:
        """Give up what is old, and ask hosts more slowly that have fallen silent."""
        old = now - self.patience
        while self._attempts:
            fd, (one, place, _, asked) = next(iter(self._attempts.items()))  # the oldest is the first
            if asked > old:
                return
            del self._attempts[fd]
            one.close()
            host = self._hosts[place]
            host.silent += 1
            if host.says and host.silent >= _FALLEN_SILENT:
                host.silent = 0
                host.gap = min(SLOWEST, max(_FIRST_GAP, host.gap * 2))
                host.due = max(host.due, now + host.gap)


_TTLS = (_IP_TTL, socket.IPV6_HOPLIMIT)
