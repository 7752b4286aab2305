"""What commands about scans say of a host or a run in the same words. Pure."""

from __future__ import annotations

from agent.cli import text
from agent.declaration.ports import parse_ports
from agent.errors import ConfigurationError

_LONG = 80
"""Characters of a list of ports that are shown; JSON has all of it."""


def says_everything(ports: int) -> str:
    """Of a host that answers "open" whatever it is asked, such as this many ports."""
    return f"says open to everything ({text.count(ports, 'port')} asked)"


def open_to_everything(hosts: int) -> str:
    """How many hosts of a run do that; empty for none."""
    return f"{text.count(hosts, 'host')} open to everything" if hosts else ""


def remark(reason: str) -> str:
    """Such as ``(says nothing)``: what stands beside the reason for a state, learned when it was asked what it is."""
    told = reason.partition("; ")[2]
    return f"({_REMARKS.get(told, told)})" if told else ""


_REMARKS = {"nmap: tcpwrapped": "hangs up at once"}


def ports(listed: str) -> str:
    """Ports as a run keeps them, in few words: of a long list its beginning, and how many there are."""
    if len(listed) <= _LONG:
        return listed
    beginning = listed[:_LONG].rpartition(",")[0]
    try:
        found = parse_ports(listed)
    except ConfigurationError:
        return f"{beginning},..."
    from agent.workers.scan.spans import size

    sizes = ((size(found.tcp), "tcp"), (size(found.udp), "udp"))
    return f"{' and '.join(f'{some:,} {name}' for some, name in sizes if some)}: {beginning},..."
