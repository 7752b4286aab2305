"""What nmap found of a host, as plain typed values.

The element is read with python-nmap's parser. Only its parser: python-nmap's runner would take a target for an option
and an empty answer for a good one. What it drops (the tunnel of a service, all CPEs but the last, certificates) is read
from the same bytes beside it (``dropped``). Everything a stranger's banner can influence is cleaned and cut here, once,
before it is stored or shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from agent.errors import ScanFailure
from agent.workers.scan.dropped import PortFacts, read_dropped
from agent.workers.scan.found import PROTOCOLS, Host, Port, Protocol, Script
from agent.workers.scan.library import nmap
from agent.workers.scan.stream import clean

NAMES_LIMIT = 16
"""Most names of one host, CPEs of one port, guesses of an operating system."""

SCRIPTS_LIMIT = 64
"""Most scripts of which the output of one port or host is kept."""

OUTPUT_LIMIT = 4096
"""Most characters of what one script said."""

# What python-nmap asks of a document beside its hosts. The element comes from `stream`, so it holds no entity.
_HEAD = b"<nmaprun>"
_TAIL = b"<runstats><finished/><hosts/></runstats></nmaprun>"


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


def read_host(element: bytes, asked: Mapping[str, str] | None) -> Host:
    """Read one ``<host>`` element of nmap's XML.

    ``asked`` holds the addresses that nmap was given: without their zone, which nmap leaves out, to with it. ``None``:
    nobody knows them, since somebody else ran it.

    Raises ``ScanFailure`` when it cannot be understood, or tells of an address that was not asked for.
    """
    # The constructor starts `nmap -V`; the parser needs nothing of what it sets up.
    parser = nmap.PortScanner.__new__(nmap.PortScanner)
    try:
        found: dict[str, dict[str, Any]] = parser.analyse_nmap_xml_scan(_HEAD + element + _TAIL)["scan"]
        ((address, entry),) = found.items()
        facts = read_dropped(element)
        host = _host(address, entry, facts.ports)
    except (nmap.PortScannerError, AttributeError, KeyError, TypeError, ValueError, SyntaxError) as error:
        # Not the text of the error: PortScannerError holds the whole document.
        raise ScanFailure(f"nmap's XML cannot be understood ({type(error).__name__})") from error
    if asked is None:
        return host
    if host.address not in asked:
        raise ScanFailure(f"nmap answered for {host.address}, which was not asked for")
    return replace(host, address=asked[host.address])


def without_zones(addresses: tuple[str, ...]) -> dict[str, str]:
    """Addresses as nmap tells them to as they were given to it; a run of nmap has addresses of one zone only."""
    return {address.partition("%")[0]: address for address in addresses}


def _host(address: str, entry: dict[str, Any], facts: Mapping[tuple[str, int], PortFacts]) -> Host:
    ports = [
        _port(protocol, number, fields, facts.get((protocol, number), PortFacts()))
        for protocol in PROTOCOLS
        for number, fields in entry.get(protocol, {}).items()
    ]
    names = (clean(name["name"]) for name in entry["hostnames"][:NAMES_LIMIT])
    guesses = (f"{match['name']} ({match['accuracy']} %)" for match in entry.get("osmatch", [])[:NAMES_LIMIT])
    scripts = {script["id"]: script["output"] for script in entry.get("hostscript", [])}
    return Host(
        address=str(ip_address(address)),
        state=clean(entry["status"]["state"]),
        reason=clean(entry["status"]["reason"]),
        mac=clean(entry["addresses"].get("mac")).lower(),
        names=tuple(name for name in names if name),
        ports=tuple(sorted(ports, key=lambda port: (PROTOCOLS.index(port.protocol), port.number))),
        os=tuple(clean(guess) for guess in guesses),
        scripts=_scripts(scripts),
    )


def _port(protocol: Protocol, number: int, fields: dict[str, Any], facts: PortFacts) -> Port:
    if not 0 <= number <= 65535:
        raise ValueError(number)
    return Port(
        protocol=protocol,
        number=number,
        state=clean(fields["state"]),
        reason=clean(fields["reason"]),
        service=clean(fields["name"]),
        product=clean(fields["product"]),
        version=clean(fields["version"]),
        extrainfo=clean(fields["extrainfo"]),
        tunnel=clean(facts.tunnel),
        cpe=tuple(clean(text) for text in facts.cpe[:NAMES_LIMIT]),
        method=clean(facts.method),
        hostname=clean(facts.hostname),
        ostype=clean(facts.ostype),
        devicetype=clean(facts.devicetype),
        ttl=facts.ttl,
        fingerprint=clean(facts.fingerprint, OUTPUT_LIMIT),
        certificate=facts.certificate,
        scripts=_scripts(fields.get("script", {})),
    )


def _scripts(said: Mapping[str, str]) -> tuple[Script, ...]:
    """Sorted by name: nmap tells them as they end."""
    names = sorted(said)[:SCRIPTS_LIMIT]
    return tuple(Script(clean(name), clean(said[name], OUTPUT_LIMIT)) for name in names)
