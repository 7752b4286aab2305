"""What a run under way must not say: where it was blind, or nobody answered that should have (``blind``).

As it is noticed, it is kept of which addresses, in the database, and why, in a file beside it (``Sweeper.note``): so
whoever continues the run knows both.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Collection, Iterable
from typing import Final, Literal

from agent.workers.scan.again import Breathe, Lot, Within
from agent.workers.scan.blind import Sign, Tally, along, blinded, credible, network_of, spread, without_silence
from agent.workers.scan.canary import KNOWN
from agent.workers.scan.found import Host, Protocol
from agent.workers.scan.plan import Chunk
from agent.workers.scan.store import Run, ScanStore
from agent.workers.scan.sweeping import Swept

_AT_ONCE: Final = 512  # hosts that are looked at without a break


class Withholding:
    """Of one run. ``tell`` is told each new reason."""

    def __init__(
        self, store: ScanStore, run: Run, within: Within, reasons: Iterable[str], tell: Callable[[str], None]
    ) -> None:
        """``within`` are the ports that the scan may ask, ``reasons`` those that were told by an earlier part of this
        run."""
        self.reasons = list(reasons)
        """Why what was found must not be taken for all there is, if there is a reason."""
        self._store = store
        self._run = run
        self._within = within
        self._tell = tell

    def heed(self, addresses: Iterable[str], swept: Swept) -> None:
        """What the canaries of a sweep say of its ``addresses``."""
        torn, why = (addresses, swept.degraded) if swept.degraded else blinded(addresses, swept.witnesses)
        if why:
            self._withhold(torn, "blind", why)

    def known(self, addresses: Iterable[str], protocol: Protocol) -> list[tuple[str, int]]:
        """Addresses and ports to be asked along with a sweep of these ``addresses``."""
        canaries = self._store.canaries(addresses, protocol, self._within.get(protocol, ()))
        return spread(((one.address, one.number) for one in canaries), KNOWN)

    def canaries(self, lot: Lot) -> list[tuple[str, int]]:
        """Addresses and ports to be asked along with a second look."""
        canaries = self._store.canaries_met(self._run, lot.protocol, self._within.get(lot.protocol, ()))
        return along(lot.addresses, ((one.address, one.number) for one in canaries))

    def believed(self, lot: Lot, swept: Swept) -> list[Host]:
        """What a second look found, without the silence that proves nothing."""
        self.heed(lot.addresses, swept)
        sure: Collection[str] = () if swept.degraded else credible(lot.addresses, swept.witnesses)
        hosts = (host if host.address in sure else without_silence(host) for host in swept.hosts)
        return [host for host in hosts if host is not None]

    async def judge(self, chunks: Callable[[], AsyncIterable[Chunk]], breathe: Breathe) -> None:
        """Whether those of the known hosts that did not answer are gone, or the way to them is. At the end of a run."""
        signs: dict[str, Sign] = {}
        for address, known, alive, before in self._store.signs(self._run, self._within):
            signs[address] = Sign(network_of(address), known, alive, before)
            if len(signs) % _AT_ONCE == 0:
                await breathe()
        tally = Tally()
        async for chunk in chunks():
            tally.add(chunk.number, [signs[address] for address in chunk.addresses if address in signs])
        dark = tally.dark()
        numbers = {number for number, _ in dark.parts | dark.settled}
        if not numbers:
            return
        async for chunk in chunks():
            if chunk.number not in numbers:
                continue
            parts = {address: (chunk.number, network_of(address)) for address in chunk.addresses}
            self._store.withhold(self._run, [one for one, part in parts.items() if part in dark.settled], "settled")
            if those := [one for one, part in parts.items() if part in dark.parts]:
                self._withhold(those, "dark", dark.reason)

    def _withhold(self, addresses: Iterable[str], outcome: Literal["blind", "dark"], why: str) -> None:
        self._store.withhold(self._run, addresses, outcome)
        if why not in self.reasons:
            self.reasons.append(why)
            self._tell(why)
