"""What nmap says of its packets while it finds out who is there (``--packet-trace``), line by line. Pure.

nmap's XML tells of an address when all of its run had their time; this tells what was sent to whom, and what came back,
when it happens. The lines are made for people and are described nowhere, so whatever is not known in them says nothing:
an address of which nothing is known is asked again. Read with nmap 7.93; the forms are those of libnetutil/netutil.cc
and scan_engine_connect.cc.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from agent.workers.scan.argv import Probe

Way = Literal["arp"] | Probe
"""By what an address was asked."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A probe that went out."""

    address: str
    way: Way


@dataclass(frozen=True, slots=True)
class Answered:
    """An address that answered what it was asked by ``way``. ``""`` is whatever it was asked by: it says of itself that
    something cannot be reached, or advertises itself as a neighbour. ``reason`` is nmap's word for it, ``mac`` is known
    on the same link only."""

    address: str
    way: Way | Literal[""]
    reason: str
    mac: str = ""


Line = Sent | Answered

_V4: Final = r"([0-9]{1,3}(?:\.[0-9]{1,3}){3})"
_V6: Final = r"([0-9a-f]{0,4}(?::[0-9a-f.]{0,15}){2,8})"
_ANY: Final = rf"(?:{_V4}|{_V6})"
_MAC: Final = r"([0-9A-F]{2}(?::[0-9A-F]{2}){5})"
_AT: Final = r"\([0-9.]+s\) "
_PORTS: Final[dict[str, Way]] = {"443": "443", "80": "80"}
_UNREACHABLE: Final = {"0": "net-unreach", "1": "host-unreach", "2": "proto-unreach", "3": "port-unreach"}
_REASONS: Final = {"R": "reset", "RA": "reset", "SA": "syn-ack"}


def _form(
    text: str, make: Callable[[re.Match[str]], Line | None]
) -> tuple[re.Pattern[str], Callable[..., Line | None]]:
    return re.compile(text, re.ASCII), make


def _connected(match: re.Match[str]) -> Line | None:
    address, way, how = match[1] or match[2], _PORTS[match[3]], match[4]
    if how == "Operation now in progress":
        return Sent(address, way)
    return Answered(address, way, "syn-ack" if how == "Connected" else "conn-refused")


_FORMS: Final = {
    "SENT": (
        _form(rf"SENT {_AT}ICMP \[\S+ > {_V4} Echo request ", lambda found: Sent(found[1], "echo")),
        _form(
            rf"SENT {_AT}TCP \S+ > {_ANY}:(443 S|80 A) ",
            lambda found: Sent(found[1] or found[2], _PORTS[found[3][:-2]]),
        ),
        _form(rf"SENT {_AT}ICMP \[\S+ > {_V4} Timestamp request ", lambda found: Sent(found[1], "timestamp")),
        _form(rf"SENT {_AT}ARP who-has {_V4} tell ", lambda found: Sent(found[1], "arp")),
        _form(rf"SENT {_AT}ICMPv6 \(58\) \S+ > {_V6} \(type=128/", lambda found: Sent(found[1], "echo")),
    ),
    "RCVD": (
        _form(rf"RCVD {_AT}ICMP \[{_V4} > \S+ Echo reply ", lambda found: Answered(found[1], "echo", "echo-reply")),
        _form(
            rf"RCVD {_AT}TCP {_ANY}:(443|80) > \S+ (RA?|SA) ",
            lambda found: Answered(found[1] or found[2], _PORTS[found[3]], _REASONS[found[4]]),
        ),
        _form(
            rf"RCVD {_AT}ICMP \[{_V4} > \S+ Timestamp reply ",
            lambda found: Answered(found[1], "timestamp", "timestamp-reply"),
        ),
        _form(
            rf"RCVD {_AT}ICMP \[{_V4} > \S+ .{{1,80}} \(type=3/code=([0-9]+)\)",
            lambda found: Answered(found[1], "", _UNREACHABLE.get(found[2], "dest-unreach")),
        ),
        _form(
            rf"RCVD {_AT}ARP reply {_V4} is-at {_MAC}\s*$",
            lambda found: Answered(found[1], "arp", "arp-response", found[2].lower()),
        ),
        _form(
            rf"RCVD {_AT}ICMPv6 \(58\) {_V6} > \S+ \(type=129/", lambda found: Answered(found[1], "echo", "echo-reply")
        ),
        _form(rf"RCVD {_AT}ICMPv6 \(58\) {_V6} > \S+ \(type=1/", lambda found: Answered(found[1], "", "dest-unreach")),
        _form(
            rf"RCVD {_AT}neighbor advertisement \S+ > \S+ {_V6} is at {_MAC}\s*$".replace("A-F", "A-Fa-f"),
            lambda found: Answered(found[1], "", "nd-response", found[2].lower()),
        ),
    ),
    "CONN": (
        _form(
            rf"CONN {_AT}TCP \S+ > {_ANY}:(443|80) => (Operation now in progress|Connected|Connection refused)\s*$",
            _connected,
        ),
    ),
}


def read_line(text: str) -> Line | None:
    """What a line says of a probe or an answer; ``None`` when it says nothing of that."""
    for form, make in _FORMS.get(text[:4], ()):
        if found := form.match(text):
            return make(found)
    return None
