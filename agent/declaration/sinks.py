"""Where notifications go: the grammar of a webhook's URL and of an address of mail. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

from agent.declaration.wording import shown
from agent.errors import UsageError

LONGEST_URL = 2048
LONGEST_ADDRESS = 254
"""Characters: RFC 5321, 4.5.3.1.3, without the brackets."""

PRIVATE = tuple(
    ip_network(text) for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
"""Where a webhook may be spoken to without TLS."""

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST = rf"(?P<name>(?:{_LABEL}\.)*{_LABEL})|\[(?P<address>[0-9A-Fa-f:.]{{2,45}})\]"
# RFC 3986: nothing that a shell, a log or a configuration file would take for something else, and no fragment.
_URL = re.compile(
    rf"(?P<scheme>https?)://(?:{_HOST})(?::(?P<port>[0-9]{{1,5}}))?(?:[/?][A-Za-z0-9._~:/?@!$&()*+,;=%-]*)?",
    re.ASCII,
)
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ADDRESS = re.compile(rf"(?!-)(?P<local>{_ATOM}(?:\.{_ATOM})*)(?:@(?:{_LABEL}\.)*{_LABEL})?", re.ASCII)
_URL_HINT = 'write one such as "https://hooks.example.org/agent"'
_ADDRESS_HINT = 'write one such as "ops@example.org", or a user of this host such as "root"'


def webhook(text: str) -> str:
    """A URL with ``https``, or with ``http`` to this host and to private addresses.

    Raises ``UsageError``, which quotes nothing: any part of what was written may be a token or a password.
    """
    match = _URL.fullmatch(text) if len(text) <= LONGEST_URL else None
    if match is None:
        if "@" in text.partition("://")[2].partition("/")[0]:
            raise UsageError(f"a URL holds no user and no password here; {_URL_HINT}")
        raise UsageError(f"is not a URL that can be posted to; {_URL_HINT}")
    if match["port"] and not 1 <= int(match["port"]) <= 65535:
        raise UsageError("names no port; ports go from 1 to 65535")
    host = match["name"] or match["address"]
    if match["address"] and not _is_address(host):
        raise UsageError(f"has no IPv6 address in its brackets; {_URL_HINT}")
    if match["scheme"] == "http" and not _is_private(host):
        raise UsageError("would go out unencrypted; write https (http is for private addresses alone)")
    return text


def email(text: str) -> str:
    """An address of mail (the dot-atom of RFC 5322, 3.4.1), or the name of a local user. Raises ``UsageError``."""
    match = _ADDRESS.fullmatch(text) if len(text) <= LONGEST_ADDRESS else None
    if match is None or len(match["local"]) > 64:
        raise UsageError(f"{shown(text)} is not an address of mail; {_ADDRESS_HINT}")
    return text


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_private(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    return _is_address(host) and any(ip_address(host) in network for network in PRIVATE)
