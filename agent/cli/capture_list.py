"""``agentctl capture list``: what is stored, how far back, and how that compares with what is declared."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.errors import AgentError

if TYPE_CHECKING:
    from pathlib import Path

    from agent.declaration.model import Capture
    from agent.paths import Paths

HEADS = ("SERVICE", "INTERFACE", "SEGMENTS", "SIZE", "SINCE", "GOES BACK")


@command("list", examples=("agentctl capture list", "agentctl capture list --json | jq '.services[].since'"))
def list_segments(session: Session) -> None:
    """Show for each capture and interface how many segments are stored, their size, and how far back they go.

    Below that, for each capture: how much of its budget is used, what is pinned, what waits for its index, and of an
    armed one what waits in memory for something to happen.
    """
    from agent.cli.stores import store_of, stores

    paths = session.paths()
    declared = _declared(paths)
    told: list[dict[str, Any]] = []
    for name in stores(paths):
        with store_of(paths, name) as directory:
            told.append(_told(directory, declared.get(name)))
    interfaces = [interface for one in told for interface in one.pop("interfaces")]
    if session.json:
        output.document({"stores": interfaces, "services": told})
        return
    now = time.time()
    if not interfaces:
        print(f"no packets are stored below {paths.spool}")
    rows = [
        (
            *(store["service"], store["interface"], str(store["segments"]), text.size(store["bytes"])),
            datetime.fromtimestamp(store["since"], UTC).isoformat(sep=" ", timespec="seconds"),
            text.duration(now - store["since"]),
        )
        for store in interfaces
    ]
    if rows:
        table.show(HEADS, rows, right=("SEGMENTS", "SIZE"))
    for one in told:
        if one["segments"] or one["memory"]:
            print(f"{text.safe(one['service'])}: {_line(one, now)}")


def _told(directory: Path, declared: Capture | None) -> dict[str, Any]:
    from agent.workers.capture.pins import Ranges, read_all
    from agent.workers.capture.stock import held, stock

    found = stock(directory)
    pins = read_all(directory)
    ranges = Ranges(pins)
    interfaces = []
    for name in sorted({one.interface for one in found}):
        part = held(one for one in found if one.interface == name)
        interfaces.append({"service": directory.name, "interface": name, **_figures(part)})
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
        "interfaces": interfaces,
    }


def _in_memory(directory: Path) -> dict[str, Any] | None:
    """What an armed capture keeps there; ``None`` when none does. Its directory is its user's own."""
    from agent.workers.capture.memory import found
    from agent.workers.capture.stock import held, stock

    places = found(directory)
    if not places:
        return None
    segments = []
    for place in places:
        with suppress(AgentError):
            segments += stock(place)
    return _figures(held(segments))


def _figures(part: Any) -> dict[str, Any]:
    since = None if part.since is None else part.since / 1e9
    return {"segments": part.segments, "bytes": part.bytes, "since": since}


def _line(one: dict[str, Any], now: float) -> str:
    """Such as ``19.8 GiB of 20.0 GiB, goes back 3d 4h; 2 pins hold 1.20 GiB; 3 segments without an index``."""
    size = text.size(one["bytes"])
    if one["budget"]:
        size += f" of {text.size(one['budget'])} ({one['bytes'] / one['budget']:.0%})"
    parts = [f"{size}, goes back {text.duration(now - one['since'])}" if one["segments"] else "nothing on disk"]
    if memory := one["memory"]:
        back = "" if memory["since"] is None else f", back {text.duration(now - memory['since'])}"
        parts.append(f"{text.size(memory['bytes'])} in memory until something triggers it{back}")
    if one["pins"]:
        parts.append(f"{one['pins']} pin{' holds' if one['pins'] == 1 else 's hold'} {text.size(one['pinned_bytes'])}")
    if one["unindexed"]:
        parts.append(f"{one['unindexed']} segment{'' if one['unindexed'] == 1 else 's'} without an index yet")
    return "; ".join(parts)


def _declared(paths: Paths) -> dict[str, Capture]:
    """The captures of the declaration, as far as that can be read: what is stored is told without it, too."""
    from agent.declaration.load import load
    from agent.declaration.model import Capture

    with suppress(AgentError):
        services = load(paths, os.environ).services
        return {name: service for name, service in services.items() if isinstance(service, Capture)}
    return {}
