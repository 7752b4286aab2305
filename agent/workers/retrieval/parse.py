"""The language of pcap-filter(7), read as far as an index can answer it. Pure.

What is read here only narrows. Whether an expression is right, and which packets it means in the end, libpcap alone
decides; so nothing here is an error. What is not understood is ``Unknown``: a part where its end is certain, else the
whole. What is understood means the same as in libpcap (grammar.y, gencode.c of 1.10):

* ``and`` and ``or`` bind equally, from left to right; ``not`` binds closer.
* An address or a port without qualifiers has those of the last one before it.
* Everything after k times ``vlan`` in the text, wherever that stands, is looked for behind k tags.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.workers.index.numbers import ARP, IPV6, RARP, SCTP, SHORTEST_ETHERTYPE, TCP, UDP
from agent.workers.index.numbers import IPV4 as IP
from agent.workers.retrieval import tokens
from agent.workers.retrieval.expression import (
    Address,
    And,
    Direction,
    Ethertype,
    Everything,
    Expression,
    Not,
    Or,
    Ports,
    Protocol,
    Unknown,
    Vlan,
)
from agent.workers.retrieval.tokens import KEYWORDS, NotUnderstood, Token

_PORTED = {"tcp": (TCP,), "udp": (UDP,), "sctp": (SCTP,), None: (TCP, UDP, SCTP)}

_ETHERTYPES = {"ip": IP, "ip6": IPV6, "arp": ARP, "rarp": RARP}

#: Words that stand for a protocol above IP, and the versions of IP that each is looked for in.
_PROTOCOLS = {
    "tcp": (TCP, (4, 6)),
    "udp": (UDP, (4, 6)),
    "sctp": (SCTP, (4, 6)),
    "icmp": (1, (4,)),
    "igmp": (2, (4,)),
    "igrp": (9, (4,)),
    "esp": (50, (4, 6)),
    "ah": (51, (4, 6)),
    "icmp6": (58, (6,)),
    "pim": (103, (4, 6)),
    "vrrp": (112, (4,)),
    "carp": (112, (4,)),
}

_LINK = ("ether", "link")
_QUALIFIERS = {*_ETHERTYPES, *_PROTOCOLS, *_LINK}

#: What shifts where later parts are looked for, by how much nobody can say without the packet.
_SHIFTING = {"mpls", "pppoed", "pppoes", "geneve", "vxlan"}

#: AppleTalk: libpcap looks for it behind SNAP too.
_UNUSUAL = (0x809B, 0x80F3)

_AND, _OR, _NOT = ("and", "&&"), ("or", "||"), ("not", "!")

_DEEPEST = 100
"""Brackets and negations within each other: what is deeper is not read."""


class _Qualifiers(NamedTuple):
    """What stands before an address or a port."""

    protocol: str | None = None
    direction: Direction = Direction.EITHER
    kind: str | None = None


def parse(text: str) -> Expression:
    """What an expression means, as far as it is understood. Never raises."""
    try:
        found = tokens.tokens(text)
        return _Parser(found).whole() if found else Everything()
    except NotUnderstood:
        return Unknown()


class _Parser:
    """Reads tokens from the left. ``_qualifiers`` are the last that stood, ``_depth`` how often ``vlan`` did."""

    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._place = 0
        self._qualifiers: _Qualifiers | None = None
        self._depth = 0
        self._lost = False
        self._nested = 0

    def whole(self) -> Expression:
        """The expression that all tokens together are."""
        found = self._expression()
        if self._place < len(self._tokens):
            raise NotUnderstood
        return found

    @property
    def _next(self) -> str:
        return self._tokens[self._place].text if self._place < len(self._tokens) else ""

    def _take(self) -> Token:
        if self._place == len(self._tokens):
            raise NotUnderstood
        self._place += 1
        return self._tokens[self._place - 1]

    def _takes(self, *words: str) -> str | None:
        """The next word, if it is one of these."""
        return self._take().text if self._next in words else None

    def _at_end(self) -> bool:
        return self._next in ("", ")", *_AND, *_OR)

    def _expression(self) -> Expression:
        found = self._term()
        while word := self._takes(*_AND, *_OR):
            right = self._term()
            found = And(found, right) if word in _AND else Or(found, right)
        return found

    def _term(self) -> Expression:
        word = self._takes(*_NOT, "(")
        if word is None:
            return self._primitive()
        self._nested += 1
        if self._nested > _DEEPEST:
            raise NotUnderstood
        found = self._expression() if word == "(" else Not(self._term())
        if word == "(" and not self._takes(")"):
            raise NotUnderstood
        self._nested -= 1
        return found

    def _primitive(self) -> Expression:
        begin = self._place
        found = self._vlan() if self._takes("vlan") else self._qualified()
        if found is None or not self._at_end():
            self._place = begin
            self._skip()
            self._qualifiers = None
            return Unknown()
        return Unknown() if self._lost else found

    def _skip(self) -> None:
        """Go behind a part that is not understood."""
        begin = self._place
        inside = 0
        while inside or not self._at_end():
            word = self._take().text
            if word in _SHIFTING:
                self._lost = True
            if word == "vlan" or (word in (*_NOT, "(") and not inside):
                raise NotUnderstood
            inside += (word == "[") - (word == "]")
        if self._place == begin:
            raise NotUnderstood

    def _vlan(self) -> Expression | None:
        number = tokens.number(self._take()) if not self._at_end() else None
        found = Vlan(number, self._depth)
        self._depth += 1
        if not self._at_end():
            raise NotUnderstood
        return found

    def _qualified(self) -> Expression | None:
        """A part that begins with qualifiers, or has those that stood before it; ``None`` when it is none of these."""
        if self._next not in KEYWORDS:
            return self._identifier() if self._qualifiers else None
        protocol = self._takes(*_QUALIFIERS)
        if protocol and self._at_end():
            self._qualifiers = None
            return self._abbreviated(protocol)
        direction = self._direction()
        kind = self._takes("host", "net", "port", "portrange", *(("proto",) if direction is None else ()))
        if kind is None and direction is None:
            return None
        self._qualifiers = _Qualifiers(protocol, direction or Direction.EITHER, kind)
        return self._term() if self._next in (*_NOT, "(") else self._identifier()

    def _direction(self) -> Direction | None:
        first = self._takes("src", "dst")
        if first is None:
            return None
        second = "dst" if first == "src" else "src"
        ahead = [token.text for token in self._tokens[self._place : self._place + 2]]
        if len(ahead) == 2 and ahead[0] in (*_AND, *_OR) and ahead[1] == second:
            self._place += 2
            return Direction.BOTH if ahead[0] in _AND else Direction.EITHER
        return Direction(first)

    def _abbreviated(self, protocol: str) -> Expression | None:
        if protocol in _ETHERTYPES:
            return Ethertype(_ETHERTYPES[protocol], self._depth)
        if protocol in _PROTOCOLS:
            return Protocol(*_PROTOCOLS[protocol], self._depth)
        return None

    def _identifier(self) -> Expression | None:
        """What an address, a port or a protocol means behind the qualifiers in force."""
        qualifiers = self._qualifiers
        if qualifiers is None or self._at_end():
            return None
        token = self._take()
        match qualifiers.kind:
            case "port":
                return self._port(token, qualifiers)
            case "portrange":
                return self._range(token, qualifiers)
            case "proto":
                return self._protocol(token, qualifiers)
            case _ if token.kind == "colons":
                return self._ipv6(token, qualifiers)
            case _:
                return self._ipv4(token, qualifiers)

    def _ipv4(self, token: Token, qualifiers: _Qualifiers) -> Expression | None:
        network = qualifiers.kind == "net"
        if token.kind == "dotted" and (short := tokens.dotted(token)):
            value, mask = short
            if network and self._takes("/"):
                length = tokens.number(self._take())
                mask = -1 if length is None else tokens.leading(length, 32)
            elif network and self._takes("mask"):
                mask = (tokens.dotted(self._take()) or (-1, 0))[0]
        elif token.kind == "number" and (number := tokens.number(token)) is not None and number < 1 << 32:
            value, mask = number, tokens.leading(32, 32)
            while network and value and not value & 0xFF000000:
                value, mask = value << 8, mask << 8 & 0xFFFFFFFF
        else:
            return None
        if qualifiers.protocol is None:
            ethertypes: tuple[int, ...] = (IP, ARP, RARP)
        elif qualifiers.protocol in ("ip", "arp", "rarp"):
            ethertypes = (_ETHERTYPES[qualifiers.protocol],)
        else:
            return None
        return None if mask < 0 else Address(value, mask, ethertypes, qualifiers.direction, self._depth)

    def _ipv6(self, token: Token, qualifiers: _Qualifiers) -> Expression | None:
        try:
            value = tokens.tall(token)
        except OSError:  # an Ethernet address
            return None
        mask = tokens.leading(128, 128)
        if qualifiers.kind == "net" and self._takes("/"):
            length = tokens.number(self._take())
            mask = -1 if length is None else tokens.leading(length, 128)
        if mask < 0 or qualifiers.protocol not in (None, "ip6"):
            return None
        return Address(value, mask, (IPV6,), qualifiers.direction, self._depth)

    def _port(self, token: Token, qualifiers: _Qualifiers) -> Expression | None:
        number = tokens.number(token)
        if number is not None:
            return self._ports(number, number, qualifiers)
        if token.kind != "word" or qualifiers.protocol not in _PORTED:
            return None
        found: Expression | None = None
        for number in tokens.services(token.text):
            ports = self._ports(number, number, qualifiers, certain=False)
            found = ports if found is None or ports is None else Or(found, ports)
        return found

    def _range(self, token: Token, qualifiers: _Qualifiers) -> Expression | None:
        low, high = tokens.bounds(token)
        if low is None or high is None:
            return None
        return self._ports(min(low, high), max(low, high), qualifiers)

    def _ports(self, low: int, high: int, qualifiers: _Qualifiers, *, certain: bool = True) -> Expression | None:
        if qualifiers.protocol not in _PORTED or high > 65535:
            return None
        return Ports(low, high, _PORTED[qualifiers.protocol], qualifiers.direction, certain, self._depth)

    def _protocol(self, token: Token, qualifiers: _Qualifiers) -> Expression | None:
        if qualifiers.protocol in _LINK:
            name = token.text.removeprefix("\\")
            number = _ETHERTYPES.get(name) if token.kind == "escaped" else tokens.number(token)
            if number is None or not SHORTEST_ETHERTYPE <= number <= 0xFFFF or number in _UNUSUAL:
                return None
            return Ethertype(number, self._depth)
        versions = {None: (4, 6), "ip": (4,), "ip6": (6,)}.get(qualifiers.protocol)
        number = tokens.protocol_number(token) if token.kind in ("word", "escaped") else tokens.number(token)
        if versions is None or number is None or number > 255:
            return None
        return Protocol(number, versions, self._depth)
