"""The other network namespaces of this host, and what waits for strangers in them: network_namespaces(7), proc(5).

The files in /proc/PID/net show the namespace of that process to anybody who may see the process at all, so no entering
and no privilege is needed. Who made the namespace chooses what is in them: what is read of each is bounded, and of all
together, in equal shares: so many that one makes do not hide what is in another's. One in which no process is, or none
that may be seen (``hidepid``, ``ProtectProc=``), is not found.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from agent.linux.sock_diag import Bound

MOST_SPACES: Final = 256
MOST_BYTES: Final = 8 << 20
"""Of one file of a namespace: some 50,000 sockets. What is beyond is not looked at."""

MOST_BYTES_OF_ALL: Final = 128 << 20
"""Of the tables of sockets of all namespaces, each of which has the same share: 128 KiB of each table, some 800
sockets, where there are 256. The kernel lists those of TCP that listen first."""

MOST_OF_ALL: Final = 65_536
"""Sockets that are kept, of all namespaces: of each the same share, 256 and more."""

MOST_ADDRESSES: Final = 1024
"""Of one namespace."""

_LISTEN, _CLOSE = "0A", "07"  # TCP_LISTEN and TCP_CLOSE, net/tcp_states.h; of UDP the latter has no peer
_LEAF = re.compile(r"\|-- (\d{1,3}(?:\.\d{1,3}){3})$", re.ASCII)
_TABLES: Final = (
    ("tcp", socket.AF_INET, "tcp", _LISTEN),
    ("tcp", socket.AF_INET6, "tcp6", _LISTEN),
    ("udp", socket.AF_INET, "udp", _CLOSE),
    ("udp", socket.AF_INET6, "udp6", _CLOSE),
)


class Space(NamedTuple):
    """A network namespace: ``number`` tells one from another, ``pid`` is the oldest process seen in it.

    ``addresses`` are those by which others may reach it: neither loopback nor of one link.
    """

    number: int
    pid: int
    addresses: frozenset[str]


def spaces(pids: Iterable[int]) -> list[Space]:
    """The namespaces of these processes but for our own, each once; those without an address are left out."""
    own = _number("self")
    found: dict[int, int] = {}
    for pid in sorted(pids):
        number = _number(pid)
        if number not in (0, own) and number not in found and len(found) < MOST_SPACES:
            found[number] = pid
    made = (Space(number, pid, _addresses(pid)) for number, pid in found.items())
    return [one for one in made if one.addresses]


def bound_in(space: Space, of: int = 1) -> list[Bound]:
    """As ``sock_diag.bound``, for one ``of`` so many namespaces; an IPv6 wildcard is taken to be for IPv4 too, as most
    are. Nothing when it has gone.
    """
    found: list[Bound] = []
    limit, most = min(MOST_BYTES, MOST_BYTES_OF_ALL // (len(_TABLES) * of)), MOST_OF_ALL // of
    for number, (protocol, family, name, state) in enumerate(_TABLES, 1):
        share = most * number // len(_TABLES) - len(found)  # what the one leaves over is the next one's
        with suppress(OSError):
            table = _read(space.pid, name, space.number, limit)
            found += islice(sockets(table, protocol, family, state), share)
    return found


def sockets(table: str, protocol: str, family: int, state: str) -> Iterator[Bound]:
    """Those in this ``state`` and without a peer, of the text of /proc/net/tcp and its like. Lines that are no such are
    left out.
    """
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != state:
            continue
        with suppress(ValueError):
            address, port = _place(fields[1], family)
            if port and not _place(fields[2], family)[1]:
                dual = family == socket.AF_INET6 and address == "::"
                yield Bound(protocol, family, address, port, int(fields[7]), int(fields[9]), 0, dual, 0)


def local_addresses(trie: str, inet6: str) -> frozenset[str]:
    """The addresses in the texts of /proc/net/fib_trie and /proc/net/if_inet6 by which others may reach it."""
    found: set[str] = set()
    leaf = ""
    for line in trie.splitlines():
        if match := _LEAF.search(line):
            leaf = match[1]
        elif leaf and line.strip() == "/32 host LOCAL":
            with suppress(ValueError):
                if not IPv4Address(leaf).is_loopback:
                    found.add(leaf)
    for line in inet6.splitlines():
        with suppress(ValueError):
            address = IPv6Address(int(line.split(" ", 1)[0], 16))
            if not address.is_loopback and not address.is_link_local:
                found.add(str(address))
        if len(found) >= MOST_ADDRESSES:
            break
    return frozenset(sorted(found)[:MOST_ADDRESSES])


def _addresses(pid: int) -> frozenset[str]:
    with suppress(OSError):
        return local_addresses(_read(pid, "fib_trie"), _read(pid, "if_inet6"))
    return frozenset()


def _number(pid: int | str) -> int:
    """The kernel makes these files for each namespace anew, so their inodes tell which one it is; 0 when unknown.

    /proc/PID/ns/net, which says so in as many words, is for those alone who may trace the process.
    """
    with suppress(OSError):
        return Path(f"/proc/{pid}/net/tcp").stat().st_ino
    return 0


def _read(pid: int, name: str, number: int = 0, limit: int = MOST_BYTES) -> str:
    """The beginning of a file; nothing if the process is another one by now, in another namespace than that."""
    with Path(f"/proc/{pid}/net/{name}").open("rb") as file:
        if number and _number(pid) != number:
            return ""
        return file.read(limit).decode("ascii", "replace")


def _place(text: str, family: int) -> tuple[str, int]:
    """``0100007F:1F90``: words of 32 bits in the byte order of the host, and a port. Raises ``ValueError``."""
    words, _, port = text.partition(":")
    raw = bytes.fromhex(words)
    if len(raw) != (4 if family == socket.AF_INET else 16):
        raise ValueError(text)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    if not 0 <= (number := int(port, 16)) < 65536:
        raise ValueError(text)
    return socket.inet_ntop(family, raw), number
