"""What one scan is to do, settled: names are addresses, words are numbers, and it is known how ports are asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agent.declaration.model import Scan
from agent.declaration.ports import Ports, parse_ports
from agent.declaration.targets import left_out
from agent.errors import ConfigurationError, ScanFailure
from agent.linux.broadcasts import broadcast_addresses
from agent.workers.scan.allowed import Allowed
from agent.workers.scan.found import CERTIFICATE_SCRIPT
from agent.workers.scan.identify import Want
from agent.workers.scan.pinned import Before, Pinned, pin
from agent.workers.scan.plan import Plan, make_plan
from agent.workers.scan.program import Program, choose_scripts, find_nmap
from agent.workers.scan.services_file import read_services, settle
from agent.workers.scan.spans import size
from agent.workers.scan.sweeping import Kind, may_send_raw

DISCOVERED_AT_ONCE = 4096
"""Most addresses of one run of nmap that only discovers: it takes so many at a time itself (PING_GROUP_SZ)."""


@dataclass(frozen=True, slots=True)
class Job:
    """``exclude`` are addresses, networks and ranges; ``kind`` is how TCP ports are asked; ``want`` is what phase 2 is
    to find out, ``None`` when there is none."""

    ports: Ports
    pinned: Pinned
    exclude: tuple[str, ...]
    allowed: Allowed
    plan: Plan
    kind: Kind
    program: Program
    want: Want | None


async def settle_job(service: Scan, log: Callable[[str], None], before: Before | None = None) -> Job:
    """Look up whatever the declaration leaves to this moment and this host.

    ``before`` is the run that may be continued: if what its names stood for then makes the same plan, they stand for
    the same now. Raises ``ConfigurationError`` for targets that must not be scanned, ``ScanFailure`` for what is
    missing here.
    """
    program = find_nmap()
    ports = parse_ports(service.ports) if service.profile != "discovery" else Ports((), ())
    if not ports.settled:
        if program.data is None:
            raise ScanFailure("top-N needs the list of ports that comes with nmap (apt-get install nmap)")
        ports = settle(ports, read_services(program.data / "nmap-services"))
    want = _wanted(service, program)
    broadcasts = _broadcasts(log)
    excluded = (await pin(service.exclude, "exclude")).targets

    how = () if program.privileged else ("discovered by connect",)  # what one cannot see is not for another to continue

    def planned(pinned: Pinned) -> Job:
        never = {**broadcasts, **left_out(pinned.targets)}
        for address in sorted(pinned.single & never.keys()):
            raise ConfigurationError(f"targets: {address} is {never[address]}, which is never scanned; leave it out")
        exclude = (*excluded, *never)
        plan = make_plan(
            pinned.targets,
            exclude,
            service.allow_public,
            ports=max(size(ports.tcp), size(ports.udp)),
            identity=(service.profile, str(ports), service.engine, *sorted(service.scripts), *how),
        )
        allowed = Allowed(service.allow_public, exclude, never)
        return Job(ports, pinned, exclude, allowed, plan, kind, program, want)

    kind = _kind(service, ports, log)
    job = None
    if before is not None and before.resolved:
        with suppress(ConfigurationError):  # of what is so no more
            job = planned(await pin(service.targets, known=before.resolved))
    if before is None or job is None or job.plan.plan_hash != before.plan_hash:
        job = planned(await pin(service.targets))
    for note in job.pinned.notes:
        log(note)
    return job


def _wanted(service: Scan, program: Program) -> Want | None:
    if service.profile not in ("services", "full"):
        return None
    certificates = choose_scripts([CERTIFICATE_SCRIPT], program.data)
    budget = service.budget
    return Want(
        min(service.rate, budget.rate, budget.network_rate, budget.target_rate),
        certificates[0] if certificates else None,
        choose_scripts(service.scripts, program.data) if service.profile == "full" else (),
        system=service.profile == "full" and program.privileged,
    )


def _broadcasts(log: Callable[[str], None]) -> dict[str, str]:
    """The broadcast addresses of the networks that this host is on, each with what it is."""
    try:
        return dict.fromkeys(broadcast_addresses(), "a broadcast address of this host")
    except OSError as error:
        log(f"the kernel does not tell the broadcast addresses of this host: {error.strerror or error}")
        return {}


def _kind(service: Scan, ports: Ports, log: Callable[[str], None]) -> Kind:
    wanted, raw = service.engine, may_send_raw()
    if wanted == "syn" and not raw:
        raise ScanFailure('engine = "syn" needs CAP_NET_RAW, which is not held; "connect" needs nothing')
    if wanted == "auto" and not raw and ports.tcp:
        log("CAP_NET_RAW is not held: ports are asked by connect, not by SYN packets")
    return "connect" if wanted == "connect" or not raw else "syn"
