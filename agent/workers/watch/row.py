"""A row of drift: one thing in which two sources disagree, how grave that is, and what shows it. Pure.

How grave each kind is, is one rule, which docs/drift.md tells too:

===================== ======== ======================================================================================
kind                  severity what differs
===================== ======== ======================================================================================
open_forbidden        critical open, and ``closed`` names it
other_mac             high     two MACs answer for one address at once; it changed hands: medium if expected, else low
open_undeclared       high     open, and neither expected nor allowed; medium: it listens, and nobody has reached it
host_down             high     an address that is expected to have open ports does not answer
declared_closed       high     declared, and closed or filtered; medium: nothing listens here, and no scan says so
service_differs       high     the port is open, and something else answers than is expected
listening_unreachable high     declared and listening, and scans find it closed or filtered; info: not declared
version_changed       medium   the service is the expected one, and its version is not
seen_not_scanned      low      seen to answer others, and no scan has ever asked for it
seen_unreachable      info     seen to answer others before and after a scan found it closed or filtered
===================== ======== ======================================================================================

An expectation may weigh more or less than others: its ``severity`` moves its rows up or down (``graver``).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from agent.telemetry.kinds import DRIFT_KINDS, DRIFT_SEVERITIES, DriftKind, DriftSeverity

Origin = Literal["declared", "listening", "seen", "scanned"]


class Evidence(NamedTuple):
    """What one source says. ``text`` is for people; ``data`` has the same in parts, as JSON has it."""

    source: Origin
    text: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One difference. ``protocol`` is empty and ``port`` 0 where it is about a host as a whole.

    ``since`` is unix seconds: when the sources first agree that it is so. ``depends`` names the sources without which
    nobody can tell whether it still is, such as ``scan lan_scan``. ``answer`` is who answers, where the row is about
    that: with another one it is another difference, of the same key.
    """

    kind: DriftKind
    severity: DriftSeverity
    host: str
    protocol: str
    port: int
    what: str
    since: float
    evidence: tuple[Evidence, ...]
    depends: frozenset[str]
    expectations: tuple[str, ...] = ()
    site: str = ""
    answer: str = ""

    @property
    def key(self) -> str:
        """The same for the same difference, at whatever time and however grave: ``open_undeclared 10.0.0.5 tcp/80``."""
        place = f"{self.host}@{self.site}" if self.site else self.host
        return f"{self.kind} {place} {self.service}" if self.protocol else f"{self.kind} {place}"

    @property
    def service(self) -> str:
        """``tcp/22``; empty for a host as a whole."""
        return f"{self.protocol}/{self.port}" if self.protocol else ""

    @property
    def order(self) -> tuple[int, int, tuple[int, int, str], str, int, str]:
        """Sorts rows: the gravest first, then by kind, host and port."""
        rank = len(DRIFT_SEVERITIES) - DRIFT_SEVERITIES.index(self.severity)
        return rank, DRIFT_KINDS.index(self.kind), address_order(self.host), self.protocol, self.port, self.site


def address_order(address: str) -> tuple[int, int, str]:
    """IPv4 before IPv6, by value; last what is no address."""
    plain, _, zone = address.partition("%")
    try:
        parsed = ipaddress.ip_address(plain)
    except ValueError:
        return 9, 0, address
    return parsed.version, int(parsed), zone


def graver(severity: DriftSeverity, steps: int) -> DriftSeverity:
    """So many steps more grave, or less; no further than there are."""
    return DRIFT_SEVERITIES[max(0, min(len(DRIFT_SEVERITIES) - 1, DRIFT_SEVERITIES.index(severity) + steps))]
