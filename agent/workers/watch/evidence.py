"""What each source says, as a row of drift shows it: a line for people, and the same in parts. Pure."""

from __future__ import annotations

from agent.declaration.amounts import count
from agent.workers.watch.expectation import Expectation, answers
from agent.workers.watch.listening import Listener
from agent.workers.watch.row import Evidence
from agent.workers.watch.sources import Claim, DeclaredPort, Known, Look, Scanned, Sight

LISTENING = "listening"
"""As rows depend on it; others are ``scan NAME``, ``capture NAME`` and ``expect NAME``."""

NOBODY = Evidence("listening", "nothing listens at it", {})


def depends(evidence: tuple[Evidence, ...]) -> frozenset[str]:
    """The sources without which nobody can tell whether a row with this evidence still holds."""
    found = set()
    for one in evidence:
        if one.source == "listening":
            found.add(LISTENING)
        for word in ("scan", "capture", "expect"):
            if word in one.data:
                found.add(f"{word} {one.data[word]}")
    return frozenset(found)


def expects(expectation: Expectation, said: str) -> Evidence:
    """What is declared of a host."""
    return Evidence("declared", f"expect.{expectation.name}: {said}", {"expect": expectation.name, "says": said})


def service(declared: DeclaredPort) -> Evidence:
    """What is declared of a service."""
    text = f"service.{declared.service}: {declared.where}"
    return Evidence("declared", text, {"service": declared.service, "says": declared.where})


def scanned(look: Look, key: tuple[str, int]) -> Evidence:
    """What a scan found at a port."""
    found = look.known.port(*key)
    told = answers(found) if found is not None and look.open else ""
    return Evidence(
        "scanned",
        f"{look.scanned.service}, run {look.known.run}: {look.state}" + (f", {told}" if told else ""),
        {
            "scan": look.scanned.service,
            "run": look.known.run,
            "time": look.at,
            "state": look.state,
            "answers": told or None,
        },
    )


def down(scan: Scanned, known: Known) -> Evidence:
    """That a host did not answer a scan."""
    return Evidence(
        "scanned",
        f"{scan.service}, run {known.run}: no answer",
        {"scan": scan.service, "run": known.run, "time": known.at, "state": "down", "answers": None},
    )


def everything(scan: Scanned, known: Known) -> Evidence:
    """That a host says "open" whatever it is asked."""
    asked = count(known.host.everything, "port")
    return Evidence(
        "scanned",
        f"{scan.service}, run {known.run}: open to everything ({asked} asked)",
        {"scan": scan.service, "run": known.run, "time": known.at, "state": "open", "answers": None},
    )


def answered_from(scan: Scanned, known: Known) -> Evidence:
    """From which MAC it did."""
    return Evidence(
        "scanned",
        f"{scan.service}, run {known.run}: from {known.host.mac}",
        {"scan": scan.service, "run": known.run, "time": known.at, "mac": known.host.mac},
    )


def seen(sight: Sight) -> Evidence:
    """That a capture saw a port answer."""
    return Evidence(
        "seen",
        f"{place(sight.capture, sight.interface, sight.vlan)}: {sight.protocol}/{sight.port} answered",
        {
            "capture": sight.capture,
            "interface": sight.interface,
            "vlan": sight.vlan or None,
            "first": sight.first,
            "last": sight.last,
        },
    )


def claimed(claim: Claim) -> Evidence:
    """That a capture saw a MAC have the address."""
    return Evidence(
        "seen",
        f"{place(claim.capture, claim.interface, claim.vlan)}: {claim.mac}",
        {
            "capture": claim.capture,
            "interface": claim.interface,
            "vlan": claim.vlan or None,
            "mac": claim.mac,
            "first": claim.first,
            "last": claim.last,
        },
    )


def place(capture: str, interface: str, vlan: int) -> str:
    """``edge/eth0.7``, as ``agentctl hosts`` writes it."""
    return f"{capture}/{interface}" + (f".{vlan}" if vlan else "")


def listens(listener: Listener) -> Evidence:
    """Who listens at a port of this host."""
    who = [f"{process.name} (PID {process.pid})" for process in listener.processes[:1]]
    if len(listener.processes) > 1:
        who.append(f"{len(listener.processes) - 1} more")
    if listener.owner.words not in ("", listener.space):
        who.append(listener.owner.words)
    if not listener.processes and listener.uid >= 0:
        who.append(f"a process of user {listener.uid}")
    address = f"[{listener.address}]" if ":" in listener.address else listener.address
    on = f"%{listener.interface}" if listener.interface else ""
    within = f" in {listener.space}" if listener.space else ""
    return Evidence(
        "listening",
        f"{address}{on}:{listener.port}{within}" + (f": {', '.join(who)}" if who else ""),
        {
            "address": listener.address,
            "interface": listener.interface or None,
            "namespace": listener.space or None,
            "uid": listener.uid if listener.uid >= 0 else None,
            "pids": [process.pid for process in listener.processes],
            "process": listener.processes[0].name if listener.processes else None,
            "unit": listener.owner.unit or None,
            "container": listener.owner.container or None,
            "in_service": listener.owner.service or None,
            "since": listener.since or None,
        },
    )
