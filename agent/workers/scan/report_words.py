"""Words of a report that somebody else wrote, as what they mean. Pure.

Each raises ``ScanFailure`` for what no report of nmap or masscan says.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from xml.etree import ElementTree

from agent.errors import ScanFailure
from agent.workers.scan.found import PROTOCOLS, STATES, Protocol
from agent.workers.scan.memory.place import place
from agent.workers.scan.spans import Ranges, merge
from agent.workers.scan.stream import clean

RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
ZONE: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,14}", re.ASCII)
"""The name of an interface, at most ``ZONE_LIMIT`` long."""
SECONDS: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


def address_of(text: str | None) -> str:
    """As it is written everywhere else. Raises ``ScanFailure``."""
    try:
        address = str(ip_address(text or ""))
        zone = place(address).line.zone
    except ValueError:
        address = zone = ""
    if not address or (zone and not ZONE.fullmatch(zone)):
        raise ScanFailure("the report cannot be understood: a host without an address")
    return address


def element_of(data: bytes) -> ElementTree.Element:
    """One element of a document that ``stream`` has passed."""
    try:
        return ElementTree.fromstring(data)  # noqa: S314  # `stream` refuses entities, and bounds its size
    except ElementTree.ParseError as error:
        raise ScanFailure("the report cannot be understood: an element of another encoding") from error


def ranges_of(text: str) -> Ranges:
    """``1-21,23`` as ranges. Raises ``ScanFailure``."""
    found = []
    for number, part in enumerate(text.split(",", 65_536) if text else ()):
        match = RANGE.fullmatch(part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if number >= 65_536 or not 0 <= low <= high <= 65535:
            raise ScanFailure(f"the report cannot be understood: {clean(part, 40)!r} is not a range of ports")
        found.append((low, high))
    return merge(found)


def state_of(text: str) -> str:
    """The state of a port, one of ``STATES``."""
    if text not in STATES:
        raise ScanFailure(f"the report cannot be understood: {clean(text, 40)!r} is not the state of a port")
    return text


def protocol_of(text: str | None) -> Protocol | None:
    """``None`` for one that is not scanned."""
    return next((protocol for protocol in PROTOCOLS if protocol == text), None)


def seconds_of(text: str | None) -> float:
    """Unix seconds; 0 for what is none."""
    return float(text) if text and SECONDS.fullmatch(text) else 0.0
