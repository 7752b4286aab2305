"""Whom a scan may touch.

Targets are addresses and networks, never names: a name may point elsewhere at scan time than when it was checked. The
networks of the organisation itself are allowed as they are (RFC 1918, RFC 4193, loopback, link-local); everything else
only where ``allow_public`` names it; and some addresses never, whatever is declared, because no host stands behind
them or because it must not be asked: multicast, broadcast, unspecified, reserved, and the metadata services of clouds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import (
    IPv4Network,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)

from agent.declaration.wording import shown
from agent.errors import UsageError

MOST_ADDRESSES = 65_536
"""Addresses of one scan at most."""

Network = IPv4Network | IPv6Network

_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_LOOKS_NUMERIC = re.compile(r"[0-9a-fA-F.:/]*[0-9:./][0-9a-fA-F.:/]*")

OWN: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv6Network("::1/128"),
    IPv6Network("fc00::/7"),
    IPv6Network("fe80::/10"),
)

NEVER: tuple[tuple[Network, str], ...] = (
    (IPv4Network("0.0.0.0/8"), "unspecified"),
    (IPv4Network("169.254.169.254/32"), "the metadata service of a cloud"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("255.255.255.255/32"), "broadcast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),
    (IPv6Network("::/128"), "unspecified"),
    (IPv6Network("::ffff:0:0/96"), "IPv4 in disguise"),
    (IPv6Network("fd00:ec2::254/128"), "the metadata service of a cloud"),
    (IPv6Network("ff00::/8"), "multicast"),
)


def target(text: str) -> str:
    """An address or network in its normal form. An IPv6 link-local address may name its interface: ``fe80::1%eth0``."""
    stripped = text.strip()
    address, percent, scope = stripped.partition("%")
    try:
        if "/" not in stripped:
            normal = str(ip_address(address))
            if not percent:
                return normal
            if _SCOPE.fullmatch(scope) and ip_address(address).is_link_local and ":" in address:
                return f"{normal}%{scope}"
        elif not percent:
            return str(ip_network(stripped, strict=True))
    except ValueError:
        pass
    raise UsageError(_why_not(stripped))


def _why_not(text: str) -> str:
    if "%" in text:
        return f"{shown(text)} is not an address; only a link-local one may name its interface: fe80::1%eth0"
    try:
        return f"{shown(text)} has host bits set; write {ip_network(text, strict=False)}"
    except ValueError:
        if not _LOOKS_NUMERIC.fullmatch(text):
            return f'{shown(text)} is a name; write addresses or networks, such as "10.20.0.0/24" or "fd00:20::1"'
        return f'{shown(text)} is not an address or network; write one such as "10.20.0.0/24" or "fd00:20::1"'


def network(normal: str) -> Network:
    """The network of a normalised target; of an address, the network of it alone."""
    return ip_network(normal.partition("%")[0])


def objection(target: str, allowed: Sequence[Network] | None) -> str | None:
    """Why a target must not be scanned, to be read after it, or ``None``.

    ``allowed`` are networks with none that touch (``collapse``); ``None`` when it is not known what is allowed.
    """
    wanted = network(target)
    forbidden = next((reason for never, reason in NEVER if never.overlaps(wanted)), None)
    if forbidden is not None:
        verb = "is" if wanted.num_addresses == 1 else "holds"
        return f"{verb} {forbidden}, which is never scanned; leave it out"
    if allowed is not None and not any(_within(wanted, other) for other in (*OWN, *allowed)):
        return "is public; only scan what is yours, and then name it in allow_public too"
    return None


def count(targets: Sequence[str]) -> int:
    """How many addresses the targets have together; what overlaps counts once."""
    return sum(one.num_addresses for one in collapse([network(text) for text in targets]))


def all_excluded(targets: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether nothing is left to scan. What is excluded without an interface is excluded on every one."""
    scopes = {_scope(text) for text in targets}
    excluded = {scope: collapse([network(text) for text in exclude if _scope(text) in ("", scope)]) for scope in scopes}
    return all(any(_within(network(text), other) for other in excluded[_scope(text)]) for text in targets)


def _scope(normal: str) -> str:
    return normal.partition("%")[2]


def collapse(networks: Sequence[Network]) -> list[Network]:
    """The fewest networks that cover the same addresses."""
    v4 = [one for one in networks if isinstance(one, IPv4Network)]
    v6 = [one for one in networks if isinstance(one, IPv6Network)]
    return [*collapse_addresses(v4), *collapse_addresses(v6)]


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)
