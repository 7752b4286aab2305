"""``agentctl flows export``: flow records to a collector, or as lines of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from agent.cli import limited as limited_by
from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.flow_source import Choice, chosen
from agent.cli.instants import SECOND, Duration
from agent.cli.limited import deadline, limited
from agent.cli.stores import Store, nothing, warn
from agent.cli.target import told, writing, written_to
from agent.cli.text import count
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.workers.flows.ended import Records
    from agent.workers.flows.records import Effort, Origins

LEAST, MOST = "1s", "1d"
"""Of the two timeouts."""

SETTLE = 0.3
"""Seconds in which the network may say that nobody listens, after the last message."""

FORGETFUL = "where to? write --ipfix HOST:PORT, or -o FILE for lines of JSON; -o - is standard output"


@command(
    "export",
    short_help="Send flow records to a collector, or write them as lines of JSON.",
    examples=(
        "agentctl flows export --last 1d --ipfix flows.example.org:4739",
        "agentctl flows export 'udp port 53' --from 14:00 --to 15:00 -o dns.jsonl",
        "agentctl flows export --last 5m -o - | jq 'select(.bytes > 1000000)'",
    ),
)
@click.option("--ipfix", metavar="HOST:PORT", help="Send them to this collector, as IPFIX (RFC 7011) over UDP.")
@written_to("lines of JSON")
@click.option(
    "--idle",
    type=Duration(LEAST, MOST),
    default="60s",
    show_default=True,
    help="A flow that is silent for so long is over.",
)
@click.option(
    "--active",
    type=Duration(LEAST, MOST),
    default="30m",
    show_default=True,
    help="One that goes on is told of after so long, at the end of a segment.",
)
@limited("0")
@chosen
def export(
    session: Session,
    choice: Choice,
    ipfix: str | None,
    target: str | None,
    idle: float,
    active: float,
    time_limit: str,
) -> None:
    """Export flow records, of the last hour unless another time is given.

    EXPR is in the words of pcap-filter(7): only packets that match it count. To have the flows of every segment sent as
    soon as it is closed, declare `ipfix = "HOST:PORT"` in the capture.
    """
    if ipfix is None and target is None:
        raise UsageError(FORGETFUL)
    if ipfix is not None and target is not None:
        raise UsageError("--ipfix and -o are two ways to go; write one of them")
    from agent.workers.flows.records import Effort, Origins

    origins, effort = Origins(), Effort(deadline=deadline(time_limit))
    paths = session.paths()
    stores = choice.stores(paths)
    effort.unreadable += stores.notes if stores.stores else [nothing(paths)]
    timeouts = round(idle * SECOND), round(active * SECOND)
    found = _records(choice, stores.stores, origins, effort, timeouts)
    if ipfix is not None:
        _to_collector(session, ipfix, found, origins, effort)
    elif target is not None:
        _to_lines(session, target, found, origins, effort)
    warn(effort.unreadable)
    limited_by.warn(effort.stopped)


def _records(
    choice: Choice,
    stores: list[Store],
    origins: Origins,
    effort: Effort,
    timeouts: tuple[int, int],
) -> Iterator[Records]:
    """What is over, as time goes on; store by store."""
    from agent.workers.flows.ended import Ending

    for store in stores:
        ending = Ending(*timeouts)
        for batch in choice.batches([store], origins, effort, timeouts[0]):
            yield ending.add(batch.rows, batch.until)
        yield ending.finish(choice.within.end)


def _to_collector(session: Session, text: str, found: Iterator[Records], origins: Origins, effort: Effort) -> None:
    import time

    import numpy as np

    from agent.declaration.collector import parse_collector
    from agent.workers.flows import ipfix
    from agent.workers.flows.sender import Sender
    from agent.workers.index.model import IPV4, IPV6

    domains: dict[tuple[str, str], ipfix.Domain] = {}
    flows = left = 0
    with Sender(parse_collector(text)) as sender:
        for records in found:
            interfaces = np.array([ipfix.interface_index(name) for _, name in origins.names], np.uint32)
            headers = np.array([ipfix.link_header(link) for link in origins.links], np.uint64)
            flows += len(records.table)
            for number, names in enumerate(origins.names):
                mine = records.table.origin == number
                of = domains.setdefault(names, ipfix.domain(*names))
                for family in (IPV4, IPV6):
                    data = ipfix.encoded(records.only(mine), family, interfaces, headers)
                    sender.send(of, ipfix.messages(of, family, data, time.time))
        sender.settle(SETTLE)
        left = flows - sender.records
        sent = {"collector": str(sender.collector), "records": sender.records, "messages": sender.messages}
    if session.json:
        output.document({**sent, "not_ip": left, **limited_by.document(effort.stopped)})
        return
    line = f"{sent['collector']}: {count(sender.records, 'flow record')} in {count(sender.messages, 'message')}"
    print(line + (f"; {count(left, 'flow')} not of IP left out" if left else ""))


def _to_lines(session: Session, name: str, found: Iterator[Records], origins: Origins, effort: Effort) -> None:
    from agent.workers.flows.lines import encoded, lines

    number = 0
    with writing(name) as target:
        for records in found:
            for line in lines(records.table, origins.names, records.reasons):
                target.write(encoded(line))
                number += 1
    told(session, name, count(number, "flow record"), {"records": number, **limited_by.document(effort.stopped)})
