"""What nmap found, as plain typed values.

The document is read with python-nmap's parser. Only its parser: python-nmap's runner would take a target for an option
and an empty answer for a good one. What it drops (the tunnel of a service, all CPEs but the last) was seen when the
document went by (``stream``). Everything a stranger's banner can influence is cleaned and cut here, once, before it is
stored or shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from agent.errors import ScanFailure
from agent.workers.scan.found import PROTOCOLS, Host, Port, Protocol
from agent.workers.scan.library import nmap
from agent.workers.scan.nmap import Answer
from agent.workers.scan.stream import clean

NAMES_LIMIT = 16
"""Most names of one host, and most CPEs of one port."""


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What one chunk found, hosts and ports in ascending order."""

    hosts: tuple[Host, ...]
    nmap_version: str

    @property
    def hosts_up(self) -> int:
        return sum(host.state == "up" for host in self.hosts)

    @property
    def ports_open(self) -> int:
        return sum(port.state == "open" for host in self.hosts for port in host.ports)


def read_results(answer: Answer, addresses: tuple[str, ...]) -> ChunkResult:
    """Read a judged answer about ``addresses``.

    Raises ``ScanFailure`` when it cannot be understood, or tells of an address that was not asked for.
    """
    # The constructor starts `nmap -V`; the parser needs nothing of what it sets up.
    parser = nmap.PortScanner.__new__(nmap.PortScanner)
    try:
        found: dict[str, dict[str, Any]] = parser.analyse_nmap_xml_scan(answer.document)["scan"]
        hosts = [_host(address, entry, answer) for address, entry in found.items()]
    except (nmap.PortScannerError, AttributeError, KeyError, TypeError, ValueError) as error:
        # Not the text of the error: PortScannerError holds the whole document.
        raise ScanFailure(f"nmap's XML cannot be understood ({type(error).__name__})") from error
    # nmap leaves the zone of a link-local address out, and a chunk has one zone only.
    asked = {address.partition("%")[0]: (place, address) for place, address in enumerate(addresses)}
    for host in hosts:
        if host.address not in asked:
            raise ScanFailure(f"nmap answered for {host.address}, which was not asked for")
    hosts.sort(key=lambda host: asked[host.address][0])
    named = (replace(host, address=asked[host.address][1]) for host in hosts)
    return ChunkResult(tuple(named), answer.verdict.version)


def _host(address: str, entry: dict[str, Any], answer: Answer) -> Host:
    ports = [
        _port(address, protocol, number, fields, answer)
        for protocol in PROTOCOLS
        for number, fields in entry.get(protocol, {}).items()
    ]
    names = (clean(name["name"]) for name in entry["hostnames"][:NAMES_LIMIT])
    return Host(
        address=str(ip_address(address)),
        state=clean(entry["status"]["state"]),
        reason=clean(entry["status"]["reason"]),
        mac=clean(entry["addresses"].get("mac")).lower(),
        names=tuple(name for name in names if name),
        ports=tuple(sorted(ports, key=lambda port: (PROTOCOLS.index(port.protocol), port.number))),
    )


def _port(address: str, protocol: Protocol, number: int, fields: dict[str, Any], answer: Answer) -> Port:
    if not 0 <= number <= 65535:
        raise ValueError(number)
    tunnel, cpe = answer.verdict.details.get((address, protocol, number), ("", ()))
    return Port(
        protocol=protocol,
        number=number,
        state=clean(fields["state"]),
        reason=clean(fields["reason"]),
        service=clean(fields["name"]),
        product=clean(fields["product"]),
        version=clean(fields["version"]),
        extrainfo=clean(fields["extrainfo"]),
        tunnel=clean(tunnel),
        cpe=tuple(clean(text) for text in cpe[:NAMES_LIMIT]),
    )
