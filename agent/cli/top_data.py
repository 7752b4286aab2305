"""What ``agentctl top`` shows: one snapshot after the other, out of the control socket and the open segments.

A snapshot is a document for JSON. Rates are between it and the one before. Without an agent it is told from the stores
alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agent.cli.accounts import LOST
from agent.cli.base import Session
from agent.cli.stores import find, unknown
from agent.errors import AgentError, UsageError

if TYPE_CHECKING:
    from agent.workers.flows.follow import Fresh
    from agent.workers.flows.table import Table

PATIENCE = 2.0
"""Seconds that the agent may take to answer: the view goes on without it."""

WINDOW = 10.0
"""Seconds: the flows that are shown are those of so long up to now."""

MOST_FLOWS = 50
_KEPT = 20_000
"""Flows of one look that are kept for the window: the largest."""

HISTORY = 30
"""Rates of an interface that are kept for its trend."""

PASSING = ("rate", "lag", "lag_max", "ring", "ring_packets")
TOLD = ("name", "kind", "state", "pid", "since", "cpu_percent", "rss_bytes", "message")
FIGURES = ("received", *LOST, "cut", *PASSING, "store_bytes", "store_state", "index_waiting", "unindexed")
OF_INTERFACE = ("received", *LOST, "written", "unaccounted", "cut", *PASSING, "waiting")
"""Of each interface, as the capture itself tells them; none where no agent answers."""

_NOT_KNOWN = {"dropped": None, "dropped_per_second": None}


class Watcher:
    """Makes snapshots of these services and interfaces, or all. ``clock`` is monotonic, ``now`` unix time; in seconds.

    A look raises ``UsageError`` for a service that is neither the agent's nor has stored anything.
    """

    def __init__(
        self,
        session: Session,
        names: Sequence[str] = (),
        interfaces: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        from agent.workers.flows.follow import Follower

        self._paths = session.paths()
        self._client = session.client(PATIENCE)
        self._names, self._interfaces = names, interfaces
        self._clock, self._now = clock, now
        self._follower = Follower
        self._followers: dict[str, Follower] = {}
        self._origins: dict[tuple[str, str], int] = {}
        self._at: float | None = None
        self._dropped: dict[tuple[str, str | None], tuple[Any, int]] = {}
        self._recent: deque[tuple[float, float, Table]] = deque()
        self._trends: dict[tuple[str, str], deque[float]] = {}

    def close(self) -> None:
        """Let go of all files."""
        for follower in self._followers.values():
            follower.close()

    def look(self) -> dict[str, Any]:
        """The next snapshot. In the first one there are no rates yet."""
        agent, services, wrong = self._status()
        at = self._clock()
        elapsed = None if self._at is None else max(at - self._at, 1e-3)
        self._at = at
        fresh, unread = self._fresh()
        wrong += unread
        for name in self._names:
            known = {service["name"] for service in services} | self._followers.keys()
            if name not in known:
                raise UsageError(unknown("service", name, sorted(known)))
        if self._names:
            services = [service for service in services if service["name"] in self._names]
        fresh = {key: one for key, one in fresh.items() if self._asked(*key)}
        told = {(one["name"], name): one for one in services for name in one.get("interfaces") or {}}
        keys = sorted(fresh.keys() | {key for key in told if self._asked(*key)})
        interfaces = [self._interface(key, fresh.get(key), told.get(key), elapsed) for key in keys]
        flows, window = self._flows(at, elapsed, [one.rows for one in fresh.values()])
        return {
            "at": self._now(),
            "seconds": elapsed,
            "agent": agent,
            "services": [self._service(one, elapsed) for one in services],
            "interfaces": interfaces,
            "flows": flows,
            "flows_seconds": window,
            "problems": wrong,
        }

    def _asked(self, service: str, interface: str) -> bool:
        return (not self._names or service in self._names) and (not self._interfaces or interface in self._interfaces)

    def _status(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]], list[str]]:
        try:
            answer = self._client.request("GET", "/v1/status")
        except AgentError as error:
            return None, [], [str(error)]
        return answer["agent"], answer["services"], []

    def _service(self, service: dict[str, Any], elapsed: float | None) -> dict[str, Any]:
        figures = service.get("figures") or {}
        told: dict[str, Any] = {key: service.get(key) for key in TOLD}
        told |= {key: figures.get(key) for key in FIGURES}
        if "received" in figures:
            told |= self._losses(service, None, figures, elapsed)
        else:
            told |= _NOT_KNOWN
        return told

    def _losses(
        self, service: dict[str, Any], interface: str | None, figures: dict[str, Any], elapsed: float | None
    ) -> dict[str, Any]:
        """What was dropped of a service, or of one of its interfaces."""
        dropped = sum(figures.get(key) or 0 for key in LOST)
        whose = service.get("pid")
        before = self._dropped.get((service["name"], interface))
        self._dropped[service["name"], interface] = (whose, dropped)
        known = elapsed is not None and before is not None and before[0] == whose
        rate = (dropped - before[1]) / elapsed if known and before and elapsed else None
        return {"dropped": dropped, "dropped_per_second": rate}

    def _fresh(self) -> tuple[dict[tuple[str, str], Fresh], list[str]]:
        found: dict[tuple[str, str], Fresh] = {}
        wrong: list[str] = []
        try:
            stores, left_out = find(self._paths)
        except AgentError as error:
            return found, [str(error)]
        wrong += map(str, left_out)
        for gone in self._followers.keys() - {store.name for store in stores}:
            self._followers.pop(gone).close()
        for store in stores:
            follower = self._followers.setdefault(store.name, self._follower())
            try:
                with store.seen() as directory:
                    for interface, one in follower.look(directory, self._origins).items():
                        found[store.name, interface] = one
            except AgentError as error:
                wrong.append(str(error))
        return found, wrong

    def _interface(
        self, key: tuple[str, str], fresh: Fresh | None, service: dict[str, Any] | None, elapsed: float | None
    ) -> dict[str, Any]:
        figures = service["interfaces"][key[1]] if service else {}
        told: dict[str, Any] = {
            "service": key[0],
            "interface": key[1],
            **{name: figures.get(name) for name in OF_INTERFACE},
            **(self._losses(service, key[1], figures, elapsed) if service else _NOT_KNOWN),
            "open_bytes": fresh and fresh.open,
            "read_share": round(fresh.share, 4) if fresh else 1.0,
            "packets_per_second": None,
            "bytes_per_second": None,
            "stored_per_second": None,
        }
        trend = self._trends.setdefault(key, deque(maxlen=HISTORY))
        if elapsed is not None and fresh is not None:
            told["stored_per_second"] = fresh.bytes / elapsed
            if fresh.read or not fresh.bytes:  # of what was passed over, as much as of what was read
                told["packets_per_second"] = fresh.packets / fresh.share / elapsed if fresh.packets else 0.0
                told["bytes_per_second"] = fresh.octets / fresh.share / elapsed if fresh.packets else 0.0
            trend.append(fresh.bytes / elapsed)
        told["trend"] = list(trend)
        return told

    def _flows(self, at: float, elapsed: float | None, rows: list[Table]) -> tuple[list[dict[str, Any]], float | None]:
        if elapsed is None:
            return [], None
        import msgspec

        from agent.workers.flows import lines, table
        from agent.workers.flows.top import largest

        joined = table.join(table.together(rows))
        self._recent.append((at, elapsed, joined if len(joined) <= _KEPT else largest(joined, _KEPT, "bytes")))
        while len(self._recent) > 1 and self._recent[0][0] <= at - WINDOW:
            self._recent.popleft()
        window = sum(each for _, each, _ in self._recent)
        all_of_it = table.join(table.together([kept for _, _, kept in self._recent]))
        names = sorted(self._origins, key=self._origins.__getitem__)
        told = []
        for line in lines.lines(largest(all_of_it, MOST_FLOWS, "bytes"), names):
            one = msgspec.structs.asdict(line)
            told.append(
                {**one, "bytes_per_second": one["bytes"] / window, "packets_per_second": one["packets"] / window}
            )
        return told, window
