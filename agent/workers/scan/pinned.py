"""From declared targets to numbers: files are read and names resolved, once for each run, and what they said is pinned.

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
from typing import Final, Literal

from agent.declaration.sources import LARGEST
from agent.declaration.target_file import parse_target_file
from agent.declaration.targets import file_of, is_name, span
from agent.errors import ConfigurationError, ScanFailure

MOST_OF_A_NAME: Final = 16
"""Addresses of one name that are scanned."""

RESOLVING: Final = 30.0
"""Seconds that all names together may take."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """``targets`` are addresses, networks and ranges. ``single``: the addresses that were named one by one: those are
    asked for their ports whether or not they answer to a discovery. ``names``: of addresses that a name stood for."""

    targets: tuple[str, ...]
    single: frozenset[str]
    names: dict[str, str] = field(default_factory=dict)


async def pin(targets: Iterable[str], key: Literal["targets", "exclude"] = "targets") -> Pinned:
    """What a list of targets means now. Of a name that is excluded all addresses are, however many.

    Raises ``ConfigurationError`` for a file that is wrong, ``ScanFailure`` for a name that cannot be resolved: what is
    to be left out and is not known, must not be scanned by accident.
    """
    flat: list[str] = []
    for target in targets:
        path = file_of(target)
        flat += _read(Path(path), key) if path is not None else [target]
    names = [target for target in dict.fromkeys(flat) if is_name(target)]
    found: dict[str, list[str]] = {}
    try:
        async with asyncio.timeout(RESOLVING):
            for name in names:
                found[name] = (await _resolve(name, key))[: MOST_OF_A_NAME if key == "targets" else None]
    except TimeoutError:
        missing = next(name for name in names if name not in found)
        raise ScanFailure(f"{key}: {missing} cannot be resolved: no answer within {RESOLVING:.0f} s") from None
    pinned = [address for target in flat for address in found.get(target, [target])]
    single = frozenset(target.partition("/")[0] for target in pinned if (one := span(target)).low == one.high)
    by_address = {address: name for name, addresses in found.items() for address in addresses}
    return Pinned(tuple(dict.fromkeys(pinned)), single, by_address)


async def _resolve(name: str, key: str) -> list[str]:
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no name"
        raise ScanFailure(f"{key}: {name} cannot be resolved: {why}") from error
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


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
    return [line.text for line in lines]
