"""One run as a comparison needs it: what it asked, and how far it can be believed. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agent.workers.scan.memory.picture import PortSet
from agent.workers.scan.memory.ways import Discovery

Detection = Literal["none", "some", "every"]
"""Which open ports were asked what they are: ``some`` leaves out those that are known to be silent."""


def _never(_: str) -> bool:
    return False


def _none(_: str) -> PortSet:
    return ()


@dataclass(frozen=True, slots=True)
class Side:
    """What holds of one run beside the hosts that it tells of: what those were asked stands in each (``found.Host``).

    ``looked``: whether the run would have seen a host at an address that it does not tell of. ``left``: whether it
    says itself that it did not ask there, or not to the end. ``ports``: which ports it asked for there. ``scripts``:
    scripts of nmap were run, also where none of them said anything. ``doubt`` says in a few words why what the run
    did not see may be there all the same (``degraded: 2 canaries went missing``, ``interrupted``); empty when it can
    be trusted. ``withheld``: the addresses to which alone a doubt applies; without it, it applies to all.
    ``discovery``: how it was asked who is there.
    """

    looked: Callable[[str], bool] = _never
    ports: Callable[[str], PortSet] = _none
    detection: Detection = "none"
    scripts: bool = False
    doubt: str = ""
    withheld: Callable[[str], object] | None = None
    discovery: Discovery = "any"
    left: Callable[[str], bool] = _never

    def doubtful(self, address: str) -> bool:
        """Whether what was not seen at an address may be there all the same."""
        return bool(self.doubt) and (self.withheld is None or bool(self.withheld(address)))
