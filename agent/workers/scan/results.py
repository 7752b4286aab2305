"""What nmap found of a host, as plain typed values.

The element is read with python-nmap's parser. Only its parser: python-nmap's runner would take a target for an option
and an empty answer for a good one. What it drops (the tunnel of a service, all CPEs but the last, certificates) is read
from the same bytes beside it (``dropped``). Everything a stranger's banner can influence is cleaned and cut here, once,
before it is stored or shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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


def read_host(element: bytes, given: Callable[[str], str | None]) -> Host:
    """Read one ``<host>`` element of nmap's XML, as ``read_hosts`` does."""
    (host,) = read_hosts((element,), given)
    return host


def read_hosts(elements: Sequence[bytes], given: Callable[[str], str | None]) -> list[Host]:
    """Read ``<host>`` elements of nmap's XML, each about another host; together they cost less.

    ``given`` turns an address, without the zone that nmap leaves out, into how nmap was given it, ``None`` if it was
    not.

    Raises ``ScanFailure`` when one cannot be understood, or tells of an address that was not asked for.
    """
    # The constructor starts `nmap -V`; the parser needs nothing of what it sets up.
    parser = nmap.PortScanner.__new__(nmap.PortScanner)
    try:
        found: dict[str, dict[str, Any]] = parser.analyse_nmap_xml_scan(b"".join((_HEAD, *elements, _TAIL)))["scan"]
        hosts = [
            _host(address, entry, read_dropped(element).ports if b"<port" in element else {})
            for (address, entry), element in zip(found.items(), elements, strict=True)
        ]
    except (nmap.PortScannerError, AttributeError, KeyError, TypeError, ValueError, SyntaxError) as error:
        # Not the text of the error: PortScannerError holds the whole document.
        raise ScanFailure(f"nmap's XML cannot be understood ({type(error).__name__})") from error
    return [_as_given(host, given(host.address)) for host in hosts]


def _as_given(host: Host, address: str | None) -> Host:
    if address is None:
        raise ScanFailure(f"nmap answered for {host.address}, which was not asked for")
    return host if address == host.address else replace(host, address=address)


def document(elements: Iterable[bytes], version: str) -> bytes:
    """Hosts, as bytes of their elements, as one document of nmap's, such as it is kept and can be read again."""
    number = re.sub("[^A-Za-z0-9.]", "", version)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE nmaprun>\n<nmaprun scanner="nmap" version="{}">'
    elements = tuple(elements)
    tail = f'<runstats><finished exit="success"/><hosts total="{len(elements)}"/></runstats>\n</nmaprun>\n'
    return b"\n".join((head.format(number).encode(), *elements, tail.encode()))


def given_as(addresses: Iterable[str]) -> Callable[[str], str | None]:
    """For ``read_host``, when nmap was given these; a run of nmap has addresses of one zone only."""
    return {address.partition("%")[0]: address for address in addresses}.get


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
