"""``agentctl capture list``: what is stored, how far back, and how that compares with what is declared."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from agent.cli import accounts, output, table, text
from agent.cli.base import Session, command
from agent.cli.stores import check_interfaces, find, nothing, warn
from agent.cli.which import of_interfaces, of_services
from agent.errors import AgentError
from agent.linux import priority

if TYPE_CHECKING:
    from pathlib import Path

    from agent.declaration.model import Capture
    from agent.workers.capture.retention import Stored
    from agent.workers.capture.stock import Held

HEADS = ("SERVICE", "INTERFACE", "SEGMENTS", "SIZE", "CUT", "OLDEST", "GOES BACK")


@command(
    "list",
    examples=(
        "agentctl capture list",
        "agentctl capture list --segments --interface eth0",
        "agentctl capture list --json | jq '.services[].oldest'",
        "agentctl capture list --segments --json | jq '.segments[] | select(.dropped_kernel > 0)'",
    ),
)
@of_services
@of_interfaces
@click.option("--segments", is_flag=True, help="Show each segment, and what became of its packets.")
def list_segments(session: Session, services: tuple[str, ...], interfaces: tuple[str, ...], segments: bool) -> None:
    """Show for each capture and interface how many segments are stored, their size, and how far back they go.

    CUT is how many of their packets were longer than the snaplen, as far as there are indexes. Below that, for each
    capture: how much of its budget is used, what is pinned, what waits for its index, and of an armed one what waits in
    memory for something to happen.
    """
    from agent.cli.declared import captures

    priority.be_idle()
    paths = session.paths()
    found = find(paths, services)
    check_interfaces(found.stores, interfaces)
    warn(found.notes)
    declared = captures(paths)
    told: list[dict[str, Any]] = []
    apart: list[dict[str, Any]] = []
    for store in found.stores:
        with store.seen() as directory:
            told.append(_told(directory, interfaces, declared.get(store.name)))
            apart += accounts.each(directory, interfaces) if segments else []
    if session.json:
        output.document({"services": told, **({"segments": apart} if segments else {}), "unreadable": found.notes})
        return
    now = time.time()
    rows = [
        (
            *(one["service"], each["interface"], str(each["segments"]), text.size(each["bytes"])),
            accounts.number(each["cut"]),
            *(text.moment(each["oldest"]), text.ago(each["oldest"], now)),
        )
        for one in told
        for each in one["interfaces"]
    ]
    if not rows and not any(one["memory"] for one in told):
        print(nothing(paths))
        return
    if segments:
        table.show(accounts.HEADS, [accounts.row(one) for one in apart], right=accounts.NUMBERS)
        return
    if rows:
        table.show(HEADS, rows, right=("SEGMENTS", "SIZE", "CUT"))
    for one in told:
        if one["segments"] or one["memory"]:
            print(f"{text.safe(one['service'])}: {_line(one, now)}")


def _told(directory: Path, chosen: Collection[str], declared: Capture | None) -> dict[str, Any]:
    from agent.workers.capture.pins import Ranges, read_all
    from agent.workers.capture.stock import held, stock

    found = stock(directory)
    pins = read_all(directory)
    ranges = Ranges(pins)
    names = sorted({one.interface for one in found if not chosen or one.interface in chosen})
    pinned = held(one for one in found if ranges.touch(one.begin, one.end))
    return {
        "service": directory.name,
        **_figures(held(found)),
        "unindexed": sum(not one.indexed for one in found),
        "pins": len(pins),
        "pinned_bytes": pinned.bytes,
        "budget": declared and declared.budget,
        "max_age": declared and declared.max_age,
        "memory": _in_memory(directory),
        "interfaces": [
            {
                "interface": name,
                **_figures(held(one for one in found if one.interface == name)),
                "cut": sum(_cut(directory, one) for one in found if one.interface == name and one.indexed),
            }
            for name in names
        ],
    }


def _figures(part: Held) -> dict[str, Any]:
    oldest = None if part.since is None else part.since / 1e9
    return {"segments": part.segments, "bytes": part.bytes, "oldest": oldest}


def _cut(directory: Path, one: Stored) -> int:
    from agent.workers.capture.catalogue import INDEX
    from agent.workers.capture.naming import segment_name
    from agent.workers.index.head import cut_in

    return cut_in(directory / one.interface / segment_name(one.begin, INDEX)) or 0


def _in_memory(directory: Path) -> dict[str, Any] | None:
    """What an armed capture keeps there; ``None`` when none does. Its directory is its user's own."""
    from agent.workers.capture.shm import found
    from agent.workers.capture.stock import held, stock

    places = found(directory)
    if not places:
        return None
    segments = []
    for place in places:
        with suppress(AgentError):
            segments += stock(place)
    return _figures(held(segments))


def _line(one: dict[str, Any], now: float) -> str:
    """Such as ``19.8 GiB of 20.0 GiB, goes back 3d 4h; 2 pins hold 1.20 GiB; 3 segments without an index``."""
    size = text.size(one["bytes"])
    if one["budget"]:
        size += f" of {text.size(one['budget'])} ({one['bytes'] / one['budget']:.0%})"
    parts = [f"{size}, goes back {text.duration(now - one['oldest'])}" if one["segments"] else "nothing on disk"]
    if memory := one["memory"]:
        back = "" if memory["oldest"] is None else f", back {text.duration(now - memory['oldest'])}"
        parts.append(f"{text.size(memory['bytes'])} in memory until something triggers it{back}")
    if one["pins"]:
        parts.append(f"{one['pins']} pin{' holds' if one['pins'] == 1 else 's hold'} {text.size(one['pinned_bytes'])}")
    if one["unindexed"]:
        parts.append(f"{text.count(one['unindexed'], 'segment')} without an index yet")
    return "; ".join(parts)
