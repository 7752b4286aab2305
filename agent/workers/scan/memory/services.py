"""Whether the service at a port is another one than before. Pure.

A look tells less on one day than on another: without an answer to a question there is only the number of the port, and
a light look gives a name where a deep one gave a version. So what is missing is no change; only what is told twice and
differs is one, and no point in time is: a service that says how late it is says another thing with each look.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec.structs import replace

from agent.workers.scan.memory.state import Service
from agent.workers.scan.volatile import remark

VAGUE: Final = ("", "unknown", "tcpwrapped")
"""Names under which nmap says that it does not know."""


class Differs(NamedTuple):
    """One difference; ``kind`` as in docs/journal.md."""

    kind: str
    old: str
    new: str


def compare(old: Service, new: Service) -> tuple[Service, list[Differs]]:
    """What is known now, and what of it is another thing than before."""
    changes: list[Differs] = []
    tls, tls_changes = _tls(old, new)
    if new.method != "probed" or new.name in VAGUE:
        # A port that speaks TLS and then says nothing has told that at least.
        known = old if old.name or old.product else replace(new, tunnel=tls.tunnel, certificate=tls.certificate)
        return replace(known, tunnel=tls.tunnel, certificate=tls.certificate), tls_changes
    if old.method != "probed" or old.name in VAGUE:
        return replace(new, tunnel=tls.tunnel, certificate=tls.certificate), tls_changes
    known = new
    if old.name != new.name or _both_differ(old.product, new.product):
        changes.append(Differs("service_changed", old.label, new.label))
    elif not new.product and old.product:
        known = replace(old, method="probed")
    elif _both_differ(old.version, new.version) or _both_differ(remark(old.extrainfo), remark(new.extrainfo)):
        changes.append(Differs("version_changed", old.label, new.label))
        known = replace(new, version=new.version or old.version)
    else:
        known = replace(
            new, version=new.version or old.version, extrainfo=old.extrainfo or new.extrainfo, cpe=new.cpe or old.cpe
        )
    return replace(known, tunnel=tls.tunnel, certificate=tls.certificate), changes + tls_changes


def _tls(old: Service, new: Service) -> tuple[Service, list[Differs]]:
    """``tunnel`` and ``certificate`` of what is known now."""
    if new.tunnel:
        changes: list[Differs] = []
        if not old.tunnel and old.method == "probed" and old.name not in VAGUE:
            changes.append(Differs("tls_added", old.label, new.label))
        if old.certificate and new.certificate and old.certificate.sha256 != new.certificate.sha256:
            changes.append(Differs("certificate_changed", _certificate(old), _certificate(new)))
        return replace(new, certificate=new.certificate or old.certificate), changes
    if old.tunnel and new.method == "probed" and new.name not in VAGUE:
        return new, [Differs("tls_removed", old.label, new.label)]
    return old, []


def _certificate(service: Service) -> str:
    certificate = service.certificate
    return f"{certificate.sha256[:16]} {certificate.subject}".strip() if certificate else ""


def _both_differ(old: str, new: str) -> bool:
    return bool(old and new) and old != new
