"""Proof that an answer of nmap, of which one stands here, is understood on this machine: for ``agentctl selftest``."""

from __future__ import annotations

from agent.errors import ScanFailure
from agent.linux.process import ExitStatus
from agent.workers.scan import worker
from agent.workers.scan.found import Host
from agent.workers.scan.nmap import judge
from agent.workers.scan.plan import make_plan
from agent.workers.scan.results import given_as, read_host
from agent.workers.scan.stream import XmlStream

WORKER = worker.ScanWorker
"""What a worker is, and so everything that one loads."""

ADDRESS = "192.0.2.7"  # RFC 5737: nobody's
OPEN = {22: "ssh", 443: "https"}

_PORT = '<port protocol="tcp" portid="{}"><state state="open" reason="syn-ack"/><service name="{}"/></port>'
ANSWER = (
    '<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun scanner="nmap" version="7.93">'
    '<taskprogress task="Connect Scan" time="1" percent="50.00" remaining="1" etc="2"/>'
    f'<host><status state="up" reason="user-set"/><address addr="{ADDRESS}" addrtype="ipv4"/><hostnames/><ports>'
    + "".join(_PORT.format(port, name) for port, name in OPEN.items())
    + '</ports></host><runstats><finished exit="success"/><hosts up="1" down="0" total="1"/></runstats></nmaprun>'
).encode()


def understood() -> str:
    """Judge and read the answer as a worker does; returns what it says. Raises ``ScanFailure``."""
    chunk = next(make_plan([ADDRESS], allow_public=[ADDRESS], ports=len(OPEN)).chunks())
    asked = given_as(chunk.addresses)
    hosts: list[Host] = []
    stream = XmlStream(on_host=lambda element: hosts.append(read_host(element, asked)))
    for part in (ANSWER[: len(ANSWER) // 2], ANSWER[len(ANSWER) // 2 :]):
        stream.feed(part)
    judge(ExitStatus(0), stream, len(chunk.addresses), "")
    found = {port.number: port.service for host in hosts for port in host.open_ports()}
    if found != OPEN:
        raise ScanFailure(f"an answer of nmap with open ports {sorted(OPEN)} was read as {sorted(found)}")
    return f"{len(hosts)} host, {len(found)} open ports read from nmap's XML"
