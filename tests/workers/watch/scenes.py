"""Scenes of drift, put together in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, cast

from agent.linux.cgroup_owner import Owner
from agent.workers.scan.found import Host, Port, Protocol, Rest
from agent.workers.watch.drift import judge
from agent.workers.watch.expectation import Expectation, Span, Wanted
from agent.workers.watch.listening import Listener, Process
from agent.workers.watch.row import Row
from agent.workers.watch.sources import Known, Scanned, Sight, Sources

NOW = 1_800_000_000.0
HOUR = 3600.0
DAY = 86400.0
WEB = "10.20.0.10"


def port(text: str, state: str = "open", service: str = "", product: str = "", version: str = "", **more: Any) -> Port:
    """``tcp/22``."""
    protocol, _, number = text.partition("/")
    method = "probed" if service or product else ""
    kind = cast("Protocol", protocol)
    return Port(kind, int(number), state, "", service, product, version, method=method, **more)


def known(
    *ports: Port,
    address: str = WEB,
    closed: tuple[tuple[int, int], ...] = ((1, 1024),),
    filtered: tuple[tuple[int, int], ...] = (),
    state: str = "up",
    at: float = NOW - HOUR,
    since: Mapping[tuple[str, int], float] | None = None,
    mac: str = "",
    run: int = 7,
) -> Known:
    """What a scan of TCP 1 to 1024 knows of a host."""
    rest = (Rest("tcp", "closed", "reset", closed), Rest("tcp", "filtered", "no-response", filtered))
    return Known(Host(address, state, "", mac, ports=ports, rest=rest), run, at, at - 60, since or {})


def scan(*hosts: Known, service: str = "lan_scan", site: str = "") -> Scanned:
    return Scanned(service, {one.host.address: one for one in hosts}, site)


def expect(
    *opened: str | Wanted,
    hosts: tuple[str, ...] = (WEB,),
    closed: tuple[str, ...] = (),
    others: bool = True,
    name: str = "web",
    weight: int = 0,
) -> Expectation:
    """Ports as ``tcp/22``."""
    return Expectation(
        name,
        tuple(ip_network(host) for host in hosts),
        frozenset(host for host in hosts if "/" not in host),
        tuple(one if isinstance(one, Wanted) else Wanted(*_port(one)) for one in opened),
        tuple(Span(*_port(one), _port(one)[1]) for one in closed),
        others=others,
        weight=weight,
    )


def _port(text: str) -> tuple[str, int]:
    protocol, _, number = text.partition("/")
    return protocol, int(number)


def listener(text: str, address: str = "0.0.0.0", *, since: float = NOW - DAY, unit: str = "nginx.service") -> Listener:
    protocol, number = _port(text)
    processes = (Process(321, "nginx", since),) if since else ()
    return Listener(protocol, address, number, owner=Owner(unit), processes=processes)


def sight(text: str, address: str = WEB, *, first: float = NOW - DAY, last: float = NOW - 60) -> Sight:
    return Sight("edge", "eth0", 0, address, *_port(text), first, last)


def rows(*, now: float = NOW, **sources: Any) -> list[Row]:
    return judge(Sources(**sources), now).rows


def told(found: list[Row]) -> list[str]:
    """``high open_undeclared 10.20.0.10 tcp/80``."""
    return [f"{row.severity} {row.key}" for row in found]
