"""Whom a scan may touch.

Targets are addresses, networks, ranges, names of hosts, and files that hold such, one a line. The networks of the
organisation itself are allowed as they are (RFC 1918, RFC 4193, loopback, link-local); everything else only where
``allow_public`` names it; and some addresses never, whatever is declared, because no host stands behind them or because
it must not be asked: multicast, broadcast, unspecified, reserved, and the metadata services of clouds. What is never
scanned and lies within a network or a range is left out of it (``left_out``); named on its own it is a mistake.

A name may point elsewhere when it is scanned than when it was declared. So it stays a name here, and counts as one
address: the worker resolves it once for each run, pins what it found, and holds that against the same rules.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
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

METADATA = (
    "169.254.169.254",  # AWS, Google, Azure, Oracle, DigitalOcean, OpenStack and others
    "fd00:ec2::254",  # AWS: docs.aws.amazon.com, EC2 user guide, instancedata-data-retrieval
    "169.254.170.2",  # AWS ECS, credentials of a task: docs.aws.amazon.com, task-metadata-endpoint-v2
    "169.254.170.23",  # AWS EKS, credentials of a pod: docs.aws.amazon.com, EKS user guide, pod-id-agent-setup
    "fd00:ec2::23",  # the same
    "169.254.169.253",  # AWS, its resolver (VPC user guide): it answers for the cloud and is nobody's host
    "169.254.169.123",  # AWS, its clock (EC2 user guide)
    "fd20:ce::254",  # Google, instances with IPv6 alone
    "fe80::a9fe:a9fe",  # OpenStack and Akamai: techdocs.akamai.com, metadata-service-api
    "fd00:a9fe:a9fe::1",  # Akamai, the same page
    "169.254.42.42",  # Scaleway: docs.cloud-init.io, reference/datasources/scaleway
    "fd00:42::42",  # the same
    "169.254.0.23",  # Tencent: metadata.tencentyun.com
    "100.100.100.200",  # Alibaba: docs.cloud-init.io, reference/datasources/aliyun
    "168.63.129.16",  # Azure, the host's "WireServer": learn.microsoft.com, what-is-ip-address-168-63-129-16
    "192.0.0.192",  # Oracle Cloud Classic
)
"""Services of clouds that give an instance its credentials, or are the cloud itself: single addresses.

Each is a hole of its own: a host may well have chosen its neighbour, as RFC 3927 (2.1) has it choose at random, and who
scans 169.254.0.0/16 means those.
"""

_METADATA = "the metadata service of a cloud"

_NEVER_IPV4: tuple[tuple[IPv4Network, str], ...] = (
    (IPv4Network("0.0.0.0/8"), "unspecified"),
    *((IPv4Network(one), _METADATA) for one in METADATA if ":" not in one),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("255.255.255.255/32"), "broadcast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),
)


def _translated(network: IPv4Network) -> IPv6Network:
    """What a gateway with the well-known prefix takes for these addresses: 64:ff9b::/96, RFC 6052, 2.1."""
    return IPv6Network((0x0064_FF9B << 96 | int(network.network_address), 96 + network.prefixlen))


def _tunnelled(network: IPv4Network) -> IPv6Network:
    """What 6to4 sends to these addresses: 2002::/16, RFC 3056, 2."""
    return IPv6Network((0x2002 << 112 | int(network.network_address) << 80, 16 + network.prefixlen))


NEVER: tuple[tuple[Network, str], ...] = (
    *_NEVER_IPV4,
    (IPv6Network("::/128"), "unspecified"),
    # IPv4-compatible, RFC 4291, 2.5.5.1: all but ::1, which is the loopback address.
    *((one, "IPv4 in disguise") for one in IPv6Network("::/96").address_exclude(IPv6Network("::1/128"))),
    (IPv6Network("::ffff:0:0/96"), "IPv4 in disguise"),  # IPv4-mapped, RFC 4291, 2.5.5.2
    (IPv6Network("::ffff:0:0:0/96"), "IPv4 in disguise"),  # IPv4-translated, RFC 2765, 2.1
    (IPv6Network("64:ff9b:1::/48"), "IPv4 in disguise"),  # of a local gateway, RFC 8215: where it stands nobody knows
    (IPv6Network("2001::/32"), "IPv4 in disguise"),  # Teredo, RFC 4380, 4
    *((_translated(network), f"{reason}, in disguise") for network, reason in _NEVER_IPV4),
    *((_tunnelled(network), f"{reason}, in disguise") for network, reason in _NEVER_IPV4),
    *((IPv6Network(one), _METADATA) for one in METADATA if ":" in one),
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

    ``allowed`` is what is ``permitted``; ``None`` when that is not known. To single addresses within a network or a
    range, which are ``left_out``, there is no objection.
    """
    wanted = span(target)
    alone = wanted.low == wanted.high
    if _meets(wanted, _FORBIDDEN):
        touched = ((never, reason) for never, reason in _NEVER if _touch(never, wanted))
        if reasons := [reason for never, reason in touched if alone or never.low < never.high]:
            return f"{'is' if alone else 'holds'} {reasons[0]}, which is never scanned; leave it out"
    if allowed is not None and not _covered(wanted._replace(zone=""), allowed):
        return "is public; only scan what is yours, and then name it in allow_public too"
    return None


def without_interface(target: str) -> str | None:
    """Why nothing can be sent to an address, network or range, to be read after it, or ``None``: the kernel knows a
    link-local address of IPv6 on an interface alone (RFC 4007, 6), and only single addresses can name theirs."""
    one = span(target)
    if one.zone or not _touch(one, _LINK_LOCAL):
        return None
    if one.low < one.high:
        return "holds link-local addresses; name each by itself, with its interface: fe80::1%eth0"
    return f"is link-local; name its interface: {target}%eth0"


def left_out(targets: Iterable[str]) -> dict[str, str]:
    """The addresses that networks and ranges among targets hold and that are never scanned, each with what it is.

    Of an IPv4 network those are its first and its last address, with which everybody in it is addressed (RFC 919, 7;
    RFC 1122, 3.2.1.3); of one of two addresses or one there are none (RFC 3021), and of loopback neither: all of
    127.0.0.0/8 is this one host. Inside a network every other address may be a host, .0 and .255 too. A range says
    nothing of the network that it lies in; only when it begins at .0 and ends at .255 is it taken for a whole one. And
    the metadata services of clouds.
    """
    found: dict[str, str] = {}
    spans: list[Span] = []
    alone: set[str] = set()
    for text in targets:
        if "/" not in text and "-" not in text:  # most of a long list are single addresses
            alone.add(text.partition("%")[0])
            continue
        one = span(text)
        spans.append(one)
        if one.family == 4 and _is_network(text, one) and not _touch(one, _LOOPBACK):
            found[str(IPv4Address(one.low))] = f"the network address of {text}"
            found[str(IPv4Address(one.high))] = f"the broadcast address of {text}"
    merged = merge(one._replace(zone="") for one in spans)
    found.update(
        (address, reason) for address, number, reason in _HOLES if address in alone or _covered(number, merged)
    )
    return found


def _is_network(text: str, one: Span) -> bool:
    if "-" in text:
        return one.low & 0xFF == 0 and one.high & 0xFF == 0xFF
    return one.high - one.low >= 3


def count(targets: Collection[str]) -> int:
    """How many addresses the targets have together; what overlaps counts once, and what is left out not at all."""
    return sum(one.high - one.low + 1 for one in merge(span(text) for text in targets)) - len(left_out(targets))


def all_excluded(targets: Collection[str], exclude: Iterable[str]) -> bool:
    """Whether nothing is left to scan. What is excluded without an interface is excluded on every one."""
    wanted, holes = merge(span(text) for text in targets), [span(text) for text in (*exclude, *left_out(targets))]
    excluded = {
        zone: merge(hole._replace(zone=zone) for hole in holes if hole.zone in ("", zone))
        for zone in {one.zone for one in wanted}
    }
    return all(_covered(one, excluded[one.zone]) for one in wanted)


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
_FORBIDDEN = merge(never for never, _ in _NEVER)
_LOOPBACK = _of(IPv4Network("127.0.0.0/8"))
_LINK_LOCAL = _of(IPv6Network("fe80::/10"))
_HOLES = tuple(
    (str(network[0]), _of(network), reason)
    for network, reason in NEVER
    if network.num_addresses == 1 and reason.startswith(_METADATA)
)


def _touch(one: Span, other: Span) -> bool:
    return one.family == other.family and one.low <= other.high and other.low <= one.high


def _meets(one: Span, merged: Sequence[Span]) -> bool:
    """Whether any address of ``one`` is in one of these, which are as ``merge`` leaves them and have no zone."""
    place = bisect_right(merged, (one.family, one.high), key=lambda other: (other.family, other.low))
    return place > 0 and _touch(merged[place - 1], one)


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
