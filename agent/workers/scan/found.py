"""What is known of a host after it was asked, in the one shape in which all parts of a scan hand it on. Pure.

States are those of nmap(1): a port is ``open``, ``closed``, ``filtered`` (silent, or refused by something on the way),
``open|filtered`` (UDP: silence says no more) or ``unfiltered``. All text of strangers in here has been through
``stream.clean``: one line, printable, bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from agent.workers.scan.spans import Ranges, holds, size

Protocol = Literal["tcp", "udp", "sctp"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("tcp", "udp", "sctp")
STATES: Final = ("open", "closed", "filtered", "open|filtered", "unfiltered", "closed|filtered")
ANSWERED: Final = frozenset({"open", "closed", "unfiltered"})
"""States of ports that somebody who is there has told."""
UNTOLD: Final = "closed|filtered"
"""The state of a port of which is only known that it is not open."""


CERTIFICATE_SCRIPT: Final = "ssl-cert"
"""The script of nmap that shows certificates."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a port showed. ``sha256`` is of its DER form, in hexadecimal; times are unix seconds, 0 when unknown."""

    sha256: str
    subject: str = ""
    issuer: str = ""
    not_before: int = 0
    not_after: int = 0


def moment(when: int) -> datetime | None:
    """A time of a certificate; ``None`` for one that is unknown, or beyond the year 9999, which datetime ends with."""
    return datetime.fromtimestamp(when, UTC) if 0 < when < 253_402_300_800 else None


@dataclass(frozen=True, slots=True)
class Script:
    """What one of nmap's scripts said."""

    name: str
    output: str


@dataclass(frozen=True, slots=True)
class Port:
    """One port that is told of by itself: open ones always, others when they are few.

    ``method`` is how the service is known: ``probed`` (it answered), ``table`` (by the number of the port alone) or
    empty. ``tunnel`` is ``ssl`` where TLS is spoken. ``ttl`` is that of the answering packet, 0 when unknown.
    """

    protocol: Protocol
    number: int
    state: str
    reason: str
    service: str = ""
    product: str = ""
    version: str = ""
    extrainfo: str = ""
    tunnel: str = ""
    cpe: tuple[str, ...] = ()
    method: str = ""
    hostname: str = ""
    ostype: str = ""
    devicetype: str = ""
    ttl: int = 0
    fingerprint: str = ""
    certificate: Certificate | None = None
    scripts: tuple[Script, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """``(protocol, number)``."""
        return self.protocol, self.number


def spoke(port: Port) -> bool:
    """Whether the port answered a question, so that more is known of it than its number."""
    return port.method == "probed" or bool(port.product or port.version or port.extrainfo)


@dataclass(frozen=True, slots=True)
class Rest:
    """Ports that are told of together: all in one state for one reason. ``ports`` is sorted, disjoint, not adjacent."""

    protocol: Protocol
    state: str
    reason: str
    ports: Ranges


@dataclass(frozen=True, slots=True)
class Host:
    """One host that was asked. ``state`` is ``up`` or ``down``; ``mac`` is known on the same link only.

    ``ports`` and ``rest`` together are all that it was asked for; a port stands in one of them, once.
    """

    address: str
    state: str
    reason: str
    mac: str = ""
    names: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    rest: tuple[Rest, ...] = ()
    os: tuple[str, ...] = ()
    scripts: tuple[Script, ...] = ()
    """Of the host as a whole."""
    discovered: bool = False
    """It answered when it was asked whether it is there, whatever its ports say."""

    def state_of(self, protocol: str, number: int) -> str | None:
        """The state of a port; ``None`` when it was not asked for."""
        for port in self.ports:
            if port.number == number and port.protocol == protocol:
                return port.state
        for rest in self.rest:
            if rest.protocol == protocol and holds(rest.ports, number):
                return rest.state
        return None

    @property
    def everything(self) -> int:
        """How many ports it said "open" to as it does to any (``everything``); 0 for a host that does not.

        Other open ports stand in ``ports``, so open ones among ``rest`` are always of that kind.
        """
        return sum(size(rest.ports) for rest in self.rest if rest.state == "open")

    def open_ports(self) -> Iterator[Port]:
        return (port for port in self.ports if port.state == "open")


def answered(host: Host) -> bool:
    """Whether a host was really met: one that is taken to be up (nmap's ``-Pn``) has yet to say something."""
    if host.state != "up":
        return False
    if host.reason not in ("", "user-set", "no-response"):
        return True
    states = {port.state for port in host.ports} | {rest.state for rest in host.rest}
    return bool(states & ANSWERED)
