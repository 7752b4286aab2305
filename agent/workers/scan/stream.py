"""nmap's XML, judged while it arrives. No I/O.

nmap writes one document to its standard output and its exit status says little: it is 0 when no target could be
reached, and a document that stops half-way is what a kill leaves. So every byte passes through here first: it is
bounded, entities are refused (banners of strangers stand in it), progress is read from it, and at the end it is known
whether nmap finished what it was asked to do. Elements and attributes are those of nmap.dtd.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from agent.errors import ScanFailure

MAX_XML = 64 * 1024 * 1024
"""Bytes. A chunk in which every port is open and answers with a banner stays far below."""

TEXT_LIMIT = 256
"""Most characters of one text that leaves here or is stored."""

MAX_DEPTH = 32
"""Of elements; nmap.dtd needs fewer than ten."""

_STAGES = (("service", 2), ("ping", 0), ("scan", 1))
"""A word in the name of nmap's task and the stage it belongs to; the first that fits counts."""

_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(slots=True)
class Verdict:
    """What the document says about the run as a whole."""

    version: str = ""
    exit: str | None = None
    error: str = ""
    hosts_total: int | None = None
    timed_out: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    details: dict[tuple[str, str, int], tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """``(address, protocol, port)`` to ``(tunnel, CPEs)``, for ports that have either."""


class XmlStream:
    """Feed it what nmap writes; ``document`` is all of it, ``fraction`` how far it is, ``close`` gives the verdict."""

    def __init__(self, *, stages: int) -> None:
        """``stages``: 1 when hosts are only discovered, 2 with ports, 3 with services."""
        self.document = bytearray()
        self.fraction = 0.0
        """From 0 to below 1, never falling. A guess: nmap tells of the task at hand, not of what is to come."""
        self._stages = stages
        self._verdict = Verdict()
        self._depth = 0
        self._address = ""
        self._timed_out = False
        self._port: tuple[str, int] | None = None
        self._tunnel = ""
        self._cpes: list[str] = []
        self._text: list[str] | None = None
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._entity
        self._parser = parser

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises ``ScanFailure`` when they cannot be nmap's or there are too many."""
        if len(self.document) + len(data) > MAX_XML:
            raise ScanFailure(f"nmap answered with more than {MAX_XML // 2**20} MiB: scan fewer ports")
        self.document += data
        self._parse(data, final=False)

    def close(self) -> Verdict:
        """The end of the output. Raises ``ScanFailure`` when the document is not complete."""
        if not self.document:
            raise ScanFailure("nmap wrote nothing")
        self._parse(b"", final=True)
        return self._verdict

    def _parse(self, data: bytes, *, final: bool) -> None:
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            what = "nmap's XML stops before its end" if final else "nmap wrote something that is not its XML"
            raise ScanFailure(f"{what}: {error}") from error

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
        match name:
            case "nmaprun":
                verdict.version = clean(attributes.get("version"), 40)
            case "taskprogress":
                self._progress(attributes)
            case "host" | "hosthint":
                self._address = ""
                self._timed_out = attributes.get("timedout") == "true"
            case "address" if attributes.get("addrtype") in ("ipv4", "ipv6"):
                self._address = attributes.get("addr", "")
                if self._timed_out:
                    verdict.timed_out.append(clean(self._address))
            case "port":
                self._port = (attributes.get("protocol", ""), _number(attributes.get("portid")) or 0)
                self._tunnel, self._cpes = "", []
            case "service" if self._port is not None:
                self._tunnel = attributes.get("tunnel", "")
            case "cpe" if self._port is not None:
                self._text = []
            case "target" if attributes.get("status") == "skipped":
                verdict.skipped.append(clean(attributes.get("specification")))
            case "finished":
                verdict.exit = attributes.get("exit", "")
                verdict.error = clean(attributes.get("errormsg"))
            case "hosts":
                verdict.hosts_total = _number(attributes.get("total"))

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name == "cpe" and self._text is not None:
            self._cpes.append("".join(self._text))
            self._text = None
        elif name == "port" and self._port is not None:
            if self._tunnel or self._cpes:
                self._verdict.details[(self._address, *self._port)] = (self._tunnel, tuple(self._cpes))
            self._port = None

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _progress(self, attributes: dict[str, str]) -> None:
        """Within a stage nmap counts percent; a stage begins anew for each group of hosts, so the furthest counts."""
        task = attributes.get("task", "").lower()
        stage = next((number for word, number in _STAGES if word in task), self._stages)
        percent = attributes.get("percent", "")
        if stage < self._stages and _PERCENT.fullmatch(percent):
            self.fraction = max(self.fraction, min(0.99, (stage + float(percent) / 100) / self._stages))


def clean(text: str | None, limit: int = TEXT_LIMIT) -> str:
    """A stranger's text made harmless for terminals, logs and tables: one line, printable, at most ``limit`` long."""
    cut = (text or "")[: limit * 4]  # first: nothing that is thrown away costs anything
    if not cut.isprintable():
        cut = "".join(character if character.isprintable() else " " for character in cut)
    return " ".join(cut.split())[:limit]


def _number(text: str | None) -> int | None:
    """A decimal number of at most nine digits, else nothing."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None
