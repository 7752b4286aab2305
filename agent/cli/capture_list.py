"""``agentctl capture list``: what is stored, and how far back."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.linux.owner import owner, seen_by

HEADS = ("SERVICE", "INTERFACE", "SEGMENTS", "SIZE", "SINCE", "GOES BACK")


@command("list", examples=("agentctl capture list", "agentctl capture list --json | jq '.stores[].since'"))
def list_segments(session: Session) -> None:
    """Show for each capture and interface how many segments are stored, their size, and how far back they go."""
    paths = session.paths()
    with seen_by(owner(*paths.owned)):
        stores = [store for directory in sorted(paths.spool.glob("*")) for store in _stores(directory)]
    if session.json:
        output.document({"stores": stores})
        return
    if not stores:
        print(f"no packets are stored below {paths.spool}")
        return
    now = time.time()
    rows = [
        (
            *(store["service"], store["interface"], str(store["segments"]), text.size(store["bytes"])),
            datetime.fromtimestamp(store["since"], UTC).isoformat(sep=" ", timespec="seconds"),
            text.duration(now - store["since"]),
        )
        for store in stores
    ]
    table.show(HEADS, rows, right=("SEGMENTS", "SIZE"))


def _stores(directory: Any) -> list[dict[str, Any]]:
    from agent.workers.capture.catalogue import segments

    found: dict[str, dict[str, Any]] = {}
    for segment in segments(directory) if directory.is_dir() else []:
        name = segment.interface
        store = found.setdefault(
            name,
            {"service": directory.name, "interface": name, "segments": 0, "bytes": 0, "since": segment.begin / 1e9},
        )
        store["segments"] += 1
        for path in (segment.path, segment.index, segment.account):
            with suppress(OSError):
                store["bytes"] += path.stat().st_size
    return list(found.values())
