"""``agentctl capture query``: packets found again."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.guard import complain, interruptible
from agent.cli.instants import span, spanned
from agent.cli.stores import check_interfaces, find, nothing
from agent.cli.target import STDOUT, Target, told, written_to
from agent.cli.text import count, instant, size
from agent.cli.which import matching, of_interfaces, of_services
from agent.declaration.capture_limits import endless
from agent.declaration.units import parse_duration, parse_size
from agent.errors import EXIT_RUNTIME, UsageError
from agent.linux import priority

ON_A_TERMINAL = 1000
"""Packets that are listed on a terminal, and put into a document of JSON, when no limit is given."""

IN_A_DOCUMENT = 10_000

TIME_LIMIT = "60s"

GRACE = (1.0, 5.0)
"""Seconds after the time limit when a filter that does not come to an end on a packet is not waited for any more: as
many as the limit itself, within these bounds."""

LIMITS = {"packets": "--limit", "bytes": "--limit-bytes"}

_TELL_EVERY = 0.5


@command(
    "query",
    examples=(
        "agentctl capture query host 10.0.0.5 and port 443 --last 10m",
        "agentctl capture query net 10.2.0.0/16 --from 14:00 --to 14:05 -o found.pcapng",
        "agentctl capture query 'udp port 53 and less 100' --last 1h -o - | wireshark -k -i -",
    ),
)
@matching("[EXPR]...")
@of_services
@of_interfaces
@spanned
@written_to("the packets")
@click.option(
    "--format",
    "form",
    type=click.Choice(("pcapng", "pcap")),
    help="What to write.  [default: pcapng, or what FILE ends in]",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N packets.")
@click.option("--limit-bytes", metavar="SIZE", help="Stop before the packets take more than SIZE, such as 100MiB.")
@click.option(
    "--time-limit", default=TIME_LIMIT, show_default=True, metavar="DURATION", help="Stop after that long; 0 for never."
)
def query(
    session: Session,
    expression: str,
    services: tuple[str, ...],
    interfaces: tuple[str, ...],
    last: str | None,
    begin: str | None,
    end: str | None,
    target: str | None,
    form: str | None,
    limit: int | None,
    limit_bytes: str | None,
    time_limit: str,
) -> None:
    """Find packets that were captured, by EXPR, in the words of pcap-filter(7), in order of time.

    Without -o they are listed, on a terminal up to 1000 of them, as JSON up to 10000. The agent need not run. A query
    stands back for everything else on this host; when a limit ends it, that is told, and the exit code is 0 all the
    same.
    """
    now = time.time_ns()
    within = span(now, last, begin, end)
    seconds = parse_duration(time_limit) or None
    octets = parse_size(limit_bytes) if limit_bytes is not None else None
    if seconds is None and endless(expression):
        raise UsageError("with protochain a query needs a --time-limit: a packet can be made on which it never ends")
    if form is not None and target is None:
        raise UsageError("--format says what is written to a file; name one with -o, or - for standard output")
    if target == STDOUT and sys.stdout.isatty():
        raise UsageError(
            "packets are not for a terminal; name a file with -o, or pipe them: … -o - | wireshark -k -i -"
        )
    told_limit = limit
    if limit is None and target is None:
        told_limit = IN_A_DOCUMENT if session.json else ON_A_TERMINAL if sys.stdout.isatty() else None

    gc.disable()  # what is loaded now stays: to look for garbage in it takes a twentieth of a short query
    from agent.cli.capture_output import Documents, Lines, Pcapng, Savefile, Writer
    from agent.workers.capture import shm
    from agent.workers.capture.timely import ALWAYS
    from agent.workers.retrieval.answer import Answer, Limits

    gc.freeze()
    gc.enable()
    paths = session.paths()
    file = Target(target) if target is not None else None
    priority.be_idle()
    try:
        chosen, left_out = find(paths, services)
        check_interfaces(chosen, interfaces)
        with interruptible(), _ended_after(seconds, file.abandon if file else None):
            answer = Answer(
                [store.path for store in chosen],
                expression,
                interfaces=interfaces,
                within=within or ALWAYS,
                limits=Limits(told_limit, octets, seconds),
                users={store.path: store.user for store in chosen},
            )
            writer: Writer
            if file is None:
                writer = Documents() if session.json else Lines(several=len(chosen) > 1)
            elif (form or ("pcap" if target and target.endswith(".pcap") else "pcapng")) == "pcap":
                writer = Savefile(file.stream, answer)
            else:
                writer = Pcapng(file.stream, answer, _question(expression, last, begin, end))
            try:
                _write(answer, writer)
            except OSError as error:
                raise file.failure(error) if file is not None else error from error
            finally:
                answer.close()
        if file is not None:
            file.finish()
    except BaseException:
        if file is not None:
            file.abandon()
        raise
    unseen = [
        f"{store.name} keeps its packets in memory, unseen, until something triggers it"
        for store in chosen
        if shm.found(store.path)
    ]
    notes = [*map(str, left_out), *(answer.notes if chosen else [nothing(paths)]), *unseen]
    for note in notes:
        complain(f"agentctl: {note}")
    if not session.json:
        _tell_limit(answer, chosen=limit is not None)
    if target is not None:
        words = f"{count(answer.packets, 'packet')}, {size(answer.octets)}"
        told(session, target, words, _figures(answer, notes, time.time_ns() - now))
    elif isinstance(writer, Documents):
        output.document({"found": writer.packets, **_figures(answer, notes, time.time_ns() - now)})
    elif chosen and not answer.packets and not answer.stopped:
        complain("agentctl: no packet was found")


def _question(expression: str, last: str | None, begin: str | None, end: str | None) -> str:
    """What was asked, as it was typed."""
    options = [("--last", last), ("--from", begin), ("--to", end)]
    return " ".join(
        ["agentctl capture query", f"'{expression}'", *(f"{name} {value}" for name, value in options if value)]
    )


def _write(answer: Any, writer: Any) -> None:
    telling = sys.stderr.isatty() and not sys.stdout.isatty()
    due = time.monotonic() + _TELL_EVERY
    for run in answer.runs():
        writer.write(run)
        if telling and time.monotonic() >= due:
            print(f"\r{answer.packets} packets, {size(answer.read)} read ", end="", file=sys.stderr, flush=True)
            due = time.monotonic() + _TELL_EVERY
    writer.end()
    if telling:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _figures(answer: Any, notes: list[str], elapsed: int) -> dict[str, Any]:
    return {
        "packets": answer.packets,
        "bytes": answer.octets,
        "complete": answer.stopped is None and not notes,
        "stopped_by": answer.stopped,
        "searched_until": answer.reached / 1e9 if answer.stopped and answer.reached is not None else None,
        "read_bytes": answer.read,
        "seconds": round(elapsed / 1e9, 3),
        "unreadable": notes,
    }


def _tell_limit(answer: Any, *, chosen: bool) -> None:
    """Which limit ended it, to a person. ``chosen``: a limit of packets was asked for."""
    if answer.stopped is None:
        return
    if answer.stopped == "packets" and not chosen:
        why = "as a terminal is not for more; --limit N or -o FILE is"
    elif answer.stopped == "time":
        reached = "nothing" if answer.reached is None else f"all up to {instant(answer.reached)}"
        why = f"by --time-limit, with {reached} searched"
    else:
        why = f"by {LIMITS[answer.stopped]}; there are more"
    complain(f"agentctl: stopped after {count(answer.packets, 'packet')}, {why}")


@contextmanager
def _ended_after(seconds: float | None, abandon: Callable[[], None] | None) -> Iterator[None]:
    """End the process when it is stuck: libpcap's protochain follows some packets round and round."""
    if seconds is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        if not done.wait(seconds + min(max(GRACE[0], seconds), GRACE[1])):
            if abandon is not None:
                with suppress(OSError):
                    os.seteuid(os.getuid())  # whose the file is
                abandon()
            complain("agentctl: the filter does not come to an end on some packet; stopped by --time-limit")
            os._exit(EXIT_RUNTIME)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
