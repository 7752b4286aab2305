"""From declared targets to numbers: files are read and names resolved, once for each run, and what they said is pinned.

A run that is continued goes on with the addresses that its names had when it began, whatever the name server says now:
they are stored with it, and without them it would be another plan. What is to be left out is resolved each time: what
has become excluded since is not asked.

What comes of it goes through the same rules as everything else (``plan``, ``allowed``): a name that points where
nothing may be scanned makes the scan fail.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from agent.declaration.sources import LARGEST
from agent.declaration.target_file import parse_target_file
from agent.declaration.targets import file_of, is_name, span, without_interface
from agent.declaration.wording import shown
from agent.errors import ConfigurationError, ScanFailure, StorageFailure
from agent.workers.scan.memory.place import order
from agent.workers.scan.memory.reading import Memory
from agent.workers.scan.store import RESUME_WITHIN

MOST_OF_A_NAME: Final = 16
"""Addresses of one name that are scanned."""

_RECENT: Final = 100
"""Runs among which the last that was not imported is looked for."""

Resolved = dict[str, tuple[str, ...]]
"""Names, and the addresses that they stood for."""

RESOLVING: Final = 30.0
"""Seconds that all names together may take."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """``targets`` are addresses, networks and ranges. ``single``: the addresses that were named one by one: those are
    asked for their ports whether or not they answer to a discovery. ``names``: of addresses that a name stood for."""

    targets: tuple[str, ...]
    single: frozenset[str]
    names: dict[str, str] = field(default_factory=dict)
    resolved: Resolved = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What is not scanned although it was declared, and why, a line each."""


async def pin(
    targets: Iterable[str], key: Literal["targets", "exclude"] = "targets", known: Resolved | None = None
) -> Pinned:
    """What a list of targets means now. Names that are ``known`` already are not resolved.

    Of a name only the first ``MOST_OF_A_NAME`` addresses are scanned, in ascending order, IPv4 first: the same ones in
    whatever order a name server tells them. Of one that is excluded all are left out.

    Raises ``ConfigurationError`` for a file that is wrong or names nothing, ``ScanFailure`` for a name that cannot be
    resolved: what is to be left out and is not known, must not be scanned by accident.
    """
    flat: list[str] = []
    for target in targets:
        path = file_of(target)
        flat += _read(Path(path), key) if path is not None else [target]
    names = [target for target in dict.fromkeys(flat) if is_name(target)]
    for target in flat if key == "targets" else ():
        if not is_name(target) and (why := without_interface(target)):
            raise ConfigurationError(f"{key}: {target} {why}")
    found: dict[str, list[str]] = {}
    try:
        async with asyncio.timeout(RESOLVING):
            for name in names:
                found[name] = list((known or {}).get(name, ())) or await _resolve(name, key)
    except TimeoutError:
        missing = next(name for name in names if name not in found)
        raise ScanFailure(f"{key}: {missing} cannot be resolved: no answer within {RESOLVING:.0f} s") from None
    notes = []
    for name, addresses in found.items() if key == "targets" else ():
        if (more := len(addresses) - MOST_OF_A_NAME) > 0:
            notes.append(
                f"{key}: {name} has {len(addresses)} addresses: {more} are not scanned, from {addresses[-more]} on"
            )
            del addresses[MOST_OF_A_NAME:]
    pinned = [address for target in flat for address in found.get(target, [target])]
    single = frozenset(target.partition("/")[0] for target in pinned if (one := span(target)).low == one.high)
    by_address = {address: name for name, addresses in found.items() for address in addresses}
    resolved = {name: tuple(addresses) for name, addresses in found.items()}
    return Pinned(tuple(dict.fromkeys(pinned)), single, by_address, resolved, tuple(notes))


class Before(NamedTuple):
    """The run that may be continued: its plan, and what its names stood for."""

    plan_hash: str
    resolved: Resolved


def pinned_before(path: Path, site: str, now: float) -> Before | None:
    """What was pinned for the last run of this database, if that is one to continue. A guess that reads only: whether
    it is, ``ScanStore.begin`` decides by the plan that comes of it."""
    try:
        with Memory(path) as memory:
            last = next((run for run in memory.runs(_RECENT) if run.status != "imported"), None)
    except StorageFailure:
        return None
    if last is None or last.folded or last.site != site or not abs(now - last.started) <= RESUME_WITHIN:
        return None
    try:
        resolved = msgspec.convert(last.declared.get("names", {}), Resolved)
    except msgspec.ValidationError:
        return None
    sane = all(_is_address(text) for addresses in resolved.values() for text in addresses)
    return Before(last.plan_hash, resolved) if sane else None


async def _resolve(name: str, key: str) -> list[str]:
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no name"
        raise ScanFailure(f"{key}: {name} cannot be resolved: {why}") from error
    found = {str(answer[4][0]) for answer in answers}
    for text in found:
        if not _is_address(text):
            raise ScanFailure(f"{key}: {name} stands for {shown(text)}, which is no address that can be scanned")
        if key == "targets" and (why := without_interface(text)):
            raise ScanFailure(f"{key}: {name} stands for {text}, which {why}")
    return sorted(found, key=order)


def _is_address(text: str) -> bool:
    """An interface may have any name, and so may the scope of an address."""
    try:
        one = span(text)
    except ValueError:
        return False
    return one.low == one.high and "/" not in text


def _read(path: Path, key: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigurationError(f"{key}: {path} is no file")
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"{key}: {path} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise ConfigurationError(f"{key}: {path} has more than {LARGEST} bytes")
    lines, wrong = parse_target_file(content.decode("utf-8", "replace"))
    if wrong:
        raise ConfigurationError(f"{key}: {path}:{wrong[0].number}: {wrong[0].text}")
    if not lines:  # whoever writes it anew has emptied it first: what it excludes would be scanned
        raise ConfigurationError(f"{key}: {path} names no target")
    return [line.text for line in lines]
