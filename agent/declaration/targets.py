"""Whom a scan may touch.

Targets are addresses, networks, ranges, names of hosts, and files that hold such, one a line. The networks of the
organisation itself are allowed as they are (RFC 1918, RFC 4193, loopback, link-local); everything else only where
``allow_public`` names it; and some addresses never, whatever is declared, because no host stands behind them or because
it must not be asked: multicast, broadcast, unspecified, reserved, and the metadata services of clouds.

A name may point elsewhere when it is scanned than when it was declared. So it stays a name here, and counts as one
address: the worker resolves it once for each plan, pins what it found, and holds that against the same rules.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal, NamedTuple

from agent.declaration.wording import shown
from agent.errors import UsageError

MOST_ADDRESSES = 65_536
"""Addresses of one scan at most."""

FILE = "file:"
"""What a target begins with that is the path of a file of targets."""

Network = IPv4Network | IPv6Network
Family = Literal[4, 6]

_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9_-]+|0x[0-9a-f]*", re.ASCII)
_LAST_PART = re.compile(r"[0-9]{1,3}|[0-9a-f]{1,4}", re.ASCII | re.IGNORECASE)
_LONGEST_NAME = 253  # characters: RFC 1035, 2.3.4
_LONGEST_PATH = 4095  # bytes: PATH_MAX, linux/limits.h
_HINT = 'write one such as "10.20.0.0/24", "10.20.0.1-50" or "nas.example.org"'

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


class Span(NamedTuple):
    """The addresses ``low`` to ``high``, both of them too, as numbers. ``zone`` is the interface of link-local ones."""

    family: Family
    low: int
    high: int
    zone: str = ""


def target(text: str) -> str:
    """A target in its normal form: an address, a network, a range, a name or a file. Raises ``UsageError``."""
    stripped = text.strip()
    if stripped.startswith(FILE):
        return _file(stripped)
    return host(stripped)


def host(text: str) -> str:
    """As ``target``, but no file."""
    stripped = text.strip()
    if is_name(name := stripped.lower().removesuffix(".")):
        return name
    return addresses(stripped)


def addresses(text: str) -> str:
    """An address, a network or a range in its normal form.

    An IPv6 link-local address may name its interface: ``fe80::1%eth0``. A range is written ``10.0.0.1-10.0.0.50``, or
    with the last part of its end alone: ``10.0.0.1-50``, ``fd00::1-ff``.
    """
    stripped = text.strip()
    address, percent, scope = stripped.partition("%")
    try:
        if "-" in stripped and not percent:
            return _range(stripped)
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


def is_name(normal: str) -> bool:
    """Whether a target is the name of a host (RFC 1123, 2.1, in lower case; underscores are in use too).

    What ends in a number is an address to everything that resolves names (inet_aton(3)), and so is no name here.
    """
    labels = normal.split(".")
    return (
        len(normal) <= _LONGEST_NAME
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
        and not _looks_like_a_range(normal)
    )


def file_of(normal: str) -> str | None:
    """The path of the file that a target is; ``None`` when it is none."""
    return normal.removeprefix(FILE) if normal.startswith(FILE) else None


def span(normal: str) -> Span:
    """The addresses of a normalised address, network or range. Raises ``ValueError`` for what is none."""
    plain, percent, zone = normal.partition("%")
    low, dash, high = plain.partition("-")
    if dash:
        first, last = ip_address(low), ip_address(high)
        if percent or first.version != last.version or int(first) > int(last):
            raise ValueError("not a range of addresses")
        return Span(first.version, int(first), int(last))
    network = ip_network(plain)
    if percent and not (_SCOPE.fullmatch(zone) and network.version == 6 and network.is_link_local):
        raise ValueError("only a link-local address may name its interface")
    return Span(network.version, int(network.network_address), int(network.broadcast_address), zone)


def permitted(allow_public: Iterable[str]) -> list[Span]:
    """What may be scanned: the networks of the organisation itself, and those that are named."""
    return merge([*_OWN, *(span(text)._replace(zone="") for text in allow_public)])


def objection(target: str, allowed: Sequence[Span] | None) -> str | None:
    """Why an address, network or range must not be scanned, to be read after it, or ``None``.

    ``allowed`` is what is ``permitted``; ``None`` when that is not known.
    """
    wanted = span(target)
    forbidden = next((reason for never, reason in _NEVER if _touch(never, wanted)), None)
    if forbidden is not None:
        verb = "is" if wanted.low == wanted.high else "holds"
        return f"{verb} {forbidden}, which is never scanned; leave it out"
    if allowed is not None and not _covered(wanted._replace(zone=""), allowed):
        return "is public; only scan what is yours, and then name it in allow_public too"
    return None


def broadcasts(targets: Iterable[str]) -> dict[str, str]:
    """The broadcast addresses of the IPv4 networks among targets (RFC 919, 7), each with its network."""
    networks = (IPv4Network(text) for text in targets if "/" in text and ":" not in text)
    return {str(network.broadcast_address): str(network) for network in networks if network.prefixlen <= 30}


def count(targets: Iterable[str]) -> int:
    """How many addresses the targets have together; what overlaps counts once."""
    return sum(one.high - one.low + 1 for one in merge(span(text) for text in targets))


def all_excluded(targets: Iterable[str], exclude: Iterable[str]) -> bool:
    """Whether nothing is left to scan. What is excluded without an interface is excluded on every one."""
    wanted, holes = merge(span(text) for text in targets), [span(text) for text in exclude]
    left_out = {
        zone: merge(hole._replace(zone=zone) for hole in holes if hole.zone in ("", zone))
        for zone in {one.zone for one in wanted}
    }
    return all(_covered(one, left_out[one.zone]) for one in wanted)


def merge(spans: Iterable[Span]) -> list[Span]:
    """The fewest spans that cover the same addresses, sorted; those of one family and zone that touch are made one."""
    result: list[Span] = []
    for one in sorted(spans, key=lambda span: (span.family, span.zone, span.low)):
        last = result[-1] if result else None
        if last is not None and (last.family, last.zone) == (one.family, one.zone) and one.low <= last.high + 1:
            result[-1] = last._replace(high=max(last.high, one.high))
        else:
            result.append(one)
    return result


def _of(network: Network) -> Span:
    return Span(network.version, int(network.network_address), int(network.broadcast_address))


_OWN = tuple(_of(network) for network in OWN)
_NEVER = tuple((_of(network), reason) for network, reason in NEVER)


def _touch(one: Span, other: Span) -> bool:
    return one.family == other.family and one.low <= other.high and other.low <= one.high


def _covered(inner: Span, merged: Sequence[Span]) -> bool:
    """Whether all of ``inner`` is in one of these, which are as ``merge`` leaves them."""
    place = bisect_right(merged, (inner.family, inner.zone, inner.low), key=lambda one: (one.family, one.zone, one.low))
    outer = merged[place - 1] if place else None
    return outer is not None and (outer.family, outer.zone) == (inner.family, inner.zone) and inner.high <= outer.high


def _file(text: str) -> str:
    path = text.removeprefix(FILE)
    if not path.startswith("/"):
        raise UsageError(f'{shown(text)} is not an absolute path; write one such as "file:/srv/key/hosts.txt"')
    if len(path.encode()) > _LONGEST_PATH:
        raise UsageError(f"a path has at most {_LONGEST_PATH} bytes")
    return text


def _looks_like_a_range(text: str) -> bool:
    """Whether it was meant to be one: an address stands before its dash."""
    try:
        ip_address(text.partition("-")[0].strip())
    except ValueError:
        return False
    return "-" in text


def _range(text: str) -> str:
    """``text`` with both of its ends whole; of one address, the address. Raises ``ValueError`` and ``UsageError``."""
    start, _, end = (part.strip() for part in text.partition("-"))
    first = ip_address(start)
    if _LAST_PART.fullmatch(end) and (first.version == 6 or end.isdigit()):
        end = f"{start.rpartition('.')[0]}.{end}" if first.version == 4 else _with_last_group(first, end)
    last = ip_address(end)
    if first.version != last.version:
        raise UsageError(f"{shown(text)} begins and ends in different families; write both ends in one")
    if int(first) > int(last):
        raise UsageError(f"{shown(text)} runs backwards; write {last}-{first}")
    return str(first) if first == last else f"{first}-{last}"


def _with_last_group(address: IPv4Address | IPv6Address, group: str) -> str:
    return str(IPv6Address(int(address) & ~0xFFFF | int(group, 16)))


def _why_not(text: str) -> str:
    if "%" in text:
        return f"{shown(text)} is not an address; only a link-local one may name its interface: fe80::1%eth0"
    try:
        return f"{shown(text)} has host bits set; write {ip_network(text, strict=False)}"
    except ValueError:
        return f"{shown(text)} is no address, network, range or name; {_HINT}"
