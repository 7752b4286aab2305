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
import struct
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from agent.workers.capture.socket_filter import attach
from agent.workers.scan import rawtcp, synfilter
from agent.workers.scan.engine import Probe, Reply
from agent.workers.scan.rawtcp import CHECKSUM_OFFSET, LONGEST_ANSWER, SYN_LENGTH, Answer, Key
from agent.workers.scan.unreachable import TYPES, TYPES6, ip_header, quoted, quoted6

ROOM: Final = 1024
"""Most probes that are taken at once."""

MOST_READ: Final = 4096
"""Most packets that are read at once, so that nobody who floods us holds up the loop."""

BUFFER: Final = 8 * 1024 * 1024
"""Bytes asked for as receive buffer; without ``CAP_NET_ADMIN`` the kernel gives net.core.rmem_max at most."""

_KEYS = 65_536  # remembered, of 200 bytes each; they can be made again at any time
_PATIENCE = 1.0
_SHORTEST = 1e-6  # seconds: 0 means unknown
_TIMED = 4096
"""Probes of which it is noted when they were sent: all while they are answered, few among many that are not."""

# asm-generic/socket.h, linux/in6.h, linux/icmp.h and linux/icmpv6.h, which Python does not name.
_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8  # SK_MEMINFO_DROPS of linux/sock_diag.h
_IPV6_CHECKSUM = 7
_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER = 255, 1, 1
_HOP_LIMIT_SPACE = socket.CMSG_SPACE(4)

_NOWHERE: Final[dict[int, str]] = {
    errno.ENETUNREACH: "net-unreach",
    errno.EHOSTUNREACH: "host-unreach",
    errno.EACCES: "admin-prohibited",  # a route of the kind `prohibit`, ip-route(8)
    errno.EINVAL: "net-unreach",  # a route of the kind `blackhole`
    errno.EADDRNOTAVAIL: "net-unreach",  # no address of this family to send from
}
"""What the kernel says at once of an address to which nothing goes."""


class SynEngine:
    """Asks the ports of the addresses of one chunk: all of one family, and of one zone."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Raises ``OSError``: ``PermissionError`` without ``CAP_NET_RAW``, others when sockets are not to be had."""
        self.patience = _PATIENCE  # nothing is held here that could be given up
        self.trouble = ""
        plain, _, self._zone = addresses[0].partition("%")
        self._six = ":" in plain
        self._scope = socket.if_nametoindex(self._zone) if self._zone else 0
        self._addresses = addresses
        self._packed = {ip_address(each.partition("%")[0]).packed: place for place, each in enumerate(addresses)}
        self._secret = os.urandom(32)
        self._keys: dict[int, Key | str] = {}
        self._timed: dict[Probe, float] = {}
        self._replies: list[Reply] = []
        self._syn = bytearray(SYN_LENGTH)
        self._read = bytearray(LONGEST_ANSWER)
        self._seen = memoryview(self._read)
        self._sockets: list[socket.socket] = []
        self._poll = select.epoll()
        self._due = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # readable while there are ``_replies``
        self._poll.register(self._due, select.EPOLLIN)
        try:
            self.source_port = self._reserve()
            self._raw, self._icmp = self._open6() if self._six else self._open4()
        except BaseException:
            self.close()
            raise

    @property
    def room(self) -> int:
        return ROOM

    @property
    def waiting(self) -> int:
        return 0

    @property
    def lost(self) -> int:
        """How many answers there was no room for in the receive buffers so far; they were never read."""
        told = (each.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size) for each in (self._raw, self._icmp))
        return sum(_MEMINFO.unpack(each)[_MEMINFO_DROPS] for each in told)

    def send(self, probes: Sequence[Probe], now: float) -> int:
        """As ``Engine`` says. A probe that this host's own firewall refuses is taken, and told of as ``trouble``."""
        buffer, source_port, put, sendto = self._syn, self.source_port, rawtcp.put_syn, self._raw.sendto
        timed, latest = self._timed, now - self.patience
        for taken, (place, port) in enumerate(probes):
            key = self._keys.get(place) or self._key(place)
            if isinstance(key, str):
                self._at_once(Reply(place, port, "filtered", key))
                continue
            put(buffer, key, source_port, port)
            end = (self._addresses[place], 0) if not self._six else (self._addresses[place], 0, 0, self._scope)
            try:
                sendto(buffer, end)
            except OSError as error:
                if not self._refused(error, place, port):
                    return taken
                continue
            if len(timed) >= _TIMED and timed[oldest := next(iter(timed))] < latest:
                del timed[oldest]
            if (place, port) in timed or len(timed) < _TIMED:
                timed[place, port] = now
        return len(probes)

    def receive(self, now: float) -> list[Reply]:
        replies, self._replies = self._replies, []
        if replies:
            os.eventfd_read(self._due)
        (self._receive6 if self._six else self._receive4)(replies, now)
        return replies

    def fileno(self) -> int:
        return self._poll.fileno()

    def forget(self) -> None:
        self._timed.clear()

    def close(self) -> None:
        if not self._poll.closed:
            os.close(self._due)
        self._poll.close()
        for each in self._sockets:
            each.close()

    def _at_once(self, reply: Reply) -> None:
        if not self._replies:
            os.eventfd_write(self._due, 1)
        self._replies.append(reply)

    def _reserve(self) -> int:
        """A port that is ours as long as we live: bound, and so given to nobody else, but nothing listens there."""
        family = socket.AF_INET6 if self._six else socket.AF_INET
        held = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(held)
        held.bind(("", 0))
        return int(held.getsockname()[1])

    def _open4(self) -> tuple[socket.socket, socket.socket]:
        raw = self._open(socket.AF_INET, socket.IPPROTO_TCP, synfilter.answers(self.source_port))
        quoting = synfilter.errors(socket.IPPROTO_TCP, self.source_port)
        icmp = self._open(socket.AF_INET, socket.IPPROTO_ICMP, quoting)
        icmp.setsockopt(_SOL_RAW, _ICMP_FILTER, _all_but(TYPES, 1))
        return raw, icmp

    def _open6(self) -> tuple[socket.socket, socket.socket]:
        raw = self._open(socket.AF_INET6, socket.IPPROTO_TCP, synfilter.answers6(self.source_port))
        raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, CHECKSUM_OFFSET)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        quoting = synfilter.errors6(socket.IPPROTO_TCP, self.source_port)
        icmp = self._open(socket.AF_INET6, socket.IPPROTO_ICMPV6, quoting)
        icmp.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _all_but(TYPES6, 8))
        return raw, icmp

    def _open(self, family: int, protocol: int, program: bytes) -> socket.socket:
        made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        self._sockets.append(made)
        attach(made, program)
        if self._zone:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._zone.encode())
        try:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        with suppress(BlockingIOError):  # what came before the filter was there
            while made.recv_into(self._read):
                pass
        self._poll.register(made, select.EPOLLIN)
        return made

    def _key(self, place: int) -> Key | str:
        """The key of an address; or the reason why nothing goes there."""
        if len(self._keys) >= _KEYS:
            self._keys.clear()
        packed = ip_address(self._addresses[place].partition("%")[0]).packed
        made: Key | str
        if self._six:
            made = rawtcp.make_key(self._secret, packed)  # the kernel makes the checksum
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:  # sends nothing: from where it would
                try:
                    asking.connect((self._addresses[place], 9))
                    source = socket.inet_aton(asking.getsockname()[0])
                except OSError as error:
                    made = _NOWHERE.get(error.errno or 0, "net-unreach")
                else:
                    made = rawtcp.make_key(self._secret, packed, rawtcp.checksum_base(source, packed, self.source_port))
        self._keys[place] = made
        return made

    def _refused(self, error: OSError, place: int, port: int) -> bool:
        """Whether a probe that did not go out is done with all the same."""
        if error.errno in (errno.EAGAIN, errno.ENOBUFS):
            if error.errno == errno.ENOBUFS:
                self.trouble = (
                    "this host has no room for more packets or neighbours (net.ipv4.neigh.default.gc_thresh3)"
                )
            return False
        if error.errno == errno.EPERM:
            self.trouble = "the firewall of this host does not let probes out"
            return True
        reason = _NOWHERE.get(error.errno or 0)
        if reason is None:
            self.trouble = f"this host cannot send to {self._addresses[place]}: {error.strerror}"
        else:
            self._at_once(Reply(place, port, "filtered", reason))
        return True

    def _receive4(self, replies: list[Reply], now: float) -> None:
        packet, find, read_into = self._seen, self._packed.get, self._raw.recv_into
        for _ in range(MOST_READ):
            try:
                length = read_into(self._read)
            except BlockingIOError:
                break
            at = ip_header(packet, 0, length)
            place = find(bytes(packet[12:16]))
            if at and place is not None and isinstance(key := self._keys.get(place) or self._key(place), Key):
                answer = rawtcp.read(packet, at, length, key, self.source_port)
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
                length, controls, _flags, end = self._raw.recvmsg_into([self._read], _HOP_LIMIT_SPACE)
            except BlockingIOError:
                break
            place = self._packed.get(socket.inet_pton(socket.AF_INET6, end[0].partition("%")[0]))
            if place is not None and isinstance(key := self._keys.get(place) or self._key(place), Key):
                answer = rawtcp.read(self._seen, 0, length, key, self.source_port)
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
        place = self._packed.get(asked)
        if place is None or not isinstance(key := self._keys.get(place) or self._key(place), Key):
            return
        answer = rawtcp.read_quoted(self._seen, at, length, key, self.source_port, reason)
        if answer is not None:
            replies.append(self._reply(place, answer, ttl, now))

    def _reply(self, place: int, answer: Answer, ttl: int, now: float) -> Reply:
        sent = self._timed.pop((place, answer.port), None)
        rtt = 0.0 if sent is None else max(_SHORTEST, now - sent)
        return Reply(place, answer.port, answer.state, answer.reason, ttl, rtt)


def _all_but(types: Sequence[int], words: int) -> bytes:
    """``struct icmp_filter`` or ``struct icmp6_filter``, of so many words: a bit for each type that is not wanted."""
    return struct.pack(f"={words}I", sum(1 << kind for kind in types) ^ 0xFFFFFFFF, *[0xFFFFFFFF] * (words - 1))
