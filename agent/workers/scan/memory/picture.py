"""A picture: all that one run found out about a host, without its address, so that equal hosts share one. Pure.

Most hosts look today as they did yesterday, and many look alike; so pictures are kept once, small, under the hash of
what they say. They are JSON of ``found.Host`` without what is at its default, deflated (RFC 1951) with a dictionary of
the words that stand in most of them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache, lru_cache
from typing import Any, Final

import msgspec

from agent.errors import StorageFailure
from agent.workers.scan.found import PROTOCOLS, Host, Port, Rest, Script, spoke
from agent.workers.scan.spans import Ranges, holds, merge, without

PortSet = tuple[tuple[str, Ranges], ...]
"""Ports that were asked for, by protocol in the order of ``PROTOCOLS``; none of them empty."""

LONGEST: Final = 64 << 20
"""Bytes of one picture before it is deflated: more than 65,535 ports with a banner each."""

_WORDS: Final = (
    b'"syn-ack","service":"http","product":"nginx","version":"1.","cpe":["cpe:/a:"],"method":"probed","ttl":6'
    b'"tunnel":"ssl","certificate":{"sha256":"","subject":"commonName=","issuer":"commonName=","not_before":17,'
    b'"not_after":17},"scripts":[{"name":"","output":""}],"extrainfo":"Ubuntu Linux; protocol 2.0","ostype":"Linux",'
    b'"service":"ssh","product":"OpenSSH","version":"9.2p1 Debian 2+deb12u","fingerprint":"","method":"table",'
    b'{"state":"up","reason":"arp-response","mac":"02:00:","names":[""],"os":[""],'
    b'"rest":[{"protocol":"udp","state":"open|filtered","reason":"no-response","ports":[[]]},'
    b'"rest":[{"protocol":"tcp","state":"filtered","reason":"no-response","ports":[[1,65535]]}],'
    b'"rest":[{"protocol":"tcp","state":"closed","reason":"reset","ports":[[1,21],[23,79],[81,442],[444,1024]]}],'
    b'{"state":"up","reason":"syn-ack","ports":[{"protocol":"tcp","number":22,"state":"open","reason":"syn-ack"'
)
"""The dictionary of version 1 of the form; pictures cannot be read without it, so it never changes."""

_ALIKE: Final = 512
"""Bytes of a port that is remembered: many hosts have the same, and it need not be made anew for each."""


class _Picture(msgspec.Struct):
    """A ``Host`` without its address, and with its ports as they are written."""

    state: str
    reason: str
    mac: str = ""
    names: tuple[str, ...] = ()
    ports: tuple[msgspec.Raw, ...] = ()
    rest: tuple[Rest, ...] = ()
    os: tuple[str, ...] = ()
    scripts: tuple[Script, ...] = ()
    discovered: bool = False


_PICTURE: Final = msgspec.json.Decoder(_Picture)
_PORT: Final = msgspec.json.Decoder(Port)
_remembered: Final = lru_cache(4096)(_PORT.decode)


def encode(host: Host) -> tuple[bytes, bytes]:
    """The picture of a host and its key, 16 bytes. Equal hosts give equal keys, whatever their addresses."""
    plain = _plain(host)
    del plain["address"]
    written = msgspec.json.encode(plain)
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=_WORDS)
    return hashlib.sha256(written).digest()[:16], deflater.compress(written) + deflater.flush()


def decode(address: str, data: bytes) -> Host:
    """The host that a picture shows. Raises ``StorageFailure`` for bytes that are none."""
    try:
        inflater = zlib.decompressobj(-15, zdict=_WORDS)
        written = inflater.decompress(data, LONGEST)
        if not inflater.eof:
            raise StorageFailure(f"what the database holds of {address} is cut short, or too much")
        read = _PICTURE.decode(written)
        ports = tuple(_remembered(bytes(port)) if len(port) <= _ALIKE else _PORT.decode(port) for port in read.ports)
        host = Host(
            *(address, read.state, read.reason, read.mac, read.names),
            *(ports, read.rest, read.os, read.scripts, read.discovered),
        )
        for rest in host.rest:
            _check(rest.ports)
    except (zlib.error, msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise StorageFailure(f"what the database holds of {address} cannot be understood: {error}") from error
    return host


def asked(host: Host) -> PortSet:
    """What a host was asked for."""
    found: dict[str, list[tuple[int, int]]] = {}
    for port in host.ports:
        found.setdefault(port.protocol, []).append((port.number, port.number))
    for rest in host.rest:
        found.setdefault(rest.protocol, []).extend(rest.ports)
    return tuple((protocol, merge(found[protocol])) for protocol in PROTOCOLS if found.get(protocol))


def join(before: Host, now: Host) -> Host:
    """Two looks at one host in one run as one: what was seen later counts, and what only one of them saw stays.

    A port that is open in both keeps what is known of its service where the later look did not ask.
    """
    known = {port.key: port for port in before.ports}
    ports = {port.key: _with_service(port, known.get(port.key)) for port in now.ports}
    fresh = dict(asked(now))
    for key, port in known.items():
        if not holds(fresh.get(key[0], ()), key[1]):
            ports[key] = port
    rest = [*now.rest]
    rest += (
        replace(one, ports=left) for one in before.rest if (left := without(one.ports, fresh.get(one.protocol, ())))
    )
    up = next((host for host in (now, before) if host.state == "up"), now)
    return replace(
        now,
        state=up.state,
        reason=up.reason,
        mac=now.mac or before.mac,
        names=now.names or before.names,
        ports=tuple(sorted(ports.values(), key=_by_number)),
        rest=_gathered(rest),
        os=now.os or before.os,
        scripts=now.scripts or before.scripts,
        discovered=now.discovered or before.discovered,
    )


def tidy(host: Host) -> Host:
    """The same host in the one order in which it is kept."""
    return replace(host, ports=tuple(sorted(host.ports, key=_by_number)), rest=_gathered(host.rest))


def _with_service(port: Port, before: Port | None) -> Port:
    if before is None or port.state != before.state or spoke(port):
        return port
    if not spoke(before):
        # What stands beside the reason (``detect``) says why nothing is known, and the later look did not ask for that.
        return replace(port, reason=before.reason) if before.reason.startswith(f"{port.reason}; ") else port
    return replace(before, reason=port.reason, ttl=port.ttl or before.ttl)


def _gathered(rest: Iterable[Rest]) -> tuple[Rest, ...]:
    found: dict[tuple[int, str, str], list[tuple[int, int]]] = {}
    for one in rest:
        found.setdefault((PROTOCOLS.index(one.protocol), one.state, one.reason), []).extend(one.ports)
    return tuple(
        Rest(PROTOCOLS[number], state, reason, merge(ports)) for (number, state, reason), ports in sorted(found.items())
    )


def _by_number(port: Port) -> tuple[int, int]:
    return PROTOCOLS.index(port.protocol), port.number


def _check(ranges: Ranges) -> None:
    end = -1
    for low, high in ranges:
        if not end < low <= high <= 65535:
            raise ValueError(f"{low}-{high} is no range of ports in its place")
        end = high


def _plain(value: Any) -> Any:
    """What JSON can say, without what is at its default."""
    if is_dataclass(value) and not isinstance(value, type):
        return dict(_telling(value))
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


def _telling(value: Any) -> Iterator[tuple[str, Any]]:
    kind: Any = type(value)
    for name, default in _defaults(kind):
        held = getattr(value, name)
        if default is MISSING or held != default:
            yield name, _plain(held)


@cache
def _defaults(kind: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.default) for field in fields(kind))
