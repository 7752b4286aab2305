"""What is believed of a host and its ports between two runs. Pure data; ``fold`` is what changes it.

``history`` is what the last looks saw, as bits below a leading one: the lowest is the last look, ``1`` is none yet. It
holds looks that can be believed: a single silence is not in it.

They are structs of msgspec's, whose ``structs.replace`` takes a tenth of the time of that of dataclasses: a run is
folded by half a dozen of them for each port of each host.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from agent.workers.scan.found import Certificate, Port, spoke
from agent.workers.scan.memory.ways import Ways

Key = tuple[str, int]
"""A port: protocol and number."""

HOST: Final[Key] = ("", 0)
"""Where a port could stand: the host itself."""

NONE: Final = 1
"""A history of nothing."""

WINDOW: Final = 8
"""Looks that a history holds."""

BY_STATE: Final = 1
BY_SERVICE: Final = 2
"""What of a port is flapping, as bits."""


class Service(msgspec.Struct, frozen=True):
    """What answers at a port; fields as in ``found.Port``."""

    name: str = ""
    product: str = ""
    version: str = ""
    extrainfo: str = ""
    tunnel: str = ""
    cpe: tuple[str, ...] = ()
    method: str = ""
    certificate: Certificate | None = None

    @property
    def label(self) -> str:
        """In a few words: ``ssl/http nginx 1.22.1``."""
        name = f"{self.tunnel}/{self.name}" if self.tunnel else self.name
        extra = f"({self.extrainfo})" if self.extrainfo else ""
        return " ".join(word for word in (name, self.product, self.version, extra) if word)


class PortState(msgspec.Struct, frozen=True):
    """A port that was open at least once. Times are unix seconds.

    ``state`` is what was told of it; empty while it was seen open once only. ``pending`` is the state that the last
    ``misses`` looks saw instead, empty when the last one agreed. In ``service_history`` a bit says that the service was
    another than what was told, and while it flaps, another than at the look before.
    """

    state: str
    reason: str
    source: str
    first_seen: float
    last_seen: float
    last_looked: float
    last_changed: float
    service: Service = Service()
    pending: str = ""
    misses: int = 0
    history: int = NONE
    service_history: int = NONE
    flapping: int = 0
    lately: Service = Service()
    """What the last look found while the service flaps: ``service`` is what was told of it."""


class HostState(msgspec.Struct, frozen=True):
    """A host; ``state`` is ``up``, ``gone`` or empty: never seen. Times as above, 0 before it was."""

    state: str = ""
    source: str = ""
    mac: str = ""
    names: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    first_seen: float = 0.0
    last_seen: float = 0.0
    last_looked: float = 0.0
    last_changed: float = 0.0
    misses: int = 0
    history: int = NONE
    flapping: int = 0
    dark: int = 0
    """Runs in a row in which nobody answered of several known hosts around it, and that were not believed for that."""
    everything: int = 0
    """Ports that it last said "open" to as it does to any; 0 for a host that does not."""
    ways: Ways = Ways()
    """How it last answered a run."""
    ports: Mapping[Key, PortState] = msgspec.field(default_factory=lambda: MappingProxyType({}))


def shown(history: int, bit: bool) -> int:
    """A history after one more look."""
    history = history << 1 | bit
    return history if history < 2 << WINDOW else history & ((1 << WINDOW) - 1) | 1 << WINDOW


def looks(history: int) -> int:
    """How many looks it holds."""
    return history.bit_length() - 1


def turns(history: int) -> int:
    """How often it turned from one to the other."""
    return ((history ^ history >> 1) & ((1 << max(0, looks(history) - 1)) - 1)).bit_count()


def steady(history: int, count: int) -> bool:
    """Whether the last ``count`` looks all saw the same."""
    last = history & ((1 << count) - 1)
    return looks(history) >= count and last in (0, (1 << count) - 1)


def latest(history: int, count: int) -> int:
    """A history of the last ``count`` looks alone."""
    return history & ((1 << count) - 1) | 1 << count if looks(history) > count else history


def service_of(port: Port) -> Service:
    """The service that a look at a port found."""
    return Service(
        port.service,
        port.product,
        port.version,
        port.extrainfo,
        port.tunnel,
        port.cpe,
        "probed" if spoke(port) else port.method,
        port.certificate,
    )
