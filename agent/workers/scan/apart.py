"""What a sweep asks beside its probes: ports known to be open before and after, and odd ones in between. Pure.

From how the known ones fare it is known whether the way was open all along (``blind``), and from the odd ones who says
"open" whatever he is asked (``everything``).
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.workers.scan.blind import Witness
from agent.workers.scan.canary import Asking
from agent.workers.scan.engine import Probe
from agent.workers.scan.everything import everywhere


class Apart:
    """Three times ``asking`` is asked to its end: for what is ``known``, for odd ports, for what is known again."""

    def __init__(self, known: Sequence[Probe]) -> None:
        self.asking = Asking(known)
        self.witnesses: dict[Probe, Witness] = {}
        """How each canary fared, in the end."""
        self._known = tuple(known)
        self._early: set[Probe] = set()

    def begun(self) -> list[Probe]:
        """The known ones were asked. Returns those that are open."""
        self._early = _answered(self.asking)
        opened = [probe for probe, state in self.asking.answers.items() if state == "open"]
        self.asking = Asking(())
        return opened

    def check(self, odd: Sequence[Probe]) -> None:
        """Ask odd ports."""
        self.asking = Asking(odd)

    def checked(self, alive: Sequence[Probe], *, anybody: bool) -> frozenset[int]:
        """The odd ones were asked; ask the known ones again, and others that were found and are ``alive``.

        Where nobody ever answered (not ``anybody``) there is nothing to come back to. Returns the places at which
        everything is open.
        """
        found = everywhere(self.asking.answers, self.asking.silent)
        self.asking = Asking(dict.fromkeys((*alive, *self._known)) if anybody or self._early else ())
        return found

    def ended(self, alive: Sequence[Probe]) -> None:
        """They were: bear witness."""
        late = _answered(self.asking)
        found = [probe for probe in alive if probe not in self._known]
        early = {*self._early, *found}
        for probe in (*self._known, *found):
            if probe in early:
                self.witnesses[probe] = "steady" if probe in late else "went"
            else:
                self.witnesses[probe] = "came" if probe in late else "never"


def _answered(asked: Asking) -> set[Probe]:
    """Those at which the host itself said something: that a port is closed shows a way that is open."""
    return {probe for probe, state in asked.answers.items() if state != "filtered"}
