"""What masscan says of a port, an answer at a time. Pure."""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import replace
from typing import Final
from xml.etree import ElementTree

from agent.workers.scan.found import Certificate, Port, Script
from agent.workers.scan.report_words import RANGE, state_of
from agent.workers.scan.results import OUTPUT_LIMIT, SCRIPTS_LIMIT
from agent.workers.scan.stream import clean

_SPEAKS: Final = {
    **{name: name for name in ("ssh", "http", "ftp", "smtp", "pop3", "imap", "vnc", "telnet", "snmp", "ntp")},
    "smb": "microsoft-ds",
    "dns-ver": "domain",
    "memcached": "memcached",
    "rdp": "ms-wbt-server",
}
"""What masscan calls a banner, and nmap the service that has it."""


def answer(known: Port, element: ElementTree.Element) -> Port:
    """What masscan says of a port, added to what it said before."""
    state, service = element.find("state"), element.find("service")
    if state is not None and known.state != "open":
        ttl = state.get("reason_ttl", "")
        known = replace(
            known,
            state=state_of(state.get("state", "")),
            reason=clean(state.get("reason"), 40),
            ttl=int(ttl) if RANGE.fullmatch(ttl) and "-" not in ttl and int(ttl) < 256 else 0,
        )
    if not known.state:
        known = replace(known, state="open")  # it has a banner
    if service is None:
        return known
    name, banner = clean(service.get("name"), 40), service.get("banner", "")
    if name in ("ssl", "X509"):
        known = replace(known, tunnel="ssl", method="probed")
    if name == "X509":
        return replace(known, certificate=_certificate(banner) or known.certificate)
    if name in _SPEAKS:
        known = replace(known, service=_SPEAKS[name], method="probed")
    if banner and name and len(known.scripts) < SCRIPTS_LIMIT:
        said = Script(f"masscan-{name}", clean(banner, OUTPUT_LIMIT))
        known = replace(known, scripts=tuple(sorted({*known.scripts, said}, key=lambda one: (one.name, one.output))))
    return known


def _certificate(text: str) -> Certificate | None:
    """From its DER form in base64, as masscan prints it."""
    try:
        der = binascii.a2b_base64(text[:100_000].encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return Certificate(hashlib.sha256(der).hexdigest()) if der else None
