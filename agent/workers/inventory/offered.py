"""What services are offered, and who is still there, from the flows of an index. Pure; arrays, no Python per flow.

A TCP service has answered SYN with SYN and ACK. A UDP service has answered from a port below the ephemeral ones to
somebody who wrote to that port before.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from agent.workers.index.model import IPV4, IPV6, LATER_FRAGMENT, ODD, SYN_ACK, Flows
from agent.workers.inventory.sighting import FLOW, SEEN, SERVICE, Sighting, address_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TCP, _UDP = 6, 17

EPHEMERAL = 32768
"""From here on Linux takes ports for clients: ip_local_port_range in ip-sysctl.rst. Others begin higher."""

MOST = 20_000
"""Sightings of one chunk, at most."""

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd


def services(flows: Flows) -> list[Sighting]:
    """Who answers on what port, each once, with the first and the last packet from there."""
    internet = np.isin(flows.family, (IPV4, IPV6)) & (flows.quirks & (ODD | LATER_FRAGMENT) == 0)
    rows = np.flatnonzero(internet & (flows.source_port > 0))
    tcp = rows[(flows.protocol[rows] == _TCP) & (flows.tcp_flags[rows] & SYN_ACK != 0)]
    answers = np.concatenate([tcp, _answers(flows, rows[flows.protocol[rows] == _UDP])])
    if not len(answers):
        return []
    port, udp = flows.source_port[answers].astype(np.uint64), flows.protocol[answers] == _UDP
    keys = _sender(flows, answers) | port << _PORT | udp.astype(np.uint64) << _PROTOCOL
    found = []
    for key, first, last in zip(*_grouped(flows, answers, keys), strict=True):
        vlan, address = _said(flows, key)
        if address:
            value = f"{'udp' if key >> int(_PROTOCOL) & 1 else 'tcp'}/{key >> int(_PORT) & 0xFFFF}"
            found.append(Sighting(first, last, FLOW, vlan, "", address, SERVICE, value))
    return found


# Sender and service in one number: which address (32 bits), VLAN (12), family (1), port (16), protocol (1).
_VLAN, _FAMILY, _PORT, _PROTOCOL = (np.uint64(place) for place in (32, 44, 45, 61))


def _sender(flows: Flows, rows: NDArray[Any]) -> Any:
    vlan = np.where(flows.tags[rows] > 0, flows.vlan[rows] & 0xFFF, 0).astype(np.uint64)
    family = (flows.family[rows] == IPV6).astype(np.uint64)
    return flows.source[rows].astype(np.uint64) | vlan << _VLAN | family << _FAMILY


def _said(flows: Flows, key: int) -> tuple[int, str]:
    """The VLAN and the address of a sender."""
    upper, lower = flows.addresses[key & 0xFFFFFFFF].tolist()
    octets = ((upper << 64) | lower).to_bytes(16)
    return key >> int(_VLAN) & 0xFFF, address_text(octets if key >> int(_FAMILY) & 1 else octets[-4:])


def _grouped(flows: Flows, rows: NDArray[Any], keys: NDArray[Any]) -> tuple[list[int], list[int], list[int]]:
    """Each key once, up to ``MOST`` of them, with the first and the last time of its rows."""
    distinct, group = np.unique(keys, return_inverse=True)
    first = np.full(len(distinct), np.iinfo(np.uint64).max, np.uint64)
    last = np.zeros(len(distinct), np.uint64)
    np.minimum.at(first, group, flows.first[rows])
    np.maximum.at(last, group, flows.last[rows])
    return distinct[:MOST].tolist(), first[:MOST].tolist(), last[:MOST].tolist()


def _answers(flows: Flows, rows: NDArray[Any]) -> Any:
    """Of these rows of UDP, those that answer another that began before."""
    ports = flows.source_port[rows]
    candidates = rows[(ports < EPHEMERAL) & (ports <= flows.destination_port[rows])]
    if not len(candidates):
        return candidates
    ends = np.stack([flows.source, flows.destination], 1).astype(np.uint64)
    both = np.stack([flows.source_port, flows.destination_port], 1).astype(np.uint64)
    forward, back = _pairs(ends[rows], both[rows]), _pairs(ends[candidates, ::-1], both[candidates, ::-1])
    links = np.concatenate([_link(flows, rows), _link(flows, candidates)])
    keys = np.column_stack([np.concatenate([forward, back]), links])
    order = np.lexsort(keys.T)
    new = np.ones(len(order), np.int64)
    new[1:] = np.any(keys[order[1:]] != keys[order[:-1]], axis=1)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    began = np.full(int(group.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(began, group[: len(rows)], flows.first[rows])
    return candidates[began[group[len(rows) :]] < flows.first[candidates]]


def _pairs(ends: NDArray[Any], ports: NDArray[Any]) -> Any:
    """Two addresses and two ports as two numbers; addresses are rows of a table of fewer than 2**32."""
    return np.stack([ends[:, 0] << np.uint64(32) | ends[:, 1], ports[:, 0] << np.uint64(16) | ports[:, 1]], 1)


def _link(flows: Flows, rows: NDArray[Any]) -> Any:
    tags = flows.tags[rows].astype(np.uint64) << np.uint64(32)
    return tags | flows.vlan[rows].astype(np.uint64) << np.uint64(16) | flows.inner_vlan[rows].astype(np.uint64)


class Known(NamedTuple):
    """Addresses that somebody has, by VLAN and address, and these mixed into numbers."""

    wanted: frozenset[tuple[int, str]]
    mixed: NDArray[np.uint64]


def known(addresses: Iterable[tuple[int, str]]) -> Known:
    """Those whom ``activity`` looks for."""
    wanted = frozenset(addresses)
    pairs = np.array([_halves(address) for _, address in wanted], np.uint64).reshape(-1, 2)
    return Known(wanted, np.unique(_mixed(pairs)))


def activity(flows: Flows, somebody: Known) -> list[Sighting]:
    """That those who are known are still there, when they sent something.

    Whoever has an address only by having sent from it is left out: it costs nothing to make up a sender.
    """
    wanted = somebody.wanted
    rows = np.flatnonzero(np.isin(flows.family, (IPV4, IPV6)) & (flows.quirks & ODD == 0))
    if not wanted or not len(rows):
        return []
    here = np.isin(_mixed(flows.addresses), somebody.mixed)  # few others get through, and none the next step
    rows = rows[here[flows.source[rows]]]
    found = []
    for key, first, last in zip(*_grouped(flows, rows, _sender(flows, rows)), strict=True):
        vlan, address = _said(flows, key)
        if (vlan, address) in wanted:
            found.append(Sighting(first, last, FLOW, vlan, "", address, SEEN))
    return found


def _halves(address: str) -> tuple[int, int]:
    """The two halves of an address, as ``Flows`` has them."""
    octets = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address).rjust(16, b"\0")
    return int.from_bytes(octets[:8]), int.from_bytes(octets[8:])


def _mixed(pairs: NDArray[Any]) -> Any:
    return (pairs[:, 0] * _MIX) ^ pairs[:, 1]
