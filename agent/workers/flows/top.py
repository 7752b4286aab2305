"""The most of something: flows added up by host, pair of hosts, service port or protocol.

A packet that two interfaces saw is in both. By ``host`` and ``pair`` only IP counts, by ``port`` only what has ports.

**Which port is the service's** (of TCP, UDP, SCTP, DCCP and UDP-Lite):

1. that of who answered a SYN with SYN and ACK
2. that of an address and port which did so in any other flow of the same range: for flows that began before it
3. else the lower one
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from agent.workers.flows import words
from agent.workers.flows.fold import MOST, Fold
from agent.workers.flows.table import Table, groups
from agent.workers.index.model import ARP, IPV4, IPV6, LATER_FRAGMENT, SYN_ACK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.workers.flows.table import U8

    Mask = NDArray[np.bool_]

By = Literal["host", "pair", "port", "proto", "flow"]
Sort = Literal["bytes", "packets", "flows"]

BY: tuple[By, ...] = get_args(By)
SORT: tuple[Sort, ...] = get_args(Sort)

OCTETS, PACKETS, OCTETS_OUT, PACKETS_OUT, FLOWS = range(5)
"""Columns of ``Sums.sums``."""

_SORTED_BY: dict[Sort, int] = {"bytes": OCTETS, "packets": PACKETS, "flows": FLOWS}


@dataclass(frozen=True, slots=True)
class Sums:
    """``key``: what the group is, shape (n, some). ``sums``: shape (n, 5); *out* is from the host, from the first of a
    pair, or from the service."""

    key: U8
    sums: U8

    def __len__(self) -> int:
        return len(self.key)


def shares(by: By, flows: Table) -> Sums:
    """What each flow adds to which group, not added up yet."""
    match by:
        case "host":
            return _by_host(flows)
        case "pair":
            return _by_pair(flows)
        case "port":
            return _by_port(flows)
        case "proto":
            return _by_protocol(flows)
        case "flow":
            return Sums(flows.key, _sums(flows, np.ones(len(flows), bool)))


def added_up(parts: Sums) -> Sums:
    """One row for each group."""
    order, starts = groups(parts.key)
    if not len(starts):
        return parts
    return Sums(parts.key[order[starts]], np.add.reduceat(parts.sums[order], starts, axis=0))


def _sums(flows: Table, out: Mask) -> U8:
    sums = np.empty((len(flows), 5), np.uint64)
    sums[:, OCTETS], sums[:, PACKETS], sums[:, FLOWS] = flows.octets, flows.packets, 1
    sums[:, OCTETS_OUT] = np.where(out, flows.octets, 0)
    sums[:, PACKETS_OUT] = np.where(out, flows.packets, 0)
    return sums


def _ip(flows: Table) -> Table:
    return flows[(flows.family == IPV4) | (flows.family == IPV6)]


def _by_host(flows: Table) -> Sums:
    flows = _ip(flows)
    family = flows.family[:, None]
    out = Sums(np.hstack([family, flows.source]), _sums(flows, np.ones(len(flows), bool)))
    back = Sums(np.hstack([family, flows.destination]), _sums(flows, np.zeros(len(flows), bool)))
    back.sums[(out.key == back.key).all(axis=1), FLOWS] = 0  # of a host with itself: one flow
    return Sums(np.vstack([out.key, back.key]), np.vstack([out.sums, back.sums]))


def _by_pair(flows: Table) -> Sums:
    flows = _ip(flows)
    forth = _ascending(flows)
    low = np.where(forth[:, None], flows.source, flows.destination)
    high = np.where(forth[:, None], flows.destination, flows.source)
    return Sums(np.hstack([flows.family[:, None], low, high]), _sums(flows, forth))


def _ascending(flows: Table) -> Mask:
    """Whether the source is the lower address."""
    source, destination = flows.source, flows.destination
    same = source[:, 0] == destination[:, 0]
    lower: Mask = (source[:, 0] < destination[:, 0]) | (same & (source[:, 1] <= destination[:, 1]))
    return lower


def _by_port(flows: Table) -> Sums:
    flows = ported(flows)
    out = of_service(flows)
    port = np.where(out, flows.source_port, flows.destination_port)
    return Sums(np.stack([flows.protocol, port], axis=1), _sums(flows, out))


def _by_protocol(flows: Table) -> Sums:
    ip = (flows.family == IPV4) | (flows.family == IPV6)
    ethertype = np.where(ip | (flows.family == ARP), 0, flows.ethertype)
    key = np.stack([flows.family, ethertype, np.where(ip, flows.protocol, 0)], axis=1).astype(np.uint64)
    return Sums(key, _sums(flows, np.ones(len(flows), bool)))


def ported(flows: Table) -> Table:
    """Flows that have ports."""
    ip = (flows.family == IPV4) | (flows.family == IPV6)
    return flows[ip & words.PORTED[flows.protocol.astype(np.intp)] & (flows.quirks & np.uint64(LATER_FRAGMENT) == 0)]


def of_service(flows: Table) -> Mask:
    """Of flows with ports: whether they come from the service (and so their source port is its port)."""
    answered = flows.tcp_flags & np.uint16(SYN_ACK) != 0
    lower: Mask = flows.source_port < flows.destination_port
    if not answered.any():
        return lower
    sources = np.column_stack([flows.source, flows.protocol << np.uint64(16) | flows.source_port])
    destinations = np.column_stack([flows.destination, flows.protocol << np.uint64(16) | flows.destination_port])
    known = _among(np.vstack([sources, destinations]), sources[answered])
    from_known, to_known = known[: len(flows)], known[len(flows) :]
    out: Mask = answered | np.where(from_known == to_known, lower, from_known)
    return out


def _among(keys: U8, wanted: U8) -> Mask:
    """Which rows of ``keys`` are rows of ``wanted``."""
    order, starts = groups(np.vstack([keys, wanted]))
    hit = np.maximum.reduceat(order >= len(keys), starts)
    found = np.empty(len(order), bool)
    found[order] = np.repeat(hit, np.diff(np.append(starts, len(order))))
    return found[: len(keys)]


class Totals:
    """Rows in; afterwards, what was most. ``most`` bounds the flows, and the groups of those that had no place."""

    def __init__(self, by: By, most: int = MOST) -> None:
        self.by = by
        self.packets = 0
        self.octets = 0
        self.evicted = 0
        """Flows that had no place as such; each is in the sums of its group all the same."""
        self.left_out = 0
        """Bytes of groups that had no place either."""
        self._most = most
        self._fold = Fold(self._evict, most)
        self._rest: Sums | None = None

    def add(self, rows: Table) -> None:
        """Take rows of a chunk."""
        self.packets += int(rows.packets.sum())
        self.octets += int(rows.octets.sum())
        self._fold.add(rows)

    def flows(self) -> Table:
        """The flows that were kept: all of them, unless some were evicted."""
        return self._fold.table()

    def groups(self) -> Sums:
        """The sums of all groups."""
        kept = shares(self.by, self.flows())
        return added_up(kept if self._rest is None else _both(kept, self._rest))

    def _evict(self, flows: Table) -> None:
        self.evicted += len(flows)
        if self.by == "flow":
            self.left_out += int(flows.octets.sum())
            return
        parts = shares(self.by, flows)
        rest = added_up(parts if self._rest is None else _both(self._rest, parts))
        if len(rest) > self._most:
            order = np.argsort(rest.sums[:, OCTETS], kind="stable")
            gone, left = order[: len(rest) - self._most // 2], order[len(rest) - self._most // 2 :]
            self.left_out += int(rest.sums[gone, OCTETS].sum())
            rest = Sums(rest.key[left], rest.sums[left])
        self._rest = rest


def _both(one: Sums, other: Sums) -> Sums:
    return Sums(np.vstack([one.key, other.key]), np.vstack([one.sums, other.sums]))


def most(of: Sums, number: int, sort: Sort) -> Sums:
    """The ``number`` largest groups, the largest first; those of one size in the order of their keys."""
    order = _largest(of.sums[:, _SORTED_BY[sort]], of.key, number)
    return Sums(of.key[order], of.sums[order])


def largest(flows: Table, number: int, sort: Sort) -> Table:
    """The ``number`` largest flows, as ``most`` chooses groups."""
    return flows[_largest(flows.packets if sort == "packets" else flows.octets, flows.key, number)]


def _largest(values: U8, keys: U8, number: int) -> Any:
    if number < len(values):
        bound = np.partition(values, len(values) - number)[len(values) - number]
        chosen = np.flatnonzero(values >= bound)
    else:
        chosen = np.arange(len(values))
    descending = np.iinfo(np.uint64).max - values[chosen]
    return chosen[np.lexsort((*keys[chosen].T[::-1], descending))][:number]


def peers(flows: Table, hosts: U8) -> list[int]:
    """With how many other addresses each of these hosts (rows of the key of ``host``) had a flow."""
    flows = _ip(flows)
    family = flows.family[:, None]
    one, other = np.hstack([family, flows.source]), np.hstack([family, flows.destination])
    ends, others = np.vstack([one, other]), np.vstack([other[:, 1:], one[:, 1:]])
    near = np.isin(ends[:, 2], hosts[:, 2])
    ends, others = ends[near], others[near]
    return [_distinct(others[(ends == host).all(axis=1) & (others != host[1:]).any(axis=1)]) for host in hosts]


def parties(flows: Table, ports: U8) -> list[tuple[int, int]]:
    """Of each of these service ports (rows of the key of ``port``): how many addresses offer and how many use it."""
    flows = ported(flows)
    out = of_service(flows)
    port = np.where(out, flows.source_port, flows.destination_port)
    servers = np.where(out[:, None], flows.source, flows.destination)
    clients = np.where(out[:, None], flows.destination, flows.source)
    found = []
    for protocol, number in ports:
        rows = (flows.protocol == protocol) & (port == number)
        found.append((_distinct(servers[rows]), _distinct(clients[rows])))
    return found


def _distinct(keys: U8) -> int:
    return len(groups(keys)[1])


def described(by: By, chosen: Sums, flows: Table) -> list[dict[str, Any]]:
    """The groups as JSON has them. Not for ``flow``: see ``lines``."""
    rows = list(zip(chosen.key.tolist(), chosen.sums.tolist(), strict=True))
    match by:
        case "host":
            told = [
                {"host": words.address(*key), **_ways(sums, "out", "in"), "flows": sums[FLOWS]} for key, sums in rows
            ]
            return [{**one, "peers": number} for one, number in zip(told, peers(flows, chosen.key), strict=True)]
        case "pair":
            return [
                {
                    "a": words.address(family, *ends[:2]),
                    "b": words.address(family, *ends[2:]),
                    **_ways(sums, "ab", "ba"),
                    "flows": sums[FLOWS],
                }
                for (family, *ends), sums in rows
            ]
        case "port":
            told = [
                {
                    "protocol": words.transport(protocol),
                    "port": port,
                    **_ways(sums, "out", "in"),
                    "flows": sums[FLOWS],
                }
                for (protocol, port), sums in rows
            ]
            return [
                {**one, "servers": servers, "clients": clients}
                for one, (servers, clients) in zip(told, parties(flows, chosen.key), strict=True)
            ]
        case _:
            return [
                {
                    "protocol": words.what(*key),
                    "family": words.FAMILIES.get(key[0], str(key[0])),
                    "bytes": sums[OCTETS],
                    "packets": sums[PACKETS],
                    "flows": sums[FLOWS],
                }
                for key, sums in rows
            ]


def _ways(sums: list[int], out: str, back: str) -> dict[str, int]:
    return {
        "bytes": sums[OCTETS],
        "packets": sums[PACKETS],
        f"bytes_{out}": sums[OCTETS_OUT],
        f"bytes_{back}": sums[OCTETS] - sums[OCTETS_OUT],
        f"packets_{out}": sums[PACKETS_OUT],
        f"packets_{back}": sums[PACKETS] - sums[PACKETS_OUT],
    }
