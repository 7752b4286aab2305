"""The sockets of this host that take what strangers send, with whoever holds them.

Those of our own network namespace, and those of the others on this host that have addresses of their own, as containers
do (``agent.linux.net_spaces``). Without privilege the processes of other users are not to be seen: the kernel tells the
user and the cgroup even so, and by that the unit and the container (``agent.linux.sock_diag``).
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from agent.errors import RuntimeFailure
from agent.linux import net_spaces, sock_diag
from agent.linux.cgroup_owner import NOBODY, Owner, owner_of, paths_of
from agent.linux.cgroup_place import parse_membership
from agent.linux.files import why
from agent.linux.net_spaces import Space
from agent.linux.printable import name_of, proc_text
from agent.linux.sock_diag import Bound

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  # compared with, and bound to nothing

MOST_PROCESSES = 16
"""Of one socket; servers that fork share one among hundreds."""

_EPHEMERAL = (32768, 60999)  # ip(7), ip_local_port_range, as the kernel has it by default


class Process(NamedTuple):
    """``started`` is unix seconds, ``name`` the kernel's, of at most 15 bytes, printable."""

    pid: int
    name: str
    started: float


@dataclass(frozen=True, slots=True)
class Listener:
    """One address and port where something listens. ``address`` may be a wildcard; ``dual``: also for IPv4.

    ``processes`` is empty where they cannot be seen; ``uid`` is -1, and ``owner`` empty, where nobody tells.
    ``space`` names the network namespace, if it is not our own, by its container or number, and ``addresses`` are those
    that it has.
    """

    protocol: str
    address: str
    port: int
    dual: bool = False
    interface: str = ""
    uid: int = -1
    owner: Owner = NOBODY
    processes: tuple[Process, ...] = ()
    space: str = ""
    addresses: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, str, int]:
        """Protocol, address and port, of which there is one at a time; an address elsewhere has its place with it."""
        return self.protocol, f"{self.address} in {self.space}" if self.space else self.address, self.port

    @property
    def wildcard(self) -> bool:
        return self.address in WILDCARDS

    @property
    def loopback(self) -> bool:
        """Whether nobody but this host reaches it."""
        return ipaddress.ip_address(self.address).is_loopback or self.interface == "lo"

    def takes(self, address: str) -> bool:
        """Whether what is sent to this address of ours, or of the namespace that it is in, comes to it."""
        if self.space and address not in self.addresses:
            return False
        if not self.wildcard:
            return self.address == address
        return self.dual or (":" in address) == (self.address == "::")

    @property
    def since(self) -> float:
        """When the oldest process that holds it began, unix seconds; 0 when none is seen."""
        return min((process.started for process in self.processes), default=0.0)


def listeners() -> list[Listener]:
    """What listens on this host: TCP, and UDP but for the ports of clients. Sorted. Raises ``RuntimeFailure``."""
    try:
        spaces = net_spaces.spaces(psutil.pids())
        elsewhere = {space: _wanted(net_spaces.bound_in(space, len(spaces))) for space in spaces}
        try:
            here = _wanted(sock_diag.bound())
        except OSError:  # a kernel without inet_diag, or a sandbox that forbids it
            here = None
        _owner_of.cache_clear()
        held = _holders({one.inode for bound in (*elsewhere.values(), here or ()) for one in bound if one.inode})
        found = _by_psutil() if here is None else _gathered(here, held)
        return found + [one for space, bound in elsewhere.items() for one in _within(space, bound, held)]
    except (OSError, psutil.Error) as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        raise RuntimeFailure(f"the sockets of this host cannot be listed: {reason}") from error


def _wanted(bound: Iterable[Bound]) -> list[Bound]:
    low, high = ephemeral()
    return [one for one in bound if one.protocol == "tcp" or not low <= one.port <= high]


def _gathered(wanted: list[Bound], held: dict[int, list[Process]]) -> list[Listener]:
    unseen = {one.cgroup for one in wanted if one.cgroup and not held.get(one.inode)}
    paths = paths_of(unseen) if unseen else {}
    merged: dict[tuple[str, str, int, int], Listener] = {}
    for one in wanted:
        processes = held.get(one.inode, [])
        owner = _owner(processes) if processes else owner_of(paths.get(one.cgroup, ""))
        found = Listener(
            one.protocol,
            one.address,
            one.port,
            one.dual,
            _interface(one.interface),
            one.uid,
            owner,
            tuple(processes[:MOST_PROCESSES]),
        )
        _merge(merged, (one.protocol, one.address, one.port, one.interface), found)
    return sorted(merged.values(), key=_order)


def _within(space: Space, bound: Iterable[Bound], held: dict[int, list[Process]]) -> list[Listener]:
    """What listens in another network namespace, at addresses by which others reach it."""
    whose = _owner_of(space.pid)
    name = whose.container or f"net:[{space.number}]"
    merged: dict[tuple[str, str, int, int], Listener] = {}
    for one in bound:
        if one.address not in WILDCARDS and one.address not in space.addresses:
            continue
        processes = held.get(one.inode, [])
        found = Listener(
            *(one.protocol, one.address, one.port, one.dual, "", one.uid),
            *(_owner(processes) if processes else whose, tuple(processes[:MOST_PROCESSES])),
            *(name, space.addresses),
        )
        _merge(merged, (one.protocol, one.address, one.port, 0), found)
    return sorted(merged.values(), key=_order)


def _by_psutil() -> list[Listener]:
    """The same without cgroups of those who are not seen, nor which IPv6 wildcards take IPv4: taken to, as most do."""
    low, high = ephemeral()
    merged: dict[tuple[str, str, int, int], Listener] = {}
    for one in psutil.net_connections("inet"):
        protocol = "tcp" if one.type == socket.SOCK_STREAM else "udp"
        listens = one.status == psutil.CONN_LISTEN if protocol == "tcp" else not one.raddr
        if not listens or not one.laddr or (protocol == "udp" and low <= one.laddr.port <= high):
            continue
        processes = [known] if one.pid and (known := _process(one.pid)) else []
        address = one.laddr.ip.partition("%")[0]
        found = Listener(
            *(protocol, address, one.laddr.port, address == "::"),
            owner=_owner(processes),
            processes=tuple(processes),
        )
        _merge(merged, (protocol, address, one.laddr.port, 0), found)
    return sorted(merged.values(), key=_order)


def _merge(merged: dict[tuple[str, str, int, int], Listener], key: tuple[str, str, int, int], found: Listener) -> None:
    """Sockets that share an address and port (SO_REUSEPORT) are one listener."""
    before = merged.get(key)
    if before is None:
        merged[key] = found
        return
    processes = tuple(sorted({*before.processes, *found.processes}))[:MOST_PROCESSES]
    owner = before.owner if any(before.owner) else found.owner
    merged[key] = Listener(
        *(found.protocol, found.address, found.port, before.dual or found.dual, found.interface),
        *(before.uid, owner, processes, before.space, before.addresses),
    )


def _order(one: Listener) -> tuple[str, int, str, str]:
    return one.protocol, one.port, one.address, one.interface


def ephemeral() -> tuple[int, int]:
    """The ports that the kernel gives to clients: an unconnected UDP socket on one of these is most likely a client."""
    with suppress(OSError, ValueError):
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(low), int(high)
    return _EPHEMERAL


def _interface(index: int) -> str:
    with suppress(OSError):
        return name_of(socket.if_indextoname(index)) if index else ""
    return ""


def _holders(inodes: set[int]) -> dict[int, list[Process]]:
    """Who holds these sockets, as far as that can be seen, the oldest first; systemd, which keeps sockets for others,
    only where it is the only one.
    """
    pids: dict[int, set[int]] = {}
    for pid in psutil.pids():
        for inode in _sockets(pid):
            if inode in inodes:
                pids.setdefault(inode, set()).add(pid)
    known = {pid: _process(pid) for pid in set().union(*pids.values())}
    held: dict[int, list[Process]] = {}
    for inode, found in pids.items():
        others = found - {1} or found
        held[inode] = sorted(filter(None, (known[pid] for pid in others)), key=lambda one: (one.started, one.pid))
    return held


def _sockets(pid: int) -> Iterator[int]:
    """The inodes of the sockets of a process, proc_pid_fd(5); none of one that is gone or not ours to look at."""
    directory = Path(f"/proc/{pid}/fd")
    try:
        links = list(directory.iterdir())
    except OSError:
        return
    for link in links:
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(target[8:-1])


def _process(pid: int) -> Process | None:
    try:
        # psutil's name() asks for the command line too, which is the process's own memory: it may say anything, and
        # whoever reads it may be kept waiting for as long as its owner likes.
        name = name_of(proc_text(Path(f"/proc/{pid}/comm")).removesuffix("\n"))
        return Process(pid, name, psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return None


def _owner(processes: Iterable[Process]) -> Owner:
    """Whose the first of these processes is whose cgroup says so."""
    for process in processes:
        if any(found := _owner_of(process.pid)):
            return found
    return NOBODY


@functools.cache  # as long as one list is made: hundreds of sockets may be those of one process
def _owner_of(pid: int) -> Owner:
    with suppress(OSError):
        return owner_of(_path(proc_text(Path(f"/proc/{pid}/cgroup"))))
    return NOBODY


def _path(membership: str) -> str:
    """The cgroup in the text of /proc/PID/cgroup: of version 2, or else, where both are mounted, systemd's own."""
    path = parse_membership(membership) or "/"
    if path == "/":
        for line in membership.split("\n"):
            _, _, rest = line.partition(":")
            if rest.startswith("name=systemd:/"):
                return rest.partition(":")[2]
    return path
