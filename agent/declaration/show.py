"""A declaration as the agent understands it: merged, interpolated, every default spelled out, secrets masked.

What ``render`` writes is a declaration itself. Read again it means the same, apart from what is masked, from the files
that services came from (all stand in one now), and from percentages, which have become sizes.
"""

from __future__ import annotations

import signal
from typing import Any

from msgspec import to_builtins

from agent.declaration.interpolate import escape
from agent.declaration.masking import MASK, mask, mask_field
from agent.declaration.model import (
    AnyService,
    Capture,
    Command,
    Declaration,
    Expect,
    ExpectedPorts,
    Heartbeat,
    Notify,
    Reserve,
    Scan,
    Scanning,
    Timer,
    Trigger,
    Watch,
)
from agent.declaration.timing import CRON_FIELDS
from agent.declaration.units import format_duration, format_size
from agent.declaration.wording import printable

_DURATIONS = ("restart_window", "stop_timeout", "start_timeout")
_CAPTURE_SIZES = ("budget", "ring")


def effective(declaration: Declaration) -> dict[str, Any]:
    """The declaration in the shape of its TOML, with readable units. Keys that are not set are left out."""
    settings = declaration.agent
    agent = _present(
        server=settings.server,
        group=settings.group,
        scheduler=settings.scheduler,
        heartbeat={"interval": format_duration(settings.heartbeat_interval)},
    )
    services = {
        name: _service(service) for name, service in declaration.services.items() if not isinstance(service, Watch)
    }
    scans = any(isinstance(service, Scan) for service in declaration.services.values())
    whole = {
        "agent": agent,
        **({"scanning": to_builtins(declaration.scanning)} if scans or declaration.scanning != Scanning() else {}),
        **_present(ports=declaration.ports),
        "service": services,
        **_present(
            expect={name: _expect(expect) for name, expect in declaration.expects.items()},
            notify={name: _notify(notify) for name, notify in declaration.notifies.items()},
        ),
    }
    masked: dict[str, Any] = _masked(whole, "", declaration)
    return masked


def render(declaration: Declaration) -> str:
    """``effective`` as TOML text. What projects declare says in a comment where it comes from."""

    import tomli_w  # the agent itself shows declarations too, as JSON, and need not carry the writer

    document = _escaped(effective(declaration))
    named = {section: document.pop(section, {}) for section in ("service", "expect", "notify")}
    projects: dict[str, dict[str, str | None]] = {
        "service": {name: service.project for name, service in declaration.services.items()},
        "expect": {name: expect.project for name, expect in declaration.expects.items()},
    }
    parts = [f"# Effective declaration of {printable(declaration.file)}\n"]
    parts.append(tomli_w.dumps(document))
    for section, tables in named.items():
        for name, table in tables.items():
            project = projects.get(section, {}).get(name)
            comment = f"# from projects/{project}.toml\n" if project else ""
            parts.append(comment + tomli_w.dumps({section: {name: table}}))
    return "\n".join(parts)


def _expect(expect: Expect) -> dict[str, Any]:
    return _present(
        hosts=list(expect.hosts),
        open=[_expected(ports) for ports in expect.open],
        closed=[_expected(ports) for ports in expect.closed],
        others=expect.others,
        severity=expect.severity,
    )


def _expected(ports: ExpectedPorts) -> str | dict[str, Any]:
    span = str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
    more = _present(service=ports.service, version=ports.version)
    return {"port": f"{ports.protocol}/{span}", **more} if more else f"{ports.protocol}/{span}"


def _notify(notify: Notify) -> dict[str, Any]:
    return _present(
        webhook=notify.webhook,
        secret=notify.secret,
        email=notify.email,
        command=None if notify.command is None else list(notify.command),
        kinds=list(notify.kinds),
        services=list(notify.services),
        severity=notify.severity,
        group=format_duration(notify.group),
    )


def _service(service: AnyService) -> dict[str, Any]:
    """One service, its own keys first."""
    table: dict[str, Any] = {"kind": service.kind, **_own_keys(service)}
    if service.timer is not None:
        table |= _timer(service.timer)
    table |= _present(
        enabled=service.enabled,
        restart=service.restart,
        max_restarts=service.max_restarts,
        stop_signal=_signal(service.stop_signal),
        ready=service.ready,
        user=service.user,
        group=service.group,
        working_directory=service.working_directory,
        secrets=list(service.secrets),
        log={"size": format_size(service.log.size), "keep": service.log.keep},
        heartbeat=_heartbeat(service.heartbeat),
        limits=_present(
            memory=None if service.limits.memory is None else format_size(service.limits.memory),
            cpus=service.limits.cpus,
            pids=service.limits.pids,
        ),
        environment=service.environment,
    )
    return table | {key: format_duration(getattr(service, key)) for key in _DURATIONS}


def _own_keys(service: AnyService) -> dict[str, Any]:
    match service:
        case Capture():
            return {
                "interfaces": list(service.interfaces),
                "filter": service.filter,
                "rotate": {"size": format_size(service.rotate.size), "every": format_duration(service.rotate.every)},
                "snaplen": service.snaplen,
                "promiscuous": service.promiscuous,
                "fanout": service.fanout,
                **{key: format_size(getattr(service, key)) for key in _CAPTURE_SIZES},
                **_present(ipfix=service.ipfix),
                "min_free": _reserve(service.min_free),
                **({} if service.max_age is None else {"max_age": format_duration(service.max_age)}),
                **({} if service.trigger is None else {"trigger": _trigger(service.trigger)}),
            }
        case Scan():
            return _present(
                targets=list(service.targets),
                exclude=list(service.exclude),
                allow_public=list(service.allow_public),
                profile=service.profile,
                **({} if service.profile == "discovery" else _ports(service)),
                scripts=list(service.scripts),
                rate=service.rate,
                window=list(service.window),
                site=service.site,
                history={
                    "max_age": format_duration(service.history.max_age),
                    "size": format_size(service.history.size),
                    "raw": format_duration(service.history.raw),
                },
                timeout=None if service.timeout is None else format_duration(service.timeout),
            )
        case Command():
            command: dict[str, Any] = {"command": list(service.command)}
            if service.capabilities is not None:
                command["capabilities"] = list(service.capabilities)
            return command | _present(listens=service.listens or None)
        case Watch():
            return {}


def _ports(scan: Scan) -> dict[str, Any]:
    """What only a scan of ports has."""
    silent_again = {"silent_again": format_duration(scan.silent_again)} if scan.profile in ("services", "full") else {}
    return {"ports": scan.ports, "engine": scan.engine, "retries": scan.retries, **silent_again}


def _trigger(trigger: Trigger) -> dict[str, Any]:
    return {
        "before": format_duration(trigger.before),
        "after": format_duration(trigger.after),
        "keep": trigger.keep,
        **({"memory": format_size(trigger.memory)} if trigger.keep == "memory" else {}),
        **_present(on=list(trigger.on) or None, when=list(trigger.when) or None),
    }


def _reserve(reserve: Reserve) -> str:
    return f"{reserve.share * 100:.12g}%" if reserve.share else format_size(reserve.bytes)


def _timer(timer: Timer) -> dict[str, Any]:
    if timer.every is not None:
        when: dict[str, Any] = {"every": format_duration(timer.every)}
    elif timer.source.startswith("cron "):
        when = dict(zip(CRON_FIELDS, timer.source.split()[1:], strict=True))
    else:
        events = timer.source.split("; ")
        when = {"oncalendar": events if len(events) > 1 else events[0]}
    return when | _present(
        timeout=None if timer.timeout is None else format_duration(timer.timeout),
        randomized_delay=format_duration(timer.randomized_delay),
        persistent=None if timer.calendar is None else timer.persistent,
    )


def _heartbeat(heartbeat: Heartbeat | None) -> dict[str, str] | None:
    if heartbeat is None:
        return None
    return {"interval": format_duration(heartbeat.interval), "timeout": format_duration(heartbeat.timeout)}


def _signal(number: int) -> str | int:
    known = {member.value: member.name.removeprefix("SIG") for member in signal.Signals}
    return known.get(number, number)


def _present(**values: Any) -> dict[str, Any]:
    """Without what is not set; TOML has no null."""
    return {key: value for key, value in values.items() if value is not None and value not in ([], {})}


def _masked(value: Any, path: str, declaration: Declaration) -> Any:
    """``value`` without secrets: a field that is known to hold one, and any other text in which one turns up."""
    if isinstance(value, dict):
        return {key: _masked(item, f"{path}.{key}" if path else key, declaration) for key, item in value.items()}
    if path in declaration.masked_fields:
        return mask_field(value, declaration.masked) if isinstance(value, str) else MASK
    if isinstance(value, list):
        return [_masked(item, f"{path}.{number}", declaration) for number, item in enumerate(value)]
    return mask(value, declaration.masked) if isinstance(value, str) else value


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value
