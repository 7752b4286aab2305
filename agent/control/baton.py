"""What one program in the agent's process hands to the next: everything that execve(2) would lose.

The baton is JSON in a sealed memory file whose descriptor is named in ``AGENT_HANDOVER``. Its outer part never changes
its shape, so that a version which cannot make sense of the rest still knows whom to give the process back to.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import NamedTuple

import msgspec

from agent.control.console import Untold
from agent.errors import RuntimeFailure
from agent.linux import memfd
from agent.linux.environment import Program
from agent.supervisor.engine import SupervisorState
from agent.telemetry.events import History

FORMAT = 1
"""Raised when a program of the version before could not make sense of ``Inner`` any more. Older ones are read."""

VARIABLE = "AGENT_HANDOVER"
REFUSED = "AGENT_HANDOVER_REFUSED"
"""Why the next program gave the process back."""

LARGEST = 256 * 1024 * 1024
"""Bytes of a baton at most: 10,000 services need a tenth of that."""


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    """``control`` is the descriptor of the control socket, and ``remove`` its path when it is ours to remove.

    ``pipes`` tells by inode whose output a stored pipe carries, should the descriptors have to come from systemd.
    ``credential`` tells the edition of the declaration that is in effect, if it is one; ``reloading``, whether it was a
    reload that led here, for which that has to be a new one.
    """

    since: float
    lock: int
    control: int
    remove: str | None
    supervisor: SupervisorState
    history: History
    pipes: dict[int, str]
    console: Untold = Untold()
    credential: tuple[int, int, int] | None = None
    reloading: bool = False


class Outer(msgspec.Struct, frozen=True, kw_only=True):
    """``frozen_at`` is CLOCK_MONOTONIC seconds, ``descriptors`` are all that were inherited, this file's excepted."""

    format: int
    id: str
    version: str
    program: Program
    frozen_at: float
    descriptors: list[int]
    inner: msgspec.Raw


class Received(NamedTuple):
    """A baton as it arrived: the descriptor of its file, its outer part, and why it came back, if it did."""

    fd: int
    outer: Outer
    refused: str | None

    def inner(self) -> Inner:
        """Raises ``RuntimeFailure`` when this version cannot make sense of it."""
        if not 1 <= self.outer.format <= FORMAT:
            raise RuntimeFailure(f"the state is of format {self.outer.format}, and this version reads up to {FORMAT}")
        try:
            return msgspec.json.decode(self.outer.inner, type=Inner)
        except (ValueError, RecursionError) as error:  # a DecodeError, or bytes that are no text
            raise RuntimeFailure(f"the state of version {self.outer.version} cannot be read: {error}") from error


def seal(outer: Outer) -> int:
    """The baton's file. Raises ``OSError``, and ``RuntimeFailure`` for one that nobody would read."""
    data = msgspec.json.encode(outer)
    if len(data) > LARGEST:
        raise RuntimeFailure(f"the state takes {len(data)} bytes, more than {LARGEST}")
    return memfd.seal("agent-handover", data)


def received(environ: MutableMapping[str, str]) -> Received | None:
    """The baton that this process was handed, if it was; takes its variables out of ``environ``.

    Raises ``RuntimeFailure`` when there is one that cannot be read at all.
    """
    number, refused = environ.pop(VARIABLE, None), environ.pop(REFUSED, None)
    if number is None:
        return None
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise RuntimeFailure(f"{VARIABLE} names no descriptor")
    return Received(int(number), opened(int(number)), refused)


def opened(fd: int) -> Outer:
    """The outer part of the baton in a file. Raises ``RuntimeFailure``."""
    try:
        content = memfd.read(fd, LARGEST)
        os.set_inheritable(fd, False)
        return msgspec.json.decode(content, type=Outer)
    except (OSError, ValueError, RecursionError) as error:
        raise RuntimeFailure(f"what the program before has left cannot be read: {error}") from error
