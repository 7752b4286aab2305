"""What a duty of the watch is to it, and it to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Turn = Callable[[], None]
"""Called whenever the loop of a duty comes by."""


class Teller(Protocol):
    """What a worker's ``Context`` offers, as far as a duty needs it."""

    def event(self, kind: str, message: str, /, **data: Any) -> None:
        """Report that something happened."""

    def log(self, message: str) -> None:
        """Write one line to the service's log."""


class Duty(Protocol):
    """One thing that the watch does."""

    async def start(self) -> None:
        """Acquire what is needed; what it raises ends the watch."""

    async def run(self, turn: Turn) -> None:
        """Work until cancelled."""

    async def stop(self) -> None:
        """Release everything. Always called once, also when it never started."""

    def status(self) -> str:
        """A few words of how it stands; empty when there is nothing to say."""

    def figures(self) -> Mapping[str, int | float | str | None]:
        """Its numbers by name; no two duties have a name in common."""
