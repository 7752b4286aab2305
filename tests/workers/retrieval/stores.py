"""Stores as a capture leaves them, indexed or not, and what tcpdump finds in their segments."""

from __future__ import annotations

import subprocess
from pathlib import Path

from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.index.growing import Growing
from agent.workers.retrieval.offline import Packet
from agent.workers.retrieval.offline import packets as packets_of
from tests.workers.retrieval import traffic

BEGIN = 1_795_183_200 * 1_000_000_000  # 2026-11-20 14:00:00 UTC


def segment(
    store: Path, interface: str, sent: list[Packet], *, link_type: int = traffic.ETHERNET, closed: bool = True
) -> Path:
    """A segment of these packets, named by the first of them."""
    place = store / interface
    place.mkdir(parents=True, exist_ok=True)
    path = place / segment_name(sent[0].time if sent else BEGIN, CLOSED if closed else OPEN)
    path.write_bytes(traffic.file_header(link_type) + b"".join(map(traffic.record, sent)))
    return path


def index(path: Path, *, finish: bool = True) -> None:
    """Its index, as the index process makes it; of an open one what has been sealed."""
    growing = Growing(path)
    list(growing.advance())
    if finish:
        growing.finish(path)
    growing.close()


def tcpdump(path: Path, expression: str, out: Path) -> list[Packet]:
    """The packets of a savefile that tcpdump lets pass."""
    command = ["tcpdump", "--nano", "-r", str(path), "-w", str(out), expression]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    return list(packets_of(out.read_bytes()[FILE_HEADER:]))


def joined(store: Path, out: Path) -> Path:
    """All segments of a store as one savefile, those that begin earlier first: a tcpdump for each would take long."""
    segments = sorted((path.name, path.parent.name, path) for path in store.glob("*/*.p*"))
    parts = [path.read_bytes() for *_, path in segments]
    out.write_bytes(parts[0][:FILE_HEADER] + b"".join(part[FILE_HEADER:] for part in parts))
    return out
