"""A run for other programs: nmap's XML, JSON, CSV and Markdown. Pure.

Banners in it were written by strangers, so what each format would obey is taken from them: markup, formulas, tables.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from typing import Any, Final

from agent.errors import ScanFailure, StorageFailure
from agent.workers.scan.argv import format_ports
from agent.workers.scan.diff import NOT_OPEN, service
from agent.workers.scan.found import CERTIFICATE_SCRIPT, PROTOCOLS, Certificate, Host, Port, Rest, Script, moment
from agent.workers.scan.memory.coverage import Asked, union
from agent.workers.scan.memory.picture import asked as asked_of
from agent.workers.scan.memory.place import Line, place, text
from agent.workers.scan.memory.rows import Run
from agent.workers.scan.spans import Ranges, merge, size
from agent.workers.scan.stored import Told, doubt
from agent.workers.scan.stream import XmlStream

COLUMNS: Final = (
    *("scan", "address", "names", "mac", "host_state", "protocol", "port", "state", "reason", "tls", "service"),
    *("product", "version", "extrainfo", "cpe", "certificate_sha256", "certificate_until", "os"),
)
"""Of the CSV. ``port`` is one port, or ranges of those that are told of together."""

_FORMULA: Final = re.compile('(^|[;\t\r\n])(?=[\\s"]*[=+@\uff1d\uff0b\uff0d\uff20-])')
"""Before what a spreadsheet takes for a formula (OWASP, CSV injection), the wide forms of these signs among it: at the
beginning of a cell, and of what becomes a cell where the list separator is a semicolon, as in much of Europe, or a tab.
"""

_MARKED: Final = {ord(character): f"&#{ord(character)};" for character in "\\`*_{}[]()#+!|<>~&@:$^="}

_ENTITIES: Final = {ord(character): f"&#{ord(character)};" for character in "&<>\"'\t\n\r"}

_BEYOND_ASCII: Final = {number: f"&#{number};" for number in (*range(0x20), 0x7F) if chr(number) not in "\t\n"}
"""What a terminal might obey, as references; XML knows DEL, and of the others nothing but tab and line ends."""

VERSION: Final = "7.93"
"""Of nmap, the one whose documents these are like: said where none took part, since readers ask for a version."""

_NAME_PART: Final = re.compile(", (?=[A-Za-z0-9.]{1,80}=)")
"""What stands between the parts of the name in a certificate; a value may have a comma in it, too."""

_MOST_WORDS = 2_000
"""Networks that the command line of an exported report names."""


def document(told: Told) -> dict[str, Any]:
    """For JSON: everything. Times are unix seconds, ports that are told of together ranges such as ``1-21,23``."""
    return {
        "scan": told.name,
        "started": told.started,
        "ended": told.ended,
        "tool": told.tool,
        "nmap_version": told.nmap_version,
        "arguments": told.arguments,
        "doubt": told.doubt,
        "hosts_total": told.total,
        "asked": [
            {
                "addresses": [[text(part.line, low), text(part.line, high)] for low, high in part.addresses],
                "ports": {protocol: format_ports(ports) for protocol, ports in part.ports},
                "outcome": part.outcome,
            }
            for part in told.asked
        ],
        "hosts": [_host_document(host) for host in told.hosts],
    }


def _host_document(host: Host) -> dict[str, Any]:
    return {
        "address": host.address,
        "state": host.state,
        "reason": host.reason,
        "mac": host.mac,
        "names": list(host.names),
        "os": list(host.os),
        "open_to_everything": host.everything,
        "scripts": {script.name: script.output for script in host.scripts},
        "ports": [_port_document(port) for port in host.ports],
        "others": [
            {"protocol": rest.protocol, "state": rest.state, "reason": rest.reason, "ports": format_ports(rest.ports)}
            for rest in host.rest
        ],
    }


def _port_document(port: Port) -> dict[str, Any]:
    certificate = port.certificate
    return {
        "protocol": port.protocol,
        "number": port.number,
        "state": port.state,
        "reason": port.reason,
        "service": port.service,
        "product": port.product,
        "version": port.version,
        "extrainfo": port.extrainfo,
        "tunnel": port.tunnel,
        "cpe": list(port.cpe),
        "method": port.method,
        "hostname": port.hostname,
        "ostype": port.ostype,
        "devicetype": port.devicetype,
        "ttl": port.ttl,
        "fingerprint": port.fingerprint,
        "certificate": certificate
        and {
            "sha256": certificate.sha256,
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "not_before": certificate.not_before,
            "not_after": certificate.not_after,
        },
        "scripts": {script.name: script.output for script in port.scripts},
    }


def table(told: Told) -> Iterator[str]:
    """Lines of CSV (RFC 4180) with ``COLUMNS``: one for each port, and for each group of ports."""
    yield _line(COLUMNS)
    for host in told.hosts:
        head = (told.name, host.address, " ".join(host.names), host.mac, host.state)
        system = host.os[0] if host.os else ""
        for port in host.ports:
            certificate = port.certificate or Certificate("")
            yield _line(
                (
                    *(*head, port.protocol, str(port.number), port.state, port.reason, port.tunnel, port.service),
                    *(port.product, port.version, port.extrainfo, " ".join(port.cpe)),
                    *(certificate.sha256, _date(certificate.not_after), system),
                )
            )
        for rest in host.rest:
            ports = format_ports(rest.ports)
            yield _line((*head, rest.protocol, ports, rest.state, rest.reason, *[""] * 8, system))
        if not host.ports and not host.rest:
            yield _line((*head, *[""] * 12, system))


def _line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([inert(cell) for cell in cells])
    return out.getvalue()


def inert(cell: str) -> str:
    """A cell that no spreadsheet calculates: what looks like a formula gets an apostrophe before it, and is text."""
    return _FORMULA.sub(r"\1'", cell)


def _date(when: int) -> str:
    return f"{at:%Y-%m-%d}" if (at := moment(when)) else ""


def markdown(told: Told) -> Iterator[str]:
    """Lines of a page: what was covered, and a table of what is open."""
    began = f"{datetime.fromtimestamp(told.started, UTC):%Y-%m-%d %H:%M:%S} UTC"
    opened = sum(1 for host in told.hosts for _ in host.open_ports())
    up = sum(host.state == "up" for host in told.hosts)
    yield f"# Scan {marked(told.name)}"
    yield ""
    yield f"{began}, {up:,} of {told.total:,} addresses up, {opened:,} ports open."
    if told.doubt:
        yield ""
        yield f"**Not to be relied on for what is missing: {marked(told.doubt)}.**"
    yield ""
    yield "| address | name | port | state | service |"
    yield "|---|---|---|---|---|"
    for host in told.hosts:
        head = f"| {marked(host.address)} | {marked(' '.join(host.names))} |"
        shown = [port for port in host.ports if port.state not in ("closed", "filtered")]
        for port in shown:
            number = f"{port.protocol}/{port.number}"
            yield f"{head} {number} | {marked(port.state)} | {marked(service(port))} |"
        if not shown:
            everything = f"says open to everything ({host.everything:,} ports asked) " if host.everything else ""
            yield f"{head} – | {marked(host.state)} | {everything}|"


def marked(words: str) -> str:
    """Text that Markdown only shows; nothing in it is a link, an element or the end of a cell."""
    return words.translate(_MARKED).replace("www.", "www&#46;").replace("WWW.", "WWW&#46;")


def xml(told: Told) -> Iterator[str]:
    """The parts of a document as nmap.dtd has it, for programs that read nmap's.

    One that does not tell everything says that it did not end well. ``scanner`` has to be ``nmap`` there.
    """
    silent = [part for part in told.asked if part.outcome == "silent"]
    asked = dict(union([*(asked_of(host) for host in told.hosts), *(part.ports for part in silent)]))
    total = len(told.hosts) + sum(size(part.addresses) for part in silent)
    ended = int(told.ended or told.started)
    words = f"agentctl scan export xml {told.name} {' '.join(_networks(told.hosts, silent))}"
    yield _begin(words, told.started, told.nmap_version)
    for protocol in PROTOCOLS:
        if ports := asked.get(protocol):
            kind = {"tcp": "connect", "udp": "udp", "sctp": "sctpinit"}[protocol]
            yield (
                f'<scaninfo type="{kind}" protocol="{protocol}" numservices="{size(ports)}"'
                f' services="{format_ports(ports)}"/>\n'
            )
    yield '<verbose level="0"/>\n<debugging level="0"/>\n'
    for host in told.hosts:
        yield from _host_xml(host, int(told.started), ended)
    up = sum(host.state == "up" for host in told.hosts)
    yield _finish(told.started, ended, told.doubt, f'up="{up}" down="{total - up}" total="{total}"')


def raw(name: str, run: Run, documents: Iterable[bytes]) -> Iterator[bytes]:
    """The parts of one document with what nmap told in a run, in its own words: each host as often as it told of it.

    ``documents`` are those of ``Memory.raw``, one of which is in memory at a time. Each host is a part by itself, and
    nothing but ASCII. Raises ``StorageFailure`` for one that cannot be read.
    """
    words = f"agentctl scan export raw {name} {run.id}"
    yield _begin(words, run.started, run.nmap_version).encode()
    total = 0
    for document in documents:
        elements: list[bytes] = []
        stream = XmlStream(on_host=elements.append)
        try:
            stream.feed(document)
            stream.close()
        except ScanFailure as failure:
            raise StorageFailure(f"nmap's XML of run {run.id} of {name} cannot be read: {failure}") from failure
        total += len(elements)
        for element in elements:
            text = element.decode("utf-8", "replace").translate(_BEYOND_ASCII)
            yield text.encode("ascii", "xmlcharrefreplace") + b"\n"
    ended = int(run.ended or run.started)
    yield _finish(run.started, ended, doubt(run), f'up="{run.hosts_up}" down="0" total="{total}"').encode()


def _begin(words: str, started: float, version: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE nmaprun>\n'
        f'<nmaprun scanner="nmap" args={_quoted(words)} start="{int(started)}" startstr="{_ctime(started)}"'
        f' version={_quoted(version or VERSION)} xmloutputversion="1.05">\n'
    )


def _finish(started: float, ended: int, doubt: str, hosts: str) -> str:
    exit = f'exit="error" errormsg={_quoted(doubt)}' if doubt else 'exit="success"'
    return (
        f'<runstats><finished time="{ended}" timestr="{_ctime(ended)}" elapsed="{ended - int(started)}" {exit}/>'
        f"<hosts {hosts}/>\n</runstats>\n</nmaprun>\n"
    )


def _host_xml(host: Host, began: int, ended: int) -> Iterator[str]:
    plain, _, zone = host.address.partition("%")  # nmap leaves the zone out
    comment = f" comment={_quoted(f'zone={zone}')}" if zone else ""  # nmap.dtd has one of a host; importing reads it
    yield f'<host starttime="{began}" endtime="{ended}"{comment}>'
    yield f"<status state={_quoted(host.state)} reason={_quoted(host.reason)}"
    yield f' reason_ttl="0"/>\n<address addr={_quoted(plain)} addrtype="{"ipv6" if ":" in plain else "ipv4"}"/>\n'
    if host.mac:
        yield f'<address addr={_quoted(host.mac.upper())} addrtype="mac"/>\n'
    names = "".join(f'<hostname name={_quoted(name)} type="PTR"/>\n' for name in host.names)
    yield f"<hostnames>\n{names}</hostnames>\n<ports>"
    for state in sorted({rest.state for rest in host.rest if rest.reason != NOT_OPEN}):
        groups = [rest for rest in host.rest if rest.state == state]
        yield f'<extraports state={_quoted(state)} count="{sum(size(rest.ports) for rest in groups)}">\n'
        yield from map(_reason_xml, groups)
        yield "</extraports>\n"
    yield from map(_port_xml, host.ports)
    yield "</ports>\n"
    if host.os:
        yield "<os>" + "".join(_system_xml(guess) for guess in host.os) + "</os>\n"
    if host.scripts:
        yield "<hostscript>" + "".join(_script_xml(script) for script in host.scripts) + "</hostscript>\n"
    yield "</host>\n"


def _reason_xml(rest: Rest) -> str:
    return (
        f'<extrareasons reason={_quoted(rest.reason)} count="{size(rest.ports)}" proto="{rest.protocol}"'
        f' ports="{format_ports(rest.ports)}"/>\n'
    )


def _port_xml(port: Port) -> str:
    known = any((port.service, port.product, port.version, port.extrainfo, port.tunnel, port.cpe, port.fingerprint))
    parts = [
        f'<port protocol="{port.protocol}" portid="{port.number}"><state state={_quoted(port.state)}'
        f' reason={_quoted(port.reason)} reason_ttl="{port.ttl}"/>'
    ]
    if known:
        values = {
            "name": port.service,
            "product": port.product,
            "version": port.version,
            "extrainfo": port.extrainfo,
            "hostname": port.hostname,
            "ostype": port.ostype,
            "devicetype": port.devicetype,
            "tunnel": port.tunnel,
            "method": "probed" if port.method == "probed" else "table",
            "conf": "10" if port.method == "probed" else "3",
            "servicefp": port.fingerprint,
        }
        told = "".join(f" {name}={_quoted(value)}" for name, value in values.items() if value or name == "name")
        parts.append(f"<service{told}>" + "".join(f"<cpe>{_inside(one)}</cpe>" for one in port.cpe) + "</service>")
    parts += [_script_xml(script, port.certificate) for script in port.scripts]
    if port.certificate and not any(script.name == CERTIFICATE_SCRIPT for script in port.scripts):
        parts.append(_script_xml(Script(CERTIFICATE_SCRIPT, f"Subject: {port.certificate.subject}"), port.certificate))
    return "".join((*parts, "</port>\n"))


def _script_xml(script: Script, certificate: Certificate | None = None) -> str:
    head = f"<script id={_quoted(script.name)} output={_quoted(script.output)}"
    if certificate is None or script.name != CERTIFICATE_SCRIPT:
        return f"{head}/>"
    validity = "".join(
        f'<elem key="{key}">{at:%Y-%m-%dT%H:%M:%S}</elem>'
        for key, when in (("notBefore", certificate.not_before), ("notAfter", certificate.not_after))
        if (at := moment(when))
    )
    names = _name_xml("subject", certificate.subject) + _name_xml("issuer", certificate.issuer)
    digest = f'<elem key="sha256">{_inside(certificate.sha256)}</elem>'
    return f'{head}>{names}<table key="validity">{validity}</table>{digest}</script>'


def _name_xml(key: str, name: str) -> str:
    """``commonName=lab.example, organizationName=Lab``, as ``dropped`` has it in a line, as ssl-cert tells of it."""
    parts = (part.partition("=") for part in _NAME_PART.split(name) if part)
    told = "".join(f"<elem key={_quoted(kind)}>{_inside(value)}</elem>" for kind, _, value in parts)
    return told and f'<table key="{key}">{told}</table>'


def _system_xml(guess: str) -> str:
    """``Linux 5.0 (96 %)``, as ``results`` writes what nmap told in two attributes."""
    name, _, rest = guess.rpartition(" (")
    sure = rest.removesuffix(" %)")
    if not name or not sure.isascii() or not sure.isdecimal():
        name, sure = guess, "100"
    return f'<osmatch name={_quoted(name)} accuracy="{sure[:3]}" line="0"/>\n'


def _networks(hosts: Iterable[Host], silent: Iterable[Asked]) -> list[str]:
    """All addresses that were covered, as targets; none when they are too many words for a command line."""
    lines: dict[Line, list[tuple[int, int]]] = {}
    for host in hosts:
        line, number = place(host.address)
        lines.setdefault(Line(line.family, ""), []).append((number, number))
    for part in silent:
        lines.setdefault(Line(part.line.family, ""), []).extend(part.addresses)
    words = [word for line, ranges in lines.items() for word in _words(line, merge(ranges))]
    return words if len(words) <= _MOST_WORDS else []


def _words(line: Line, ranges: Ranges) -> Iterator[str]:
    for low, high in ranges:
        found = (
            summarize_address_range(IPv4Address(low), IPv4Address(high))
            if line.family == 4
            else summarize_address_range(IPv6Address(low), IPv6Address(high))
        )
        for network in found:
            yield str(network.network_address) if network.num_addresses == 1 else str(network)


def _quoted(words: str) -> str:
    """The value of an attribute, quotes included."""
    return f'"{_inside(words)}"'


def _inside(words: str) -> str:
    return words.translate(_ENTITIES)


def _ctime(when: float) -> str:
    """As ctime(3), in UTC: nmap uses the local time, which nobody who reads it knows."""
    return time.asctime(time.gmtime(when))
