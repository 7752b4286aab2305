"""The engine that asks TCP ports by SYNs of its own making, on raw sockets. Needs ``CAP_NET_RAW``, and nothing else.

The kernel routes, finds neighbours and writes the IP header; we write 24 bytes of TCP, and keep nothing of a probe
(``rawtcp``) but of some when they were sent, for the round trip. A SYN-ACK meets no connection of this host's, so its
kernel answers with a RST. That is welcome: the host that was asked forgets the half-open connection at once, and a
listener never sees it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

from agent.linux.routing import Routing
from agent.workers.scan import rawtcp
from agent.workers.scan.engine import NOWHERE, SHORTEST, Probe, Reply
from agent.workers.scan.onlink import OnLink
from agent.workers.scan.rawsockets import HOP_LIMIT_SPACE, hold_port, open_icmp, open_tcp
from agent.workers.scan.rawtcp import LONGEST_ANSWER, SYN_LENGTH, Answer, Key
from agent.workers.scan.unreachable import ip_header, quoted, quoted6

ROOM: Final = 1024
"""Most probes that are taken at once."""

MOST_READ: Final = 4096
"""Most packets that are read at once, so that nobody who floods us holds up the loop."""

_WAYS = 65_536  # remembered, of some 500 bytes each; they can be found again at any time
_FLUSHED = 256  # probes that have waited for their neighbour, and are sent at once
_PATIENCE = 1.0
_TIMED = 4096
"""Probes of which it is noted when they were sent: all while they are answered, few among many that are not."""


_Kept = TypeVar("_Kept", socket.socket, Routing)


class _Way(NamedTuple):
    """How a place is asked. ``interface`` is that of a host on our own link, and 0 of any other."""

    key: Key
    end: tuple[Any, ...]
    packed: bytes
    interface: int


class SynEngine:
    """Asks the ports of the addresses of one chunk: all of one family, and of one zone."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Raises ``OSError``: ``PermissionError`` without ``CAP_NET_RAW``, others when sockets are not to be had."""
        self.patience = _PATIENCE
        self.trouble = ""
        self.resting = False
        plain, _, self._zone = addresses[0].partition("%")
        self._six = ":" in plain
        self._scope = socket.if_nametoindex(self._zone) if self._zone else 0
        self._addresses = addresses
        self._places: dict[bytes, int] = {}  # of those that were asked
        self._ways: dict[int, _Way | str] = {}
        self._secret = os.urandom(32)
        self._link = OnLink()
        self._interfaces: dict[int, bool] = {}  # by whether the kernel looks for neighbours there
        self._unknown: set[int] = set()  # places on our link of which the kernel knows no neighbour
        self._ready: deque[Probe] = deque()  # have waited for their neighbour, and may go
        self._timed: dict[Probe, float] = {}
        self._replies: list[Reply] = []
        self._syn = bytearray(SYN_LENGTH)
        self._read = bytearray(LONGEST_ANSWER)
        self._seen = memoryview(self._read)
        self._open: list[socket.socket | Routing] = []
        self._poll = select.epoll()
        self._due = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # readable while there are ``_replies``
        try:
            self._routing = self._keep(Routing())
            held, self.source_port = hold_port(six=self._six)
            self._keep(held)
            self._tcp = self._keep(open_tcp(self.source_port, self._zone, six=self._six))
            self._icmp = self._keep(open_icmp(self.source_port, self._zone, six=self._six))
            for fd in (self._due, self._routing.fd, self._tcp.fileno(), self._icmp.fileno()):
                self._poll.register(fd, select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    @property
    def room(self) -> int:
        return 0 if self._ready else ROOM

    @property
    def waiting(self) -> int:
        """What waits for its neighbour to be found; no other attempt is held."""
        return self._link.held + len(self._ready)

    def send(self, probes: Sequence[Probe], now: float) -> int:
        """As ``Engine`` says. A probe that this host's own firewall refuses is taken, and told of as ``trouble``."""
        for taken, (place, port) in enumerate(probes):
            way = self._ways.get(place) or self._way(place)
            if isinstance(way, str):
                self._at_once(Reply(place, port, "filtered", way))
                continue
            if place in self._unknown:
                match self._link.ask(place, port, now):
                    case "held":
                        continue
                    case "absent":
                        self._at_once(Reply(place, port, "filtered", "host-unreach"))
                        continue
                    case "full":
                        return taken
            if not self._send(way, place, port, now):
                return taken
        return len(probes)

    def receive(self, now: float) -> list[Reply]:
        self._neighbours(now)
        replies, self._replies = self._replies, []
        if replies:
            os.eventfd_read(self._due)
        (self._receive6 if self._six else self._receive4)(replies, now)
        return replies

    def fileno(self) -> int:
        return self._poll.fileno()

    def forget(self) -> None:
        self._timed.clear()
        self._ready.clear()
        self._link.forget()

    def close(self) -> None:
        if not self._poll.closed:
            os.close(self._due)
        self._poll.close()
        for each in self._open:
            each.close()

    def _keep(self, one: _Kept) -> _Kept:
        self._open.append(one)
        return one

    def _at_once(self, reply: Reply) -> None:
        if not self._replies:
            os.eventfd_write(self._due, 1)
        self._replies.append(reply)

    def _send(self, way: _Way, place: int, port: int, now: float) -> bool:
        """Whether a probe is done with: it went out, or nothing goes there."""
        rawtcp.put_syn(self._syn, way.key, self.source_port, port)
        try:
            self._tcp.sendto(self._syn, way.end)
        except OSError as error:
            return self._refused(error, place, port)
        timed = self._timed
        if len(timed) >= _TIMED and timed[oldest := next(iter(timed))] < now - self.patience:
            del timed[oldest]
        if len(timed) < _TIMED or (place, port) in timed:
            timed[place, port] = now
        return True

    def _refused(self, error: OSError, place: int, port: int) -> bool:
        if error.errno in (errno.EAGAIN, errno.ENOBUFS):
            if error.errno == errno.ENOBUFS:
                self.trouble = "this host has no room for more packets or neighbours (gc_thresh3 of arp(7))"
            return False
        if error.errno == errno.EPERM:
            self.trouble = "the firewall of this host does not let probes out"
        elif (reason := NOWHERE.get(error.errno or 0)) is not None:
            self._at_once(Reply(place, port, "filtered", reason))
        else:
            self.trouble = f"this host cannot send to {self._addresses[place]}: {error.strerror}"
        return True

    def _way(self, place: int) -> _Way | str:
        """How a place is asked; or the reason why nothing goes there."""
        if len(self._ways) >= _WAYS:
            self._ways.clear()
        plain = self._addresses[place].partition("%")[0]
        packed = socket.inet_pton(socket.AF_INET6 if self._six else socket.AF_INET, plain)
        self._places[packed] = place
        made: _Way | str
        try:
            interface, source, direct = self._routing.route(packed, self._scope)
        except OSError as error:
            made = NOWHERE.get(error.errno or 0, "net-unreach")
        else:
            base = 0 if self._six else rawtcp.checksum_base(source, packed, self.source_port)
            end = (plain, 0, 0, self._scope) if self._six else (plain, 0)
            found = direct and self._looks(interface)
            made = _Way(rawtcp.make_key(self._secret, packed, base), end, packed, interface if found else 0)
            if found and not self._routing.known(packed, interface):
                self._unknown.add(place)
        self._ways[place] = made
        return made

    def _looks(self, interface: int) -> bool:
        if interface not in self._interfaces:
            self._interfaces[interface] = self._routing.looks(interface)
        return self._interfaces[interface]

    def _neighbours(self, now: float) -> None:
        """Take in what became of neighbours that the kernel has looked for, and send what has waited for them."""
        for packed, interface, there in self._routing.heed():
            self._decided(packed, interface, now, there=there)
        for place in self._link.late(now):
            way = self._ways.get(place) or self._way(place)
            if isinstance(way, _Way):  # what the kernel cannot tell even now, is left to it
                there = self._routing.known(way.packed, way.interface) is not False
                self._decided(way.packed, way.interface, now, there=there)
        for _ in range(0 if self.resting else min(_FLUSHED, len(self._ready))):
            place, port = self._ready.popleft()
            way = self._ways.get(place) or self._way(place)
            if isinstance(way, _Way) and not self._send(way, place, port, now):
                self._ready.appendleft((place, port))
                return

    def _decided(self, packed: bytes, interface: int, now: float, *, there: bool) -> None:
        place = self._places.get(packed)
        if place is None or not isinstance(way := self._ways.get(place), _Way) or way.interface != interface:
            return
        waited = self._link.decided(place, now, there=there)
        if there:
            self._unknown.discard(place)
            self._ready.extend((place, port) for port in waited)
            return
        self._unknown.add(place)
        for port in waited:
            self._at_once(Reply(place, port, "filtered", "host-unreach"))

    def _receive4(self, replies: list[Reply], now: float) -> None:
        packet, find, read_into = self._seen, self._places.get, self._tcp.recv_into
        for _ in range(MOST_READ):
            try:
                length = read_into(self._read)
            except BlockingIOError:
                break
            at = ip_header(packet, 0, length)
            place = find(bytes(packet[12:16]))
            if at and place is not None and isinstance(way := self._ways.get(place) or self._way(place), _Way):
                answer = rawtcp.read(packet, at, length, way.key, self.source_port)
                if answer is not None:
                    replies.append(self._reply(place, answer, packet[8], now))
        for _ in range(MOST_READ):
            try:
                length = self._icmp.recv_into(self._read)
            except BlockingIOError:
                break
            self._quoted(replies, quoted(packet, length, socket.IPPROTO_TCP), length, packet[8], now)

    def _receive6(self, replies: list[Reply], now: float) -> None:
        for _ in range(MOST_READ):
            try:
                length, controls, _flags, end = self._tcp.recvmsg_into([self._read], HOP_LIMIT_SPACE)
            except BlockingIOError:
                break
            place = self._places.get(socket.inet_pton(socket.AF_INET6, end[0].partition("%")[0]))
            if place is not None and isinstance(way := self._ways.get(place) or self._way(place), _Way):
                answer = rawtcp.read(self._seen, 0, length, way.key, self.source_port)
                if answer is not None:
                    limit = int.from_bytes(controls[0][2][:1], "little") if controls else 0
                    replies.append(self._reply(place, answer, limit, now))
        for _ in range(MOST_READ):
            try:
                length = self._icmp.recv_into(self._read)
            except BlockingIOError:
                break
            self._quoted(replies, quoted6(self._seen, length, socket.IPPROTO_TCP), length, 0, now)

    def _quoted(
        self, replies: list[Reply], found: tuple[str, bytes, int] | None, length: int, ttl: int, now: float
    ) -> None:
        if found is None:
            return
        reason, asked, at = found
        place = self._places.get(asked)
        if place is None or not isinstance(way := self._ways.get(place) or self._way(place), _Way):
            return
        answer = rawtcp.read_quoted(self._seen, at, length, way.key, self.source_port, reason)
        if answer is not None:
            replies.append(self._reply(place, answer, ttl, now))

    def _reply(self, place: int, answer: Answer, ttl: int, now: float) -> Reply:
        sent = self._timed.pop((place, answer.port), None)
        rtt = 0.0 if sent is None else max(SHORTEST, now - sent)
        return Reply(place, answer.port, answer.state, answer.reason, ttl, rtt)
