"""What changes in an answer each time it is given, made equal before two answers are compared. Pure.

A web server says what time it is, a database how long it has been up and under which number it knows us: no operator
wants to hear of that each night. What identifies a service, such as the key of an SSH server or a certificate, is left
as it is.
"""

from __future__ import annotations

import re
from typing import Final

STAND_IN: Final = "*"

EXACT: Final = frozenset({"ssl-cert", "ssh-hostkey", "ssl-known-key", "tls-alpn", "sshv1"})
"""Scripts whose every word counts: a date in them is one that somebody decided on."""

_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6}"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_CLOCK = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?(?:[.,][0-9]{1,9})?(?: ?[AP]M)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}))?"

_TIMES: Final = (
    # RFC 9110, 5.6.7: Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rf"{_DAY},? [0-9]{{1,2}}[ -]{_MONTH}[ -][0-9]{{2,4}} {_CLOCK}{_ZONE}"),
    # ctime(3): Sun Nov  6 08:49:37 1994
    re.compile(rf"(?:{_DAY} )?{_MONTH} {{1,2}}[0-9]{{1,2}} {_CLOCK}{_ZONE}(?: [0-9]{{4}})?"),
    # RFC 3339 and its like: 1994-11-06T08:49:37Z, 1994/11/06 08:49
    re.compile(rf"[0-9]{{4}}[-/][0-9]{{2}}[-/][0-9]{{2}}[T ]{_CLOCK}{_ZONE}"),
)

_DATES: Final = (
    re.compile(r"\b[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}\b"),
    re.compile(rf"\b[0-9]{{1,2}}[ -]{_MONTH}[ -][0-9]{{4}}\b"),
)

_RANDOM: Final = (
    # A number drawn for us: hexadecimal as digests are written, UUIDs (RFC 9562).
    re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"),
    re.compile(r"\b(?=[0-9a-fA-F]{0,63}[0-9])[0-9a-fA-F]{16,512}\b"),
)


_NEXT = r"(?! [A-Z][A-Za-z]{0,20}(?:[ _-][A-Za-z]{1,20}){0,3} ?: )"
"""Where the next name begins: what was on lines of its own stands on one line here (``stream.clean``)."""


def _named(*names: str) -> re.Pattern[str]:
    """``name: value`` and ``name=value``, up to the end of the value."""
    return re.compile(rf"\b({'|'.join(names)})( ?[:=] ?)(?:{_NEXT}[^|;]){{0,120}}", re.IGNORECASE)


_ALL = re.compile(r".+", re.DOTALL)
_HEADERS = _named("set-cookie", "etag", "x-request-id", "x-correlation-id", "age", "expires", "last-modified", "date")
_UPTIME = _named("[a-z_]{0,20}uptime[a-z_ ]{0,20}", "up since", "boot_?time", "start_?time")

_OF_SCRIPT: Final[dict[str, tuple[re.Pattern[str], ...]]] = {
    "http-headers": (_HEADERS,),
    "http-security-headers": (_HEADERS,),
    "http-date": (_ALL,),
    "ssl-date": (_ALL,),
    "clock-skew": (_ALL,),
    "smb2-time": (_ALL,),
    "smb-os-discovery": (_named("system time"),),
    "rdp-ntlm-info": (_named("system_time"),),
    "mysql-info": (_named("thread id", "salt"),),
    "redis-info": (_UPTIME, _named("connected clients", "used memory[a-z ]{0,20}", "process id")),
    "memcached-info": (_UPTIME, _named("current time", "server time", "process id", "curr(?:ent)? connections")),
    "snmp-sysdescr": (_UPTIME,),
    "ntp-info": (_named("receive time stamp", "clock", "reftime", "offset", "frequency", "jitter", "rootdisp"),),
    "fingerprint-strings": (_ALL,),
    "daytime": (_ALL,),
    "rfc868-time": (_ALL,),
    "smb2-vuln-uptime": (_UPTIME,),
    "upnp-info": (_HEADERS,),
}
"""By the name of a script what else of its words changes each time (nmap's own scripts, /usr/share/nmap/scripts)."""


def script(name: str, output: str) -> str:
    """What a script said, without what it says anew each time."""
    if name in EXACT:
        return output
    for pattern in _OF_SCRIPT.get(name, ()):
        output = pattern.sub(_keep_name, output)
    for pattern in (*_TIMES, *_DATES, *_RANDOM):
        output = pattern.sub(STAND_IN, output)
    return " ".join(output.split())


def remark(text: str) -> str:
    """What a service adds to its version (``extrainfo``), without points in time. A date alone may be the version."""
    for pattern in _TIMES:
        text = pattern.sub(STAND_IN, text)
    return text


def _keep_name(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}{STAND_IN}" if found.re.groups else STAND_IN
