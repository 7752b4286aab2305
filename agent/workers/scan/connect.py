"""Probes by connect(2): no privilege, and the same answers as by raw packets.

A socket for each attempt, none of which is ever waited for: one epoll descriptor tells which of them got an answer. No
byte of data is sent, and what was accepted is reset (``SO_LINGER``), so that no connection lingers here.

A refusal by the target (RST) and one by something on the way (ICMP port unreachable, which is what most firewalls
reject with) are both ``ECONNREFUSED``. Which it was, stands in the socket's error queue since Linux 5.12
(``IP_RECVERR``, ip(7); ``tcp_v4_err`` in net/ipv4/tcp_ipv4.c); an older kernel leaves it empty, and both are called a
reset.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from agent.errors import ScanFailure
from agent.workers.scan.engine import NO_ROOM, Probe, Reply, State
from agent.workers.scan.itself import met_itself
from agent.workers.scan.unreachable import IP_RECVERR, IPV6_RECVERR, told

SPARED: Final = 768
"""Descriptors that are left to everything else in this process: services are looked at beside a sweep (``speak``)."""

MOST: Final = 16_384
"""Attempts at once: a patience of 1 s at this many a second. Each takes some 3 KiB of the kernel's memory."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_SYNCNT_FROM = 1.0  # the kernel sends a SYN again after 1 s (RFC 6298); before that there is nothing to hold back

_PLAIN: Final[dict[int, tuple[State, str]]] = {
    errno.ECONNREFUSED: ("closed", "reset"),
    errno.ECONNRESET: ("closed", "reset"),
    errno.EHOSTUNREACH: ("filtered", "host-unreach"),
    errno.EHOSTDOWN: ("filtered", "host-unreach"),
    errno.ENETUNREACH: ("filtered", "net-unreach"),
    errno.ENETDOWN: ("filtered", "net-unreach"),
    errno.ENOPROTOOPT: ("filtered", "proto-unreach"),
    errno.EACCES: ("filtered", "admin-prohibited"),
    errno.EPERM: ("filtered", "admin-prohibited"),
}


class ConnectEngine:
    """See ``Engine``. ``addresses`` are of one family, a link-local one with its zone (``fe80::1%eth0``)."""

    def __init__(self, addresses: Sequence[str], most: int = MOST) -> None:
        """Raises ``ScanFailure`` when a zone is no interface of this host, or no descriptor is to be had."""
        self.patience = 1.0
        self.trouble = ""
        self._resting = False
        self._family = socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET
        self._peers = [_peer(address) for address in addresses]
        self._most = max(1, min(most, (found := descriptors(MOST)) - spared(found)))
        self._limit = self._most
        self._retry_at = 0.0
        self._now = 0.0
        self._attempts: dict[int, tuple[socket.SocketType, int, int, float]] = {}
        self._instant: list[Reply] = []
        try:
            self._epoll = select.epoll()
        except OSError as error:
            raise ScanFailure(f"ports cannot be asked: {error.strerror}") from error

    @property
    def resting(self) -> bool:
        return self._resting

    @resting.setter
    def resting(self, rests: bool) -> None:
        self._resting = rests
        if rests:  # the kernel sends each SYN again after a second
            self.forget()

    @property
    def room(self) -> int:
        if self._now < self._retry_at:
            return 0
        return max(0, self._limit - len(self._attempts))

    @property
    def waiting(self) -> int:
        return len(self._attempts)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def send(self, probes: Sequence[Probe], now: float) -> int:
        self._now = now
        for taken, (place, port) in enumerate(probes):
            if len(self._attempts) >= self._limit or not self._ask(place, port, now):
                return taken
        return len(probes)

    def _ask(self, place: int, port: int, now: float) -> bool:
        """Whether it went out, or was answered by this host's own kernel."""
        try:
            one = socket.SocketType(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise ScanFailure(f"ports cannot be asked: {error.strerror}") from error
            self._full(now)
            return False
        if self._family == socket.AF_INET:
            one.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            code = one.connect_ex((self._peers[place][0], port))
        else:
            address, scope = self._peers[place]
            one.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            code = one.connect_ex((address, port, 0, scope))
        if code == errno.EINPROGRESS:
            if self.patience > _SYNCNT_FROM:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
            fd = one.fileno()
            self._attempts[fd] = (one, place, port, now)
            self._epoll.register(fd, select.EPOLLOUT)
            return True
        if code in (errno.EADDRNOTAVAIL, errno.EAGAIN) and self._attempts:
            one.close()
            self._full(now)
            return False
        if code in NO_ROOM:
            one.close()
            self._full(now)
            return False
        self._instant.append(self._reply(one, place, port, code, 0.0))
        one.close()
        return True

    def _full(self, now: float) -> None:
        """The kernel takes no more: stay at what there is, and try again shortly."""
        self._limit = max(1, min(self._limit, len(self._attempts)) * 9 // 10)
        self._retry_at = now + 0.05

    def _reply(self, one: socket.SocketType, place: int, port: int, code: int, rtt: float) -> Reply:
        if code == 0:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            if met_itself(one):
                return Reply(place, port, "closed", "reset", 0, rtt)
            return Reply(place, port, "open", "syn-ack", 0, rtt)
        if code in (errno.EPERM, errno.EACCES):
            self.trouble = f"this host's own rules forbid connections to {self._peers[place][0]}"
        elif (reason := told(one)) is not None:
            return Reply(place, port, "filtered", reason, 0, rtt)
        state, reason = _PLAIN.get(code, ("filtered", "unreachable"))
        return Reply(place, port, state, reason, 0, rtt)

    def receive(self, now: float) -> list[Reply]:
        self._now = now
        replies, self._instant = self._instant, []
        attempts = self._attempts
        for fd, _ in self._epoll.poll(0, 512):
            one, place, port, asked = attempts.pop(fd)
            code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code != errno.ETIMEDOUT:
                replies.append(self._reply(one, place, port, code, max(1e-6, now - asked)))
            one.close()
        if len(replies) < 512:  # an answer that is there already is not given up
            old = now - self.patience
            expired: list[int] = []
            for fd, attempt in attempts.items():  # in the order in which they were sent
                if attempt[3] > old or len(expired) >= 1024:
                    break
                expired.append(fd)
            for fd in expired:
                attempts.pop(fd)[0].close()
        if self._limit < self._most and now >= self._retry_at:
            self._limit += 1
        return replies

    def forget(self) -> None:
        for attempt in self._attempts.values():
            attempt[0].close()
        self._attempts.clear()
        self._instant.clear()

    def close(self) -> None:
        self.forget()
        self._epoll.close()


def _peer(address: str) -> tuple[str, int]:
    plain, _, zone = address.partition("%")
    try:
        return plain, socket.if_nametoindex(zone) if zone else 0
    except OSError as error:
        raise ScanFailure(f"{address}: this host has no interface {zone}") from error


def spared(descriptors: int) -> int:
    """How many of so many are left to everything else: a quarter where there are few."""
    return min(SPARED, max(128, descriptors // 4))


def descriptors(most: int) -> int:
    """How many this process may have: ``most`` and those that are spared, which are asked for, or fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + SPARED
    if hard == resource.RLIM_INFINITY or hard > wanted:
        hard = wanted
    if soft != resource.RLIM_INFINITY and soft < hard:
        with suppress(OSError, ValueError):  # a sandbox may forbid it: then there are fewer
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            soft = hard
    return wanted if soft == resource.RLIM_INFINITY else soft
