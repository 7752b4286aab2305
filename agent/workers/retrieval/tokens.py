"""The words of an expression of pcap-filter(7), and what numbers, addresses and names among them stand for."""

from __future__ import annotations

import re
from typing import NamedTuple

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

KEYWORDS = frozenset(_WORDS.split())
"""Words that are no names: those of scanner.l."""


class Token(NamedTuple):
    """A word of the expression; ``kind`` is the name of its group in the pattern."""

    kind: str
    text: str


class NotUnderstood(Exception):
    """Where the part that is being read ends is not certain."""


def tokens(text: str) -> list[Token]:
    """The words of ``text``, in their order. Raises ``NotUnderstood``."""
    found: list[Token] = []
    text, place = text.rstrip(), 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.end() == place:
            raise NotUnderstood
        found.append(Token(str(match.lastgroup), match[str(match.lastgroup)]))
        place = match.end()
    return found


def number(token: Token) -> int | None:
    """The value of a number that libpcap reads the same: one that begins with a zero is octal there."""
    text = token.text
    if token.kind != "number" or (text[0] == "0" and text != "0" and text[1] not in "xX"):
        return None
    return int(text, 16) if text[:1] == "0" and text != "0" else int(text) if len(text) < 12 else None


def bounds(token: Token) -> tuple[int | None, int | None]:
    """The two numbers of a range; twice the same when there is one."""
    match = _RANGE.fullmatch(token.text)
    if match is None:
        return number(token), number(token)
    low, high = (number(Token("number", text)) for text in match.groups())
    return low, high


def dotted(token: Token) -> tuple[int, int] | None:
    """An address of two to four parts and its mask: what is missing may be anything."""
    parts = token.text.split(".")
    if token.kind != "dotted" or any(int(part) > 255 or (part[0] == "0" and part != "0") for part in parts):
        return None
    value = int.from_bytes(bytes(map(int, parts)).ljust(4, b"\0"), "big")
    return value, leading(8 * len(parts), 32)


def tall(token: Token) -> int:
    """An address of IPv6. Raises ``OSError`` when it is none."""
    import socket

    return int.from_bytes(socket.inet_pton(socket.AF_INET6, token.text), "big")


def leading(ones: int, bits: int) -> int:
    """A mask that begins with so many ones; -1 when it has not so many bits."""
    return -1 if ones > bits else (1 << bits) - (1 << bits - ones)


def services(name: str) -> set[int]:
    """The ports that a name stands for, by services(5)."""
    import socket  # most expressions need none

    found = set()
    for protocol in ("tcp", "udp", "sctp"):
        try:
            found.add(socket.getservbyname(name, protocol))
        except OSError:
            continue
    return found


def protocol_number(token: Token) -> int | None:
    """The number of a protocol, by protocols(5)."""
    import socket

    try:
        return socket.getprotobyname(token.text.removeprefix("\\"))
    except OSError:
        return None
