"""What a run asked for, so that two runs are compared only where both asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

from agent.workers.scan.plan import Group, Ranges
from agent.workers.scan.spans import holds

Detection = Literal["none", "some", "every"]
"""Which open ports were asked what they are: ``some`` leaves out those that are known to be silent."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one run asked, beside the hosts that it tells of: what those were asked stands in each (``found.Host``).

    ``addresses`` were asked for, so one of them that is not told of was down; each was to be asked for ``ports``, by
    protocol. ``scripts``: scripts of nmap were run. ``doubt`` says in a few words why what the run did not see may be
    there all the same (``degraded: 2 canaries went missing``, ``interrupted``); empty when it can be trusted.
    """

    addresses: tuple[Group, ...] = ()
    ports: Mapping[str, Ranges] = field(default_factory=dict)
    detection: Detection = "none"
    scripts: bool = False
    doubt: str = ""

    def asked(self, address: str) -> bool:
        """Whether this address was asked for, as far as ``addresses`` tell."""
        plain, _, zone = address.partition("%")
        found = ip_address(plain)
        return any(
            group.family == found.version and group.zone == zone and holds(group.ranges, int(found))
            for group in self.addresses
        )
