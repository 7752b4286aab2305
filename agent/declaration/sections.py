"""The tables beside ``[agent]`` and ``[service]``: ``[scanning]``, ``[ports]``, ``[expect]`` and ``[notify]``.

From what is expected and who is to be told, and from the services that there are, comes the service ``watch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent.declaration.check import declared_name
from agent.declaration.model import (
    AnyService,
    Command,
    Declared,
    Expect,
    ExpectedPorts,
    Heartbeat,
    Notify,
    Scan,
    Scanning,
    Watch,
)
from agent.declaration.ports import parse_ports, set_name
from agent.declaration.reader import Bad, Fail, Reader
from agent.declaration.resolve_scan import ports_of
from agent.declaration.schema import EXPECT, MOST_ITEMS, NOTIFY, PORT_SET, SCANNING
from agent.declaration.wording import listed, plain, shown
from agent.errors import UsageError

WATCH = "watch"
"""The name of the service that watches. Nobody else may have it where there is one."""

SINKS = ("webhook", "email", "command")

OF_HOST = ("agent", "ports", "scanning", "notify")
"""Sections of the declaration itself, which concern the whole host: no project has them."""

OF_ALL = ("service", "expect")


def read_scanning(reader: Reader, raw: object) -> Scanning:
    """``[scanning]``."""
    if not isinstance(raw, dict):
        reader.fail(("scanning",), f"{shown(raw)} is not a table; write [scanning]")
        return Scanning()
    values = reader.table(raw, SCANNING, ("scanning",)).good
    return Scanning(**values)


def read_port_sets(reader: Reader, raw: object) -> dict[str, str]:
    """``[ports]``: the operator's own sets, in normal form."""
    if not isinstance(raw, dict):
        reader.fail(("ports",), f"{shown(raw)} is not a table; write [ports]")
        return {}
    if len(raw) > MOST_ITEMS:
        reader.fail(("ports",), f"{len(raw)} sets of ports; at most {MOST_ITEMS} are allowed")
        return {}
    sets: dict[str, str] = {}
    for name, value in raw.items():
        try:
            set_name(name)
        except UsageError as error:
            reader.fail(("ports", name), str(error))
        found = reader.read(value, PORT_SET, ("ports", name))
        if not isinstance(found, Bad):
            sets[name] = found
    return sets


def tables(reader: Reader, raw: object, section: Literal["expect", "notify"]) -> dict[str, dict[str, Any]]:
    """The tables ``[SECTION.NAME]``, those with a wrong name too."""
    if not isinstance(raw, dict):
        reader.fail((section,), f"{shown(raw)} is not a table; write [{section}.NAME]")
        return {}
    if len(raw) > MOST_ITEMS:
        reader.fail((section,), f"{len(raw)} of them; at most {MOST_ITEMS} are allowed")
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, table in raw.items():
        try:
            declared_name(name)
        except UsageError as error:
            reader.fail((section, name), str(error))
        if isinstance(table, dict):
            found[name] = table
        else:
            reader.fail((section, name), f"{shown(table)} is not a table; write [{section}.{plain(name)}]")
    return found


def read_expect(
    reader: Reader, name: str, raw: dict[str, Any], project: str | None, sets: Mapping[str, str]
) -> Expect | None:
    """One ``[expect.NAME]``; ``None`` when what it is about is missing or wrong, and that has been noted."""
    path = ("expect", name)
    values = reader.table(raw, EXPECT, path)
    fail = reader.below(path)
    if not values.given("hosts"):
        fail((), 'hosts is missing; write hosts = ["10.20.0.10"]')
    if not values.given("open", "closed", "others"):
        fail((), 'expects nothing; write open = ["tcp/22"], closed or others = false')
    opened = _expected(values.items("open"), "open", sets, fail)
    closed = _expected(values.items("closed"), "closed", sets, fail)
    _check_contradiction(opened, closed, fail)
    if "hosts" not in values.good:
        return None
    return Expect(
        name=name,
        hosts=values.good["hosts"],
        open=opened,
        closed=closed,
        others=values.good.get("others", True),
        severity=values.good.get("severity", "warning"),
        project=project,
    )


def _expected(items: list[tuple[int, Any]], key: str, sets: Mapping[str, str], fail: Fail) -> tuple[ExpectedPorts, ...]:
    found: list[ExpectedPorts] = []
    for position, item in items:
        path = (key, position)
        more = item if isinstance(item, dict) else {"port": item}
        if "port" not in more:
            fail(path, 'port is missing; write { port = "tcp/443", service = "http*" }')
            continue
        ports = parse_ports(text) if (text := ports_of(more["port"], path, sets, fail, top=False)) else None
        patterns = more.get("service"), more.get("version")
        if ports is not None:
            found += [ExpectedPorts("tcp", *span, *patterns) for span in ports.tcp]
            found += [ExpectedPorts("udp", *span, *patterns) for span in ports.udp]
    return tuple(found)


def _check_contradiction(opened: tuple[ExpectedPorts, ...], closed: tuple[ExpectedPorts, ...], fail: Fail) -> None:
    for one in opened:
        for other in closed:
            if one.protocol == other.protocol and one.first <= other.last and other.first <= one.last:
                port = f"{one.protocol}/{max(one.first, other.first)}"
                fail(("closed",), f"{port} is to be open, and closed; keep one of them", "is to be open, too")
                return


def read_notify(reader: Reader, name: str, raw: dict[str, Any]) -> Notify | None:
    """One ``[notify.NAME]``; ``None`` when nothing in it says who is told, and that has been noted."""
    path = ("notify", name)
    values = reader.table(raw, NOTIFY, path)
    fail = reader.below(path)
    ways = [sink for sink in SINKS if values.written(sink)]
    if not values.given(*SINKS):
        fail((), "says nobody to tell; write one of webhook, email and command")
    if len(ways) > 1:
        fail((ways[1],), f"{listed(ways, 'and')} are different ways to tell; keep one, or declare another [notify]")
    if values.written("secret") and not values.given("webhook"):
        fail(("secret",), "signs what goes to a webhook, and this is none; leave it out")
    if not any(sink in values.good for sink in SINKS):
        return None
    if "kinds" in raw and "severity" not in raw:  # who names kinds means them, however grave they are
        values.good["severity"] = "info"
    return Notify(name=name, **values.good)


def watch(
    services: Mapping[str, AnyService], expects: Mapping[str, Expect], notifies: Mapping[str, Notify]
) -> Watch | None:
    """The service that watches, if there is anything to watch for."""
    if not expects and not notifies:
        return None
    return Watch(
        name=WATCH,
        ready="notify",
        heartbeat=Heartbeat(),
        secrets=tuple(sorted({notify.secret for notify in notifies.values() if notify.secret})),
        expects=tuple(expects.values()),
        notifies=tuple(notifies.values()),
        declared=declared(services),
    )


def declared(services: Mapping[str, AnyService]) -> tuple[Declared, ...]:
    """All services but the one that watches, as far as drift is concerned with them."""
    return tuple(_declared(service) for service in services.values() if service.name != WATCH)


def _declared(service: AnyService) -> Declared:
    return Declared(
        name=service.name,
        kind=service.kind,  # type: ignore[arg-type]  # a Watch is not among them
        enabled=service.enabled,
        job=service.timer is not None,
        listens=service.listens if isinstance(service, Command) else "",
        site=service.site if isinstance(service, Scan) else "",
    )
