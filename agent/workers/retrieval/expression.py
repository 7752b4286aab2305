"""The language of pcap-filter(7), understood as far as an index can answer it. Pure.

What is read here only narrows. Whether an expression is right, and which packets it means in the end, libpcap alone
decides; so nothing here is an error. What is not understood is ``Unknown``: a part where its end is certain, else the
whole. What is understood means the same as in libpcap (grammar.y, gencode.c of 1.10):

* ``and`` and ``or`` bind equally, from left to right; ``not`` binds closer.
* An address or a port without qualifiers has those of the last one before it.
* Everything after k times ``vlan`` in the text, wherever that stands, is looked for behind k tags.
"""

from __future__ import annotations

import re
import socket
from enum import Enum
from typing import NamedTuple, TypeAlias


class Direction(Enum):
    """Which of the two addresses or ports has to be as wanted."""

    SOURCE = "src"
    DESTINATION = "dst"
    EITHER = "src or dst"
    BOTH = "src and dst"


class Unknown(NamedTuple):
    """True or false: an index cannot tell."""


class Ethertype(NamedTuple):
    """What follows the link header and ``depth`` tags is this."""

    number: int
    depth: int


class Protocol(NamedTuple):
    """An IP packet of one of these versions (4, 6) whose header names this protocol."""

    number: int
    versions: tuple[int, ...]
    depth: int


class Address(NamedTuple):
    """An address that, masked, is ``value``. ``ethertypes`` are those of the packets it is looked for in.

    For IPv6 ``value`` and ``mask`` have 128 bits, else 32.
    """

    value: int
    mask: int
    ethertypes: tuple[int, ...]
    direction: Direction
    depth: int


class Ports(NamedTuple):
    """A port from ``low`` to ``high``, both included, of one of these protocols.

    ``certain`` is false when it was given by a name, which may mean one protocol only.
    """

    low: int
    high: int
    protocols: tuple[int, ...]
    direction: Direction
    certain: bool
    depth: int


class Vlan(NamedTuple):
    """There is a tag behind ``depth`` others, with this identifier unless that is ``None``."""

    number: int | None
    depth: int


class Not(NamedTuple):
    """The opposite."""

    part: Expression


class And(NamedTuple):
    """Both."""

    left: Expression
    right: Expression


class Or(NamedTuple):
    """One of the two, or both."""

    left: Expression
    right: Expression


class Everything(NamedTuple):
    """What an empty expression means."""


Expression: TypeAlias = Unknown | Ethertype | Protocol | Address | Ports | Vlan | Not | And | Or | Everything

IP, ARP, RARP, IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD

_TCP, _UDP, _SCTP = 6, 17, 132
_PORTED = {"tcp": (_TCP,), "udp": (_UDP,), "sctp": (_SCTP,), None: (_TCP, _UDP, _SCTP)}

_ETHERTYPES = {"ip": IP, "ip6": IPV6, "arp": ARP, "rarp": RARP}

#: Words that stand for a protocol above IP, and the versions of IP that each is looked for in.
_PROTOCOLS = {
    "tcp": (_TCP, (4, 6)),
    "udp": (_UDP, (4, 6)),
    "sctp": (_SCTP, (4, 6)),
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

#: IEEE 802.3: what is less is no type but a length. And AppleTalk, which libpcap looks for behind SNAP too.
_LEAST_ETHERTYPE = 0x0600
_UNUSUAL = (0x809B, 0x80F3)

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<colons>[0-9A-Fa-f]*(?:::?[0-9A-Fa-f.]*){2,})
    | (?P<escaped>\\[^\s!()]+)
    | (?P<dotted>\d{1,3}(?:\.\d{1,3}){1,3})(?![\w.-])
    | (?P<number>0[xX][0-9A-Fa-f]+|\d+)(?![\w.-])
    | (?P<word>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_.])?)
    | (?P<operator>&&|\|\||<<|>>|[<>!=]=|[-+*/%()\[\]&|^!<>=:])
    )""",
    re.VERBOSE | re.ASCII,
)
_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})", re.ASCII)

_WORDS = """
dst src link ether ppp slip fddi tr wlan arp rarp ip sctp tcp udp icmp igmp igrp pim vrrp carp radio ip6 icmp6 ah esp
atalk aarp decnet lat sca moprc mopdl iso esis es-is isis is-is l1 l2 iih lsp snp csnp psnp clnp stp ipx netbeui host
net mask port portrange proto protochain gateway type subtype direction dir address1 addr1 address2 addr2 address3
addr3 address4 addr4 ra ta less greater byte broadcast multicast and or not len length inbound outbound ifindex vlan
mpls pppoed pppoes geneve vxlan lane llc metac bcc oam oamf4 oamf4ec oamf4sc sc ilmic vpi vci connectmsg metaconnect
on ifname rset ruleset rnr rulenum srnr subrulenum reason action fisu lssu lsu msu hfisu hlssu hmsu sio opc dpc sls
hsio hopc hdpc hsls
"""

_KEYWORDS = frozenset(_WORDS.split())
"""Words that are no names: those of scanner.l."""

_AND, _OR, _NOT = ("and", "&&"), ("or", "||"), ("not", "!")

_DEEPEST = 100
"""Brackets and negations within each other: what is deeper is not read."""


class Token(NamedTuple):
    """A word of the expression; ``kind`` is the name of its group in the pattern."""

    kind: str
    text: str


class _NotUnderstood(Exception):
    """Where the part that is being read ends is not certain."""


class _Qualifiers(NamedTuple):
    """What stands before an address or a port."""

    protocol: str | None = None
    direction: Direction = Direction.EITHER
    kind: str | None = None


def parse(text: str) -> Expression:
    """What an expression means, as far as it is understood. Never raises."""
    try:
        tokens = _tokens(text)
        return _Parser(tokens).whole() if tokens else Everything()
    except _NotUnderstood:
        return Unknown()


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    text, place = text.rstrip(), 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.end() == place:
            raise _NotUnderstood
        found.append(Token(str(match.lastgroup), match[str(match.lastgroup)]))
        place = match.end()
    return found


class _Parser:
    """Reads tokens from the left. ``_qualifiers`` are the last that stood, ``_depth`` how often ``vlan`` did."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._place = 0
        self._qualifiers: _Qualifiers | None = None
        self._depth = 0
        self._lost = False
        self._nested = 0

    def whole(self) -> Expression:
        """The expression that all tokens together are."""
        found = self._expression()
        if self._place < len(self._tokens):
            raise _NotUnderstood
        return found

    @property
    def _next(self) -> str:
        return self._tokens[self._place].text if self._place < len(self._tokens) else ""

    def _take(self) -> Token:
        if self._place == len(self._tokens):
            raise _NotUnderstood
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
            raise _NotUnderstood
        found = self._expression() if word == "(" else Not(self._term())
        if word == "(" and not self._takes(")"):
            raise _NotUnderstood
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
                raise _NotUnderstood
            inside += (word == "[") - (word == "]")
        if self._place == begin:
            raise _NotUnderstood

    def _vlan(self) -> Expression | None:
        number = _number(self._take()) if not self._at_end() else None
        found = Vlan(number, self._depth)
        self._depth += 1
        if not self._at_end():
            raise _NotUnderstood
        return found

    def _qualified(self) -> Expression | None:
        """A part that begins with qualifiers, or has those that stood before it; ``None`` when it is none of these."""
        if self._next not in _KEYWORDS:
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
        if token.kind == "dotted" and (short := _dotted(token)):
            value, mask = short
            if network and self._takes("/"):
                length = _number(self._take())
                mask = -1 if length is None else _leading(length, 32)
            elif network and self._takes("mask"):
                mask = (_dotted(self._take()) or (-1, 0))[0]
        elif token.kind == "number" and (number := _number(token)) is not None and number < 1 << 32:
            value, mask = number, _leading(32, 32)
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
            value = int.from_bytes(socket.inet_pton(socket.AF_INET6, token.text), "big")
        except OSError:  # an Ethernet address
            return None
        mask = _leading(128, 128)
        if qualifiers.kind == "net" and self._takes("/"):
            length = _number(self._take())
            mask = -1 if length is None else _leading(length, 128)
        if mask < 0 or qualifiers.protocol not in (None, "ip6"):
            return None
        return Address(value, mask, (IPV6,), qualifiers.direction, self._depth)

    def _port(self, token: Token, qualifiers: _Qualifiers) -> Expression | None:
        number = _number(token)
        if number is not None:
            return self._ports(number, number, qualifiers)
        if token.kind != "word" or qualifiers.protocol not in _PORTED:
            return None
        found: Expression | None = None
        for number in _service(token.text):
            ports = self._ports(number, number, qualifiers, certain=False)
            found = ports if found is None or ports is None else Or(found, ports)
        return found

    def _range(self, token: Token, qualifiers: _Qualifiers) -> Expression | None:
        match = _RANGE.fullmatch(token.text)
        low, high = (_number(Token("number", text)) for text in match.groups()) if match else [_number(token)] * 2
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
            number = _ETHERTYPES.get(name) if token.kind == "escaped" else _number(token)
            if number is None or not _LEAST_ETHERTYPE <= number <= 0xFFFF or number in _UNUSUAL:
                return None
            return Ethertype(number, self._depth)
        versions = {None: (4, 6), "ip": (4,), "ip6": (6,)}.get(qualifiers.protocol)
        number = _protocol_number(token) if token.kind in ("word", "escaped") else _number(token)
        if versions is None or number is None or number > 255:
            return None
        return Protocol(number, versions, self._depth)


def _number(token: Token) -> int | None:
    """The value of a number that libpcap reads the same: one that begins with a zero is octal there."""
    text = token.text
    if token.kind != "number" or (text[0] == "0" and text != "0" and text[1] not in "xX"):
        return None
    return int(text, 16) if text[:1] == "0" and text != "0" else int(text) if len(text) < 12 else None


def _dotted(token: Token) -> tuple[int, int] | None:
    """An address of two to four parts and its mask: what is missing may be anything."""
    parts = token.text.split(".")
    if token.kind != "dotted" or any(int(part) > 255 or (part[0] == "0" and part != "0") for part in parts):
        return None
    value = int.from_bytes(bytes(map(int, parts)).ljust(4, b"\0"), "big")
    return value, _leading(8 * len(parts), 32)


def _leading(ones: int, bits: int) -> int:
    """A mask that begins with so many ones; -1 when it has not so many bits."""
    return -1 if ones > bits else (1 << bits) - (1 << bits - ones)


def _service(name: str) -> set[int]:
    """The ports that a name stands for, by services(5)."""
    found = set()
    for protocol in ("tcp", "udp", "sctp"):
        try:
            found.add(socket.getservbyname(name, protocol))
        except OSError:
            continue
    return found


def _protocol_number(token: Token) -> int | None:
    """The number of a protocol, by protocols(5)."""
    try:
        return socket.getprotobyname(token.text.removeprefix("\\"))
    except OSError:
        return None
