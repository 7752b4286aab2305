"""What a capture report tells, gathered as one JSON document: traffic, talkers, losses, how far back, new hosts.

Everything of it is in the files: accounts of segments, their indexes, pins, the inventory. No agent need run.
Instants are unix seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli import inventory, limited
from agent.cli.accounts import LOST, holds
from agent.cli.instants import Span
from agent.cli.stores import Found

if TYPE_CHECKING:
    from agent.declaration.model import Capture
    from agent.workers.capture.account import Account
    from agent.workers.flows.records import Batch, Effort, Origins
    from agent.workers.flows.top import By, Totals
    from agent.workers.inventory.view import Host

BUCKETS = 180
"""Columns of a chart, at most."""

LEAST_BUCKET = 1_000_000
"""Nanoseconds: no column is narrower."""

TOP = 10
MOST_LOSSES = 20
MOST_HOSTS = 100

_FLOWS = 250_000
"""Flows that are kept, of each of the four ways to add them up."""

_BY: tuple[By, ...] = ("host", "pair", "port", "proto")

Series = dict[tuple[str, str], dict[str, Any]]


class Columns:
    """The columns of the charts: ``count`` of them, ``width`` nanoseconds each, from ``begin`` on."""

    def __init__(self, span: Span) -> None:
        length = max(span.end - span.begin, 1)
        self.begin = span.begin
        self.width = max(LEAST_BUCKET, -(-length // BUCKETS))
        self.count = -(-length // self.width)

    def spread(self, first: Any, last: Any, amounts: Any) -> Any:
        """See ``overtime.spread``."""
        from agent.workers.flows.overtime import spread

        return spread(first, last, amounts, self.begin, self.width, self.count)


def gather(
    found: Found,
    interfaces: Collection[str],
    span: Span,
    now: int,
    declared: dict[str, Capture],
    until: float | None = None,
) -> dict[str, Any]:
    """The document about these stores, of ``interfaces`` (none: of all).

    Traffic is not looked for any more after ``until``, by ``time.monotonic``. Raises ``StorageFailure``.
    """
    from agent.workers.flows.records import Effort, Origins
    from agent.workers.flows.top import Totals

    retention: list[dict[str, Any]] = []
    for store in found.stores:
        with store.seen() as directory:
            retention += _retention(directory, interfaces, declared.get(store.name))
    if span.begin == 0:  # only an end was given: as far back as there is anything
        span = Span(min([round(one["oldest"] * 1e9) for one in retention] + [span.end]), span.end)
    columns = Columns(span)
    totals = [Totals(by, _FLOWS) for by in _BY]
    series: Series = {(one["service"], one["interface"]): _blank(one, columns) for one in retention}
    effort, origins = Effort(deadline=until), Origins()
    losses: list[dict[str, Any]] = []
    balances: list[dict[str, Any]] = []
    damaged = list(found.left_out)
    known = inventory.hosts(inventory.snapshots(found.stores, damaged))
    for store in found.stores:
        with store.seen() as directory:
            _traffic(directory, interfaces, span, columns, series, totals, origins, effort)
            told = _accounts(directory, interfaces, span, columns, series)
            balances += told[0]
            losses += told[1]
    losses.sort(key=lambda one: (-sum(one[lost] or 0 for lost in LOST), one["from"]))
    return {
        "from": span.begin / 1e9,
        "to": span.end / 1e9,
        "made": now / 1e9,
        "services": [store.name for store in found.stores],
        "bucket_seconds": columns.width / 1e9,
        "packets": totals[0].packets,
        "bytes": totals[0].octets,
        "flows": len(totals[0].flows()) + totals[0].evicted,
        "traffic": list(series.values()),
        "top": {by: _most(total) for by, total in zip(_BY, totals, strict=True)},
        "evicted_flows": max(total.evicted for total in totals),
        "accounts": balances,
        "losses": losses[:MOST_LOSSES],
        "losses_more": max(0, len(losses) - MOST_LOSSES),
        "retention": retention,
        "hosts": _new_hosts([one for one in known if not interfaces or inventory.seen_on(one, interfaces)], span),
        "unindexed_bytes": effort.unindexed,
        **limited.document(effort.stopped),
        "unreadable": [*effort.unreadable, *map(str, damaged)],
    }


def _blank(one: dict[str, Any], columns: Columns) -> dict[str, Any]:
    nothing = [0] * columns.count
    return {
        "service": one["service"],
        "interface": one["interface"],
        "oldest": one["oldest"],
        "bytes": nothing,
        "packets": nothing,
        "dropped": nothing,
    }


def _added(known: list[int], more: Any) -> list[int]:
    return [one + other for one, other in zip(known, more.tolist(), strict=True)]


def _traffic(
    directory: Path,
    interfaces: Collection[str],
    span: Span,
    columns: Columns,
    series: Series,
    totals: Iterable[Totals],
    origins: Origins,
    effort: Effort,
) -> None:
    from agent.workers.flows.records import Within, collect

    for batch in collect(directory, directory.name, Within(*span), origins, effort, interfaces=interfaces):
        for total in totals:
            total.add(batch.rows)
        _chart(batch, columns, series, origins)


def _chart(batch: Batch, columns: Columns, series: Series, origins: Origins) -> None:
    import numpy as np

    for origin in np.unique(batch.rows.origin).tolist():
        rows = batch.rows[batch.rows.origin == origin]
        service, interface = origins.names[origin]
        one = series.get((service, interface))
        if one is None:  # opened since the store was looked at
            since = {"service": service, "interface": interface, "oldest": int(rows.first.min()) / 1e9}
            one = series[service, interface] = _blank(since, columns)
        one["bytes"] = _added(one["bytes"], columns.spread(rows.first, rows.last, rows.octets))
        one["packets"] = _added(one["packets"], columns.spread(rows.first, rows.last, rows.packets))


def _most(totals: Totals) -> list[dict[str, Any]]:
    from agent.workers.flows.top import described, most

    return described(totals.by, most(totals.groups(), TOP, "bytes"), totals.flows())


def _accounts(
    directory: Path, interfaces: Collection[str], span: Span, columns: Columns, series: Series
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The balance of each interface, and the segments in which something was lost or does not add up."""
    from agent.workers.capture import account
    from agent.workers.capture.timely import SLACK, timely
    from agent.workers.index.head import cut_in

    balances: dict[str, dict[str, Any]] = {}
    losses: list[dict[str, Any]] = []
    for found in timely(directory, span, interfaces):
        segment = found.segment
        told = account.read(segment.account) if segment.closed else None
        if segment.begin > span.end or (told.closed if told else found.last - SLACK) < span.begin:
            continue
        name = segment.interface
        balance = balances.setdefault(name, _nothing(directory.name, name))
        balance["segments"] += 1
        if segment.closed:
            balance["cut"] += cut_in(segment.index) or 0
        if told is None:
            balance["unaccounted_segments" if segment.closed else "open_segments"] += 1
            continue
        _add(balance, told)
        one = series.get((directory.name, name))
        lost = told.dropped_kernel + told.dropped_interface + told.not_written
        if one is not None and lost:
            one["dropped"] = _added(one["dropped"], columns.spread([told.opened], [told.closed], [lost]))
        if lost or not holds(told):
            losses.append(_loss(directory.name, told))
    return [balances[name] for name in sorted(balances)], losses


def _nothing(service: str, interface: str) -> dict[str, Any]:
    return {
        "service": service,
        "interface": interface,
        "segments": 0,
        "open_segments": 0,
        "unaccounted_segments": 0,
        "recovered_segments": 0,
        "received": 0,
        "written": 0,
        "cut": 0,
        **dict.fromkeys(LOST, 0),
        "unaccounted": 0,
        "holds": True,
        "lag_max": 0.0,
        "filters": [],
    }


def _add(balance: dict[str, Any], told: Account) -> None:
    held = holds(told)
    if held is None:  # then only what was written is known
        balance["recovered_segments"] += 1
        return
    balance["received"] += told.received
    balance["written"] += told.written
    balance["unaccounted"] += told.unaccounted
    for lost in LOST:
        balance[lost] += getattr(told, lost)
    balance["holds"] = balance["holds"] and held
    balance["lag_max"] = max(balance["lag_max"], told.lag / 1e9)
    if told.filter and told.filter not in balance["filters"]:
        balance["filters"].append(told.filter)


def _loss(service: str, told: Account) -> dict[str, Any]:
    known = holds(told) is not None
    return {
        "service": service,
        "interface": told.interface,
        "from": told.opened / 1e9,
        "to": told.closed / 1e9,
        "reason": told.reason,
        "received": told.received if known else None,
        "written": told.written,
        **{lost: getattr(told, lost) if known else None for lost in LOST},
        "holds": holds(told),
    }


def _retention(directory: Path, interfaces: Collection[str], declared: Capture | None) -> list[dict[str, Any]]:
    from agent.workers.capture.pins import read_all
    from agent.workers.capture.stock import stock

    found = stock(directory)
    pins = [
        {"id": pin.id, "from": pin.begin / 1e9, "to": pin.end / 1e9, "reason": pin.reason, "by": pin.by}
        for pin in read_all(directory)
    ]
    told = []
    for name in sorted({one.interface for one in found if not interfaces or one.interface in interfaces}):
        mine = [one for one in found if one.interface == name]
        told.append(
            {
                "service": directory.name,
                "interface": name,
                "segments": len(mine),
                "oldest": min(one.begin for one in mine) / 1e9,
                "newest": max(one.end for one in mine) / 1e9,
                "bytes": sum(one.size for one in mine),
                "service_bytes": sum(one.size for one in found),
                "budget": declared and declared.budget,
                "max_age": declared and declared.max_age,
                "unindexed": sum(not one.indexed for one in mine),
                "pins": pins,
            }
        )
    return told


def _new_hosts(known: list[Host], span: Span) -> dict[str, Any]:
    fresh = sorted((one for one in known if span.begin <= one.first <= span.end), key=lambda one: (one.first, one.mac))
    return {
        "known": len(known),
        "since": min((one.first for one in known), default=0) / 1e9 or None,
        "new_count": len(fresh),
        "new": [
            {
                "first": one.first / 1e9,
                "last": one.last / 1e9,
                "addresses": [holding.address for holding in one.addresses],
                "mac": one.mac or None,
                "name": one.name or None,
                "this_host": one.own,
                "seen_by": one.seen_by,
            }
            for one in fresh[:MOST_HOSTS]
        ],
    }
