"""``agentctl flows export``: flow records to a collector, or as lines of JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.flow_source import Choice, chosen, warn
from agent.cli.instants import SECOND
from agent.errors import StorageFailure, UsageError
from agent.linux.files import why
from agent.linux.owner import seen_by

if TYPE_CHECKING:
    from agent.linux.users import Credentials
    from agent.workers.flows.ended import Records
    from agent.workers.flows.records import Effort, Origins

LEAST, MOST = "1s", "1d"
"""Of the two timeouts."""

SETTLE = 0.3
"""Seconds in which the network may say that nobody listens, after the last message."""

FORGETFUL = "where to? write --ipfix HOST:PORT, --jsonl FILE, or --jsonl - for stdout"


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from agent.declaration.check import duration

        return duration(LEAST, MOST)(str(value))


@command(
    "export",
    short_help="Send flow records to a collector, or write them as lines of JSON.",
    examples=(
        "agentctl flows export --last 1d --ipfix flows.example.org:4739",
        "agentctl flows export 'udp port 53' --from 14:00 --to 15:00 --jsonl dns.jsonl",
        "agentctl flows export --last 5m --jsonl - | jq 'select(.bytes > 1000000)'",
    ),
)
@click.option("--ipfix", metavar="HOST:PORT", help="Send them to this collector, as IPFIX (RFC 7011) over UDP.")
@click.option("--jsonl", metavar="FILE", help="Write them to FILE, or with `-` to stdout, one object a line.")
@click.option(
    "--idle", type=_Duration(), default="60s", show_default=True, help="A flow that is silent for so long is over."
)
@click.option(
    "--active",
    type=_Duration(),
    default="30m",
    show_default=True,
    help="One that goes on is told of after so long, at the end of a segment.",
)
@chosen
def export(session: Session, choice: Choice, ipfix: str | None, jsonl: str | None, idle: float, active: float) -> None:
    """Export flow records, of the last hour unless another time is given.

    EXPR is in the words of pcap-filter(7): only packets that match it count. To have the flows of every segment sent as
    soon as it is closed, declare `ipfix = "HOST:PORT"` in the capture.
    """
    if ipfix is None and jsonl is None:
        raise UsageError(FORGETFUL)
    if ipfix is not None and jsonl is not None:
        raise UsageError("--ipfix and --jsonl are two ways to go; write one of them")
    from agent.cli.stores import eyes
    from agent.workers.flows.records import Effort, Origins

    origins, effort = Origins(), Effort()
    paths = session.paths()
    user = eyes(paths, choice.services)
    with seen_by(user):
        stores = choice.stores(paths.spool)
    timeouts = round(idle * SECOND), round(active * SECOND)
    found = _records(choice, stores, origins, effort, timeouts, user)
    if ipfix is not None:
        _to_collector(session, ipfix, found, origins)
    elif jsonl is not None:
        _to_lines(session, jsonl, found, origins)
    warn(effort)


def _records(
    choice: Choice,
    stores: list[Path],
    origins: Origins,
    effort: Effort,
    timeouts: tuple[int, int],
    user: Credentials | None,
) -> Iterator[Records]:
    """What is over, as time goes on; store by store."""
    from agent.workers.flows.ended import Ending

    for store in stores:
        ending = Ending(*timeouts)
        batches = choice.batches([store], origins, effort, timeouts[0])
        while True:
            with seen_by(user):
                batch = next(batches, None)
            if batch is None:
                break
            yield ending.add(batch.rows, batch.until)
        yield ending.finish(choice.within.end)


def _to_collector(session: Session, text: str, found: Iterator[Records], origins: Origins) -> None:
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
        told = {"collector": str(sender.collector), "records": sender.records, "messages": sender.messages}
    if session.json:
        output.document({**told, "not_ip": left})
        return
    line = f"{told['records']} flow records sent to {told['collector']} in {told['messages']} messages"
    print(line + (f"; {left} flows are not of IP and were left out" if left else ""))


def _to_lines(session: Session, name: str, found: Iterator[Records], origins: Origins) -> None:
    from agent.workers.flows.lines import encoded, lines

    number = 0
    with _opened(name) as file:
        for records in found:
            written = 0
            for line in lines(records.table, origins.names, records.reasons):
                file.write(encoded(line))
                written += 1
            number += written
    if name == "-":
        return
    if session.json:
        output.document({"file": name, "records": number})
    else:
        print(f"{number} flow records written to {name}")


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """The file to write to; ``-`` is stdout."""
    if name == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    try:
        with Path(name).open("wb") as file:
            yield file
    except OSError as error:
        raise StorageFailure(f"{name}: cannot be written: {why(error)}") from error
