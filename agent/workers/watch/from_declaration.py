"""What is declared, as drift takes it: expectations with addresses in place of names, and ports of services."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final

from agent.declaration.model import Declared, Expect, ExpectedPorts
from agent.declaration.ports import parse_ports
from agent.declaration.targets import is_name
from agent.workers.watch.expectation import Expectation, Network, Span, Wanted
from agent.workers.watch.sources import DeclaredPort

LONGEST_SPAN: Final = 1024
"""Ports in one span of ``open``, each of which must be open. Of a longer one nobody means that: its ports may be."""

WEIGHTS: Final = {"info": -2, "notice": -1, "warning": 0, "err": 1}
"""By how many steps the ``severity`` of an expectation moves what it finds."""

AGAIN: Final = 3600.0
"""Seconds until a name is resolved anew."""

PATIENCE: Final = 5.0
PAUSE: Final = 300.0
"""Seconds: when a name server takes so long to say nothing, none is asked for so long."""

MOST_ADDRESSES: Final = 64
"""Of one name."""


class Unresolved(Exception):
    """A name has no address now; the text says which, and why."""


class Names:
    """Resolves names, and remembers them: what cannot be resolved again is where it was."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._silent_until = float("-inf")

    def addresses(self, name: str) -> list[str]:
        """Its addresses. Raises ``Unresolved``."""
        began = self._clock()
        at, found = self._known.get(name, (float("-inf"), []))
        if began - at < AGAIN:
            return found
        why = "no name server answered just now"
        if began >= self._silent_until:
            try:
                answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))[:MOST_ADDRESSES]
                self._known[name] = (began, found)
                return found
            except (OSError, UnicodeError) as error:
                why = str(getattr(error, "strerror", None) or error)
                if (now := self._clock()) - began >= PATIENCE:
                    self._silent_until = now + PAUSE
        if not found:
            raise Unresolved(f"{name} cannot be resolved: {why}")
        return found


def expectation(declared: Expect, names: Names) -> Expectation:
    """``[expect.NAME]``. Raises ``Unresolved``."""
    networks: list[Network] = []
    named: set[str] = set()
    for text in declared.hosts:
        for host in names.addresses(text) if is_name(text) else [text]:
            found = _networks(host)
            networks += found
            if "-" not in host and "/" not in host:
                named.add(host)
    short = [span for span in declared.open if span.last - span.first < LONGEST_SPAN]
    return Expectation(
        declared.name,
        tuple(networks),
        frozenset(named),
        tuple(
            Wanted(span.protocol, port, span.service or "", span.version or "")
            for span in short
            for port in range(span.first, span.last + 1)
        ),
        _spans(declared.closed),
        _spans(span for span in declared.open if span not in short),
        declared.others,
        WEIGHTS[declared.severity],
    )


def services(declared: Iterable[Declared]) -> list[DeclaredPort]:
    """The ports of this host's declared services that run all the time and say where they listen."""
    found = []
    for service in declared:
        if not service.listens or not service.enabled or service.job:
            continue
        ports = parse_ports(service.listens)
        where = f'listens = "{service.listens}"'
        for protocol, spans in (("tcp", ports.tcp), ("udp", ports.udp)):
            found += [
                DeclaredPort(service.name, protocol, port, where)
                for low, high in spans
                if high - low < LONGEST_SPAN
                for port in range(low, high + 1)
            ]
    return found


def _spans(spans: Iterable[ExpectedPorts]) -> tuple[Span, ...]:
    return tuple(Span(span.protocol, span.first, span.last) for span in spans)


def _networks(host: str) -> list[Network]:
    low, dash, high = host.partition("-")
    if not dash:
        return [ipaddress.ip_network(host.partition("%")[0])]
    first, last = ipaddress.ip_address(low), ipaddress.ip_address(high)
    return list(ipaddress.summarize_address_range(first, last))
