"""nmap's XML, judged and cut into hosts while it arrives. No I/O.

nmap writes one document to its standard output and its exit status says little: it is 0 when no target could be
reached, and a document that stops half-way is what a kill leaves. So every byte passes through here first: it is
bounded, entities are refused (banners of strangers stand in it), progress is read from it, each host is handed out as
soon as its element is closed and then forgotten, and at the end it is known whether nmap finished what it was asked to
do. Elements and attributes are those of nmap.dtd.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from agent.errors import ScanFailure

MAX_HOST = 8 * 1024 * 1024
"""Bytes about one host. A thousand open ports, each with the longest fingerprint that nmap writes, stay below."""

MAX_BESIDE = 64 * 1024 * 1024
"""Bytes of everything else in one document: mostly progress, a line a second."""

OLDEST: Final = (6, 25)
"""The first release of nmap whose scripts tell what they found as elements and not only as text (its CHANGELOG), which
is where certificates are read from."""

TEXT_LIMIT = 256
"""Most characters of one text that leaves here or is stored."""

MAX_DEPTH = 32
"""Of elements; nmap.dtd needs fewer than ten."""

_ENCODINGS = (None, "utf-8", "us-ascii")
"""Of a document, in small letters. Its hosts are read once more by themselves, when nothing says their encoding."""

_FURTHER = expat.errors.codes[expat.errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT]

_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})", re.ASCII)


@dataclass(slots=True)
class Verdict:
    """What the document says about the run as a whole.

    ``oversized`` counts hosts of which it said more than is read.
    """

    version: str = ""
    exit: str | None = None
    error: str = ""
    hosts_total: int | None = None
    oversized: int = 0
    timed_out: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class XmlStream:
    """Feed it what nmap writes; each host comes out as it is complete, and ``close`` gives the verdict."""

    def __init__(
        self,
        *,
        on_host: Callable[[bytes], None] | None = None,
        limit: int = MAX_HOST,
        on_beside: Callable[[str, dict[str, str]], None] | None = None,
    ) -> None:
        """``on_host`` gets the bytes of each ``<host>`` element, whole, at most ``limit`` of them, ``on_beside``
        each element that is outside of hosts, down to the third level, with its attributes.
        """
        self.fraction = 0.0
        """How far a discovery is, from 0 to below 1, never falling: a guess."""
        self._on_host = on_host
        self._on_beside = on_beside
        self._limit = limit
        self._verdict = Verdict()
        self._depth = 0
        self._timed_out = False
        self._held = bytearray()
        """The bytes from ``_base`` on that are still needed: of the host at hand."""
        self._base = 0
        self._fed = 0
        self._beside = 0
        self._begun: int | None = None
        """Where the host at hand begins; ``None`` outside of one, -1 when it has become too large."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._entity
        self._parser = parser

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises ``ScanFailure`` when they cannot be nmap's or there are too many."""
        self._held += data
        self._fed += len(data)
        self._parse(data, final=False)
        unread = self._fed - max(0, self._parser.CurrentByteIndex)
        if unread > self._limit + len(data):  # one tag or text without an end
            raise ScanFailure("nmap wrote something that is not its XML: an element without an end")
        if self._begun is None:
            self._beside += len(data)
            if self._beside > MAX_BESIDE:
                raise ScanFailure(f"nmap wrote more than {MAX_BESIDE // 2**20} MiB that tell of no host")
            self._forget(self._fed - unread)
        elif self._fed - self._begun > self._limit:
            self._begun = -1
        if self._begun == -1:
            self._forget(self._fed)

    def close(self) -> Verdict:
        """The end of the output. Raises ``ScanFailure`` when the document is not complete."""
        if not self._fed:
            raise ScanFailure("nmap wrote nothing")
        self._parse(b"", final=True)
        return self._verdict

    def _forget(self, until: int) -> None:
        if until > self._base:
            del self._held[: until - self._base]
            self._base = until

    def _parse(self, data: bytes, *, final: bool) -> None:
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            what = "nmap's XML stops before its end" if final else "nmap wrote something that is not its XML"
            if error.code == _FURTHER:
                what = "nmap's XML goes on behind its end"
            raise ScanFailure(f"{what}: {error}") from error

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if (encoding.lower() if encoding else None) not in _ENCODINGS:
            raise ScanFailure(f"nmap wrote something that is not its XML: its encoding is {clean(encoding, 40)!r}")

    def _doctype(self, name: str, system: str | None, public: str | None, internal_subset: int) -> None:
        if name != "nmaprun" or system is not None or public is not None or internal_subset:
            raise ScanFailure("nmap wrote something that is not its XML: a foreign document type")

    def _entity(self, name: str, *_rest: object) -> None:
        raise ScanFailure(f"nmap wrote something that is not its XML: it declares the entity {name[:40]!r}")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH or (self._depth == 1 and name != "nmaprun"):
            raise ScanFailure(f"nmap wrote something that is not its XML: an element {name[:40]!r}")
        verdict = self._verdict
        if self._on_beside is not None and self._begun is None and self._depth <= 3:
            self._on_beside(name, attributes)
        if self._depth == 1:
            verdict.version = clean(attributes.get("version"), 40)
            # masscan writes such documents too, of a version of its own
            if attributes.get("scanner", "nmap") == "nmap":
                _refuse_old(verdict.version)
        elif self._depth == 2 and name == "host":
            self._begun = self._parser.CurrentByteIndex
            self._timed_out = attributes.get("timedout") == "true"
        elif self._depth == 3:
            match name:
                case "address" if self._timed_out and attributes.get("addrtype") in ("ipv4", "ipv6"):
                    verdict.timed_out.append(clean(attributes.get("addr")))
                case "finished":
                    verdict.exit = attributes.get("exit", "")
                    verdict.error = clean(attributes.get("errormsg"))
                case "hosts":
                    verdict.hosts_total = _number(attributes.get("total"))
        elif name == "taskprogress":
            self._progress(attributes)
        elif name == "target" and attributes.get("status") == "skipped" and len(verdict.skipped) < 16:
            verdict.skipped.append(clean(attributes.get("specification")))

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth != 1 or name != "host" or self._begun is None:
            return
        begun, self._begun = self._begun, None
        self._timed_out = False
        # The index is that of the closing tag, or for an empty element of its only one.
        end = self._held.find(b">", self._parser.CurrentByteIndex - self._base) + 1
        if begun < 0 or end + self._base - begun > self._limit:
            self._verdict.oversized += 1
            return
        if self._on_host is not None:
            self._on_host(bytes(self._held[begun - self._base : end]))

    def _progress(self, attributes: dict[str, str]) -> None:
        """nmap counts percent, and begins anew for each group of hosts: the furthest counts."""
        percent = attributes.get("percent", "")
        if "ping" in attributes.get("task", "").lower() and _PERCENT.fullmatch(percent):
            self.fraction = max(self.fraction, min(0.99, float(percent) / 100))


def clean(text: str | None, limit: int = TEXT_LIMIT) -> str:
    """A stranger's text made harmless for terminals, logs and tables: one line, printable, at most ``limit`` long."""
    cut = (text or "")[: limit * 4]  # first: nothing that is thrown away costs anything
    if not cut.isprintable():
        cut = "".join(character if character.isprintable() else " " for character in cut)
    return " ".join(cut.split())[:limit]


def _refuse_old(version: str) -> None:
    """nmap says its version before it sends anything. Without one that can be read it is taken for new enough."""
    match = _VERSION.match(version)
    if match and (int(match[1]), _hundredths(match[2])) < OLDEST:
        needed = ".".join(str(part) for part in OLDEST)
        raise ScanFailure(
            f"nmap {version} is too old: {needed} or newer is needed, whose scripts tell of certificates in XML"
        )


def _hundredths(text: str) -> int:
    """What follows the point in nmap's versions is a fraction: 7.8 would be newer than 7.70."""
    return int(text.ljust(2, "0")[:2])


def _number(text: str | None) -> int | None:
    """A decimal number of at most nine digits, else nothing."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None
