"""Where a collector of flow records listens: ``HOST:PORT``, an IPv6 address in brackets."""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.declaration.wording import shown
from agent.errors import UsageError

_NAME = r"(?P<name>[A-Za-z0-9_.-]+)"
_BRACKETED = r"\[(?P<address>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]"
_COLLECTOR = re.compile(rf"(?:{_NAME}|{_BRACKETED}):(?P<port>[0-9]+)", re.ASCII)
_HINT = 'write a host and a port, such as "flows.example.org:4739" or "[fd00::5]:4739"'
_LONGEST = 300


class Collector(NamedTuple):
    """``host`` is a name or an address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_collector(text: str) -> Collector:
    """Raises ``UsageError``."""
    match = _COLLECTOR.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise UsageError(f"{shown(text)} is not a collector; {_HINT}")
    port = int(match["port"])
    if not 1 <= port <= 65535:
        raise UsageError(f"{shown(text)} is not a collector; ports go from 1 to 65535")
    return Collector(match["address"] or match["name"], port)
