"""What python-nmap drops of a host, read from the same XML: tunnels, all CPEs, how a service is known, certificates.

The bytes are those of one ``<host>`` element out of ``stream``: bounded, and free of entities, since a document type
that declares any was refused. Texts are handed on as they are; ``results`` cleans them. Elements are those of nmap.dtd,
and those of its script ssl-cert, whose elements are described in the script itself.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

from agent.workers.scan.found import CERTIFICATE_SCRIPT, Certificate
from agent.workers.scan.stream import clean

"""nmap's script that shows what certificate a port has, through STARTTLS as well where a protocol has that."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME_PARTS = 32
_DER_LIMIT = 65536
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]{1,100000})-----END CERTIFICATE-----", re.ASCII)


@dataclass(frozen=True, slots=True)
class PortFacts:
    """Of one port, as in ``found.Port``."""

    tunnel: str = ""
    cpe: tuple[str, ...] = ()
    method: str = ""
    hostname: str = ""
    ostype: str = ""
    devicetype: str = ""
    ttl: int = 0
    fingerprint: str = ""
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Of one host; ``ports`` by protocol and number."""

    ports: dict[tuple[str, int], PortFacts]


def read_dropped(element: bytes) -> HostFacts:
    """Read a ``<host>`` element. Raises ``SyntaxError`` (ParseError is one) or ``ValueError`` if it is none."""
    host = ElementTree.fromstring(element)  # noqa: S314  # `stream` refuses entities, and bounds its size
    ports = host.iterfind("ports/port")
    return HostFacts({(port.get("protocol", ""), int(port.get("portid", ""))): _port_facts(port) for port in ports})


def _port_facts(port: ElementTree.Element) -> PortFacts:
    state, service = port.find("state"), port.find("service")
    ttl = state.get("reason_ttl", "") if state is not None else ""
    script = next((script for script in port.iterfind("script") if script.get("id") == CERTIFICATE_SCRIPT), None)
    certificate = _certificate(script) if script is not None else None
    number = int(ttl) if ttl.isascii() and ttl.isdecimal() and len(ttl) <= 3 else 0
    if service is None:
        return PortFacts(ttl=number, certificate=certificate)
    return PortFacts(
        tunnel=service.get("tunnel", ""),
        cpe=tuple(cpe.text or "" for cpe in service.iterfind("cpe")),
        method=service.get("method", ""),
        hostname=service.get("hostname", ""),
        ostype=service.get("ostype", ""),
        devicetype=service.get("devicetype", ""),
        ttl=number,
        fingerprint=service.get("servicefp", ""),
        certificate=certificate,
    )


def _certificate(script: ElementTree.Element) -> Certificate | None:
    """``None`` when the script saw none, or wrote it in a way that cannot be read."""
    elements = {element.get("key"): element.text or "" for element in script.iterfind("elem")}
    tables = {table.get("key"): table for table in script.iterfind("table")}
    digest = _digest(elements)
    if not digest:
        return None
    validity = {element.get("key"): element.text or "" for element in _elements(tables.get("validity"))}
    return Certificate(
        sha256=digest,
        subject=_name(tables.get("subject")),
        issuer=_name(tables.get("issuer")),
        not_before=_seconds(validity.get("notBefore", "")),
        not_after=_seconds(validity.get("notAfter", "")),
    )


def _digest(elements: Mapping[str | None, str]) -> str:
    """SHA-256 of the certificate; as it is told where there is no PEM, as in what ``exporting`` writes."""
    match = _PEM.search(elements.get("pem", ""))
    if match is None:
        told = elements.get("sha256", "").replace(":", "").lower()
        return told if _SHA256.fullmatch(told) else ""
    try:
        der = binascii.a2b_base64(match[1])
    except binascii.Error:
        return ""
    return hashlib.sha256(der).hexdigest() if 0 < len(der) <= _DER_LIMIT else ""


def _elements(table: ElementTree.Element | None) -> Iterator[ElementTree.Element]:
    return iter(()) if table is None else table.iterfind("elem")


def _name(table: ElementTree.Element | None) -> str:
    """``commonName=lab.example, organizationName=Lab``, in an order of our own: nmap's follows a hash table."""
    parts = [(element.get("key") or "", element.text or "") for element in _elements(table)][:_NAME_PARTS]
    parts.sort(key=lambda part: (part[0] != "commonName", part))
    return clean(", ".join(f"{key}={value}" for key, value in parts))


def _seconds(text: str) -> int:
    """``2026-12-27T16:06:27`` (UTC, RFC 5280 4.1.2.5) as unix seconds, 0 when it is none."""
    try:
        return max(0, int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()))
    except (ValueError, OverflowError):
        return 0
