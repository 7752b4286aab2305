"""Whether silence is to be believed: which evidence says that somebody is gone, and which that the scan is blind. Pure.

Who does not answer may be gone, or the way there may be: a cable, a firewall that shut the scan out, a device that it
overwhelmed. One silent host says nothing about which. So it is asked of others whether the way is open:

- Of two known hosts or more that were asked together, in one network and one chunk, and none of which gave a sign of
  life, none is believed to be gone (``dark``): that they all went at once is less likely than that the way did. So it
  is with a whole network, and with all that the run has asked.
- Where a port known to be open answered at one end of a sweep and not at the other, and none of that network answered
  at both, a part of what was asked there fell into a hole, and nobody knows which (``blinded``).
- A second look at what is missed is evidence only while others answer: of the same network if any did in this run, or
  else anybody (``credible``).

A network that is really switched off stays so. After ``SETTLED`` runs in a row in which others answered it is believed,
and after ``ALL_SETTLED`` when nobody did: then it is most likely the scan itself that is cut off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal, NamedTuple

from agent.workers.scan.found import ANSWERED, Host, answered
from agent.workers.scan.memory.place import Line, place
from agent.workers.scan.memory.state import Key

SETTLED: Final = 3
"""Runs in a row after which a part in which nobody answers is believed to be gone, while others answer."""

ALL_SETTLED: Final = 7
"""The same when nobody answered at all."""

SEVERAL: Final = 2
"""Known hosts that do not all vanish at once."""

_OWN, _OTHERS = 48, 8  # canaries that are asked along with a second look
_NAMED = 3  # networks that a reason names


class Network(NamedTuple):
    """A /24, or of IPv6 a /64, on its line."""

    line: Line
    number: int

    def __str__(self) -> str:
        if self.line.family == 4:
            return str(IPv4Network((self.number << 8, 24)))
        zone = f"%{self.line.zone}" if self.line.zone else ""
        return f"{IPv6Network((self.number << 64, 64))}{zone}"


def network_of(address: str) -> Network:
    """Raises ``ValueError`` for what is no address."""
    line, number = place(address)
    return Network(line, number >> (8 if line.family == 4 else 64))


def alive(observed: Host | None, expected: Collection[Key]) -> bool:
    """Whether a host gave a sign of life in the way in which it was expected to.

    ``expected`` are the ports that it was asked for and that are known to be open. If there are any, a host that only
    answers a ping, or for which a firewall answers, does not count.
    """
    if observed is None or not answered(observed):
        return False
    if not expected:
        return True
    return any(port.state in ANSWERED for port in observed.ports) or any(
        rest.state in ANSWERED for rest in observed.rest
    )


class Sign(NamedTuple):
    """One host of a chunk: known from before or met now, and whether it gave a sign of life."""

    network: Network
    known: bool
    alive: bool
    dark: int = 0
    """Runs in a row, just before this one, in which it was ``dark`` around it."""


@dataclass(slots=True)
class Tally:
    """What all chunks of a run say, taken in one by one."""

    _parts: dict[tuple[int, Network], list[int]] = field(default_factory=dict)
    _before: dict[tuple[int, Network], int] = field(default_factory=dict)

    def add(self, chunk: int, signs: Iterable[Sign]) -> None:
        """The hosts of one chunk."""
        for network, known, lives, dark in signs:
            part = self._parts.setdefault((chunk, network), [0, 0])
            part[0] += known
            part[1] += lives
            if known:
                self._before[chunk, network] = min(dark, self._before.get((chunk, network), dark))

    def dark(self) -> Dark:
        """Where nobody answered although several should have."""
        by_network: dict[Network, list[int]] = {}
        total = [0, 0]
        for (_, network), part in self._parts.items():
            for sums in (by_network.setdefault(network, [0, 0]), total):
                sums[0] += part[0]
                sums[1] += part[1]
        parts = {
            key: part[0]
            for key, part in self._parts.items()
            if part[0] and any(_vanished(sums) for sums in (part, by_network[key[1]], total))
        }
        enough = SETTLED if total[1] else ALL_SETTLED
        settled = {key for key in parts if self._before[key] + 1 >= enough}
        left = {key: known for key, known in parts.items() if key not in settled}
        return Dark(frozenset(left), frozenset(settled), _dark_reason(left, everything=_vanished(total)))


class Dark(NamedTuple):
    """``parts``: chunks by number, each with a network in it; ``settled``: those of which it is believed by now.

    ``reason``: one line; empty when there are no ``parts``.
    """

    parts: frozenset[tuple[int, Network]]
    settled: frozenset[tuple[int, Network]]
    reason: str


def _vanished(sums: Sequence[int]) -> bool:
    known, lives = sums
    return known >= SEVERAL and not lives


def _dark_reason(parts: Mapping[tuple[int, Network], int], *, everything: bool) -> str:
    if not parts:
        return ""
    if everything:
        return f"none of {sum(parts.values())} known hosts answered"
    counts: Counter[Network] = Counter()
    for (_, network), known in parts.items():
        counts[network] += known
    return f"none of the known hosts answered that were asked together in {_listed(counts)}"


def _listed(counts: Mapping[Network, int]) -> str:
    named = [f"{network} ({count})" for network, count in sorted(counts.items())]
    more = f" and {len(named) - _NAMED} more networks" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


Witness = Literal["steady", "went", "came", "never"]
"""How a port known to be open fared in a sweep: it answered all along, at first only, in the end only, or not."""


def blinded(addresses: Iterable[str], witnesses: Mapping[str, Iterable[Witness]]) -> tuple[list[str], str]:
    """Those ``addresses`` of a sweep of which its own canaries say that a part of what was asked was not seen, and why.

    ``witnesses`` are the canaries by address.
    """
    fared: dict[Network, set[Witness]] = {}
    for address, each in witnesses.items():
        fared.setdefault(network_of(address), set()).update(each)
    torn = {network for network, how in fared.items() if how & {"went", "came"} and "steady" not in how}
    if not torn:
        return [], ""
    networks = ", ".join(str(network) for network in sorted(torn)[:_NAMED])
    more = f" and {len(torn) - _NAMED} more" if len(torn) > _NAMED else ""
    reason = f"open ports in {networks}{more} answered only for a part of the time"
    return [address for address in addresses if network_of(address) in torn], reason


def credible(addresses: Iterable[str], witnesses: Mapping[str, Iterable[Witness]]) -> set[str]:
    """Those ``addresses`` of a second look of which silence is believed, by the canaries that were asked along."""
    own: dict[Network, bool] = {}
    for address, each in witnesses.items():
        network = network_of(address)
        own[network] = own.get(network, False) or "steady" in each
    anybody = any(own.values())
    return {address for address in addresses if own.get(network_of(address), anybody)}


def without_silence(host: Host) -> Host | None:
    """What a host said itself, without anything about ports from which nothing was heard; ``None``: it said nothing."""
    if host.state != "up":
        return None
    return replace(
        host,
        ports=tuple(port for port in host.ports if port.state in ANSWERED),
        rest=tuple(rest for rest in host.rest if rest.state in ANSWERED),
    )


def along(lot: Iterable[str], canaries: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Which ``canaries`` to ask along with a second look at the addresses of a ``lot``: of their networks, and others.

    All are on one line, and none is doubted itself.
    """
    addresses = set(lot)
    networks = {network_of(address) for address in addresses}
    lines = {network.line for network in networks}
    own: list[tuple[str, int]] = []
    others: list[tuple[str, int]] = []
    for canary in canaries:
        network = network_of(canary[0])
        if network.line in lines and canary[0] not in addresses:
            (own if network in networks else others).append(canary)
    return [*spread(own, _OWN), *spread(others, _OTHERS)]


def spread(canaries: Iterable[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    """At most ``most`` of these ``(address, port)``, in their order, of as many networks as may be."""
    rows: dict[Network, list[tuple[str, int]]] = {}
    for canary in canaries:
        rows.setdefault(network_of(canary[0]), []).append(canary)
    chosen: list[tuple[str, int]] = []
    for turn in range(max((len(row) for row in rows.values()), default=0)):
        chosen += [row[turn] for row in rows.values() if turn < len(row)]
        if len(chosen) >= most:
            break
    return chosen[:most]
