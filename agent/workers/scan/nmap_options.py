"""Which words of nmap's command line are options, and which targets. Pure.

nmap takes them apart with getopt_long_only(3): long options have one dash or two, may be shortened as long as they are
unique, and have ``_`` for ``-`` if one likes. The options are those of ``nmap.cc`` from 6.25 to 7.99.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final, NamedTuple

_NAMES_WITH_VALUE: Final = """
data data-length data-string datadir dns-servers exclude exclude-ports excludefile host-timeout iL initial-rtt-timeout
ip-options iR max-hostgroup max-os-tries max-parallelism max-rate max-retries max-rtt-timeout max-scan-delay
min-hostgroup min-parallelism min-rate min-rtt-timeout mtu nsock-engine oA oG oH oM oN oS oX port-ratio proxies proxy
resume route-dst scan-delay scanflags script script-args script-args-file script-help script-timeout servicedb sI
source-port spoof-mac stats-every stylesheet timing top-ports ttl version-intensity versiondb
"""
_NAMES_ALONE: Final = """
adler32 allports append-output badsum debug defeat-icmp-ratelimit defeat-rst-ratelimit deprecated-xml-osclass
disable-arp-ping discovery-ignore-rst ff fuzzy help iflist log-errors no-stylesheet nogcc noninteractive noscript open
osscan-guess osscan-limit packet-trace privileged randomize-hosts reason release-memory resolve-all rH script-trace
script-updatedb send-eth send-ip system-dns thc traceroute unique unprivileged verbose version version-all
version-light version-trace vv webxml
"""
_WITH_VALUE: Final = frozenset(_NAMES_WITH_VALUE.split())
_ALONE: Final = frozenset(_NAMES_ALONE.split())
"""``debug`` may have a value, but only behind ``=``."""

_LETTERS_WITH_VALUE: Final = frozenset("bDegiMmopST")
_LETTERS_ALONE: Final = frozenset("46AFfhInqRrV")
_LETTERS_WITH_REST: Final = frozenset("dOvPs")
"""What follows in the same word is their value."""

_NEVER_BARE: Final = frozenset("Ps")
"""Where nothing follows, releases differ: in older ones the next word is the value."""


class Command(NamedTuple):
    """``options`` as pairs of name and value, in their order: long ones in full and with ``-``."""

    options: list[tuple[str, str]]
    targets: list[str]

    def values(self, name: str) -> list[str]:
        """What this option was given, as often as it stands there."""
        return [value for option, value in self.options if option == name]


def split(arguments: str) -> list[str]:
    """The words of a command line as nmap writes it down: ``"`` around blanks, ``\\`` before ``"`` and ``\\``.

    Raises ``ValueError`` when it is not written so.
    """
    lexer = shlex.shlex(arguments, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    lexer.quotes = '"'
    return list(lexer)


def taken_apart(words: Sequence[str]) -> Command | None:
    """The words that follow ``nmap``; ``None`` when it is not known of one whether it has a value."""
    command = Command([], [])
    rest = iter(words)
    for word in rest:
        if word == "--":
            command.targets.extend(rest)
        elif word == "-" or not word.startswith("-"):
            command.targets.append(word)
        else:
            found = _option(word)
            if found is None:
                return None
            for name, value in found:
                said = value if value is not None else next(rest, None)
                if said is None:
                    return None
                command.options.append((name, said))
    return command


def _option(word: str) -> list[tuple[str, str | None]] | None:
    """The options in one word, with ``None`` for a value that is the next word; ``None`` when one is unknown."""
    body = word[2:] if word.startswith("--") else word[1:]
    letters = _LETTERS_WITH_VALUE | _LETTERS_ALONE | _LETTERS_WITH_REST
    short = not word.startswith("--") and body[0] in letters
    if not short or len(body) > 1:
        written, equals, value = body.partition("=")
        wanted = written.replace("_", "-")
        every = _WITH_VALUE | _ALONE
        names = [wanted] if wanted in every else [name for name in every if name.startswith(wanted)]
        if len(names) == 1:
            return [(names[0], value if equals else None if names[0] in _WITH_VALUE else "")]
        if names or not short:
            return None
    return _letters(body)


def _letters(body: str) -> list[tuple[str, str | None]] | None:
    """Options of one letter in one word, the last of them perhaps with a value."""
    found: list[tuple[str, str | None]] = []
    for place, letter in enumerate(body, 1):
        following = body[place:]
        if letter in _LETTERS_WITH_VALUE:
            return [*found, (letter, following or None)]
        if letter in _LETTERS_WITH_REST:
            return [*found, (letter, following)] if following or letter not in _NEVER_BARE else None
        if letter not in _LETTERS_ALONE:
            return None
        found.append((letter, ""))
    return found
