"""What is wrong with a filter that libpcap refuses, and where: libpcap itself says only what.

Its parser reads one token ahead and never goes beyond one that cannot follow what it has read. So a prefix of the
filter can go on in some way exactly when libpcap, given that prefix and then a token that its scanner refuses in words
of its own, complains of that token. A search over the prefixes finds the first that cannot go on, and its last token is
what is wrong.

Whatever it asks, it asks of the caller's handle: what a word means depends on the link type.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any

from agent.declaration.capture_limits import LONGEST_FILTER
from agent.declaration.wording import printable, shown
from agent.workers.capture import binding
from agent.workers.capture.binding import pcap

_ETHERNET = 1  # pcap-linktype(7): LINKTYPE_ETHERNET

_POISON = " 0:0:"
_POISONED = "bogus ethernet address 0:0:"  # what the scanner of libpcap says of that (scanner.l)

_TOKEN = re.compile(
    r"""
    [0-9A-Fa-f]*(?:::?[0-9A-Fa-f.]*){2,}      # an address with colons; ``[0:2]`` has only one
    | \\[^\s!()]+                             # a word that is not to be a keyword
    | [A-Za-z0-9](?:[\w.-]*[\w.])?            # a word, a number, an address with dots
    | && | \|\| | << | >> | [<>!=]=           # operators of two characters
    | \S
    """,
    re.VERBOSE | re.ASCII,
)
_QUOTED = re.compile(r"""['"]([^'"]+)['"]""")
_NUMBER = re.compile(r"\b\d+\b")


def refusal(text: str, link_type: int = _ETHERNET) -> str | None:
    """What is wrong with a filter on packets of this link type (pcap-linktype(7)), as ``explain`` says it.

    ``None`` when libpcap compiles it. A name in it is looked up, which can take as long as a resolver takes.
    """
    if (length := len(text)) > LONGEST_FILTER:
        return f"filter {shown(text)}: {length} characters are too many; at most {LONGEST_FILTER} are compiled"
    if "\0" in text:
        return f"filter {shown(text)}: a NUL character would cut it short (column {text.index(chr(0)) + 1})"
    dead = pcap.pcap_open_dead(link_type, binding.MAXIMUM_SNAPLEN)
    try:
        message = _compile(dead, text)
        return None if message is None else explain(dead, text, message)
    finally:
        pcap.pcap_close(dead)


def explain(opened: Any, text: str, message: str) -> str:
    """One line: ``filter "tcp and prot 80": syntax error at "prot" (column 9)``.

    ``opened`` is the ``pcap_t`` that refused ``text`` with ``message``. Columns are characters, counted from 1.
    """
    syntax = "syntax error" in message
    said = f"filter {shown(text)}: {'syntax error' if syntax else printable(message)}"
    if not syntax and (place := _quoted(text, message)):
        return f"{said} (column {place})"
    tokens = list(_TOKEN.finditer(text))
    number = _first_wrong(opened, text, tokens)
    if syntax and number == len(tokens):
        return f"{said} at its end: something is missing"
    token = tokens[number] if syntax else _meant(tokens[: number + 1], message)
    if token is None:
        return said
    at = "" if token[0] in _NUMBER.findall(message) else f" at {shown(token[0])}"
    return f"{said}{at} (column {token.start() + 1})"


def _quoted(text: str, message: str) -> int | None:
    """The column of what a message quotes, when there is no doubt which that is."""
    quoted = _QUOTED.search(message)
    return text.index(quoted[1]) + 1 if quoted and text.count(quoted[1]) == 1 else None


def _meant(tokens: list[re.Match[str]], message: str) -> re.Match[str] | None:
    """What a message is about that came when the last of these tokens had been read.

    The parser may have had to look at one more than it means: a bracket that closes, say.
    """
    quoted = {*_QUOTED.findall(message), *_NUMBER.findall(message)}
    named = (token for token in reversed(tokens) if token[0] in quoted)
    words = (token for token in reversed(tokens) if token[0][0].isalnum())
    return next(named, None) or next(words, None)


def _first_wrong(opened: Any, text: str, tokens: list[re.Match[str]]) -> int:
    """The number of the first token that cannot follow those before it; how many there are when all can."""
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if _POISONED in (_compile(opened, text[: tokens[middle].end()] + _POISON) or ""):
            low = middle + 1
        else:
            high = middle
    return low


def _compile(opened: Any, text: str) -> str | None:
    """What libpcap says against a filter; ``None`` when it compiles."""
    program = pcap.bpf_program()
    unknown = ctypes.c_int(binding.NETMASK_UNKNOWN).value
    encoded = text.encode("utf-8", "surrogateescape")
    if pcap.pcap_compile(opened, ctypes.byref(program), encoded, 0, unknown) == 0:
        pcap.pcap_freecode(ctypes.byref(program))
        return None
    return str(pcap.pcap_geterr(opened).decode("utf-8", "replace"))
