"""What was measured of capturing, as tables with their targets and with the rows in which somebody else is ahead."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.captors import US
from bench.installed_report import table
from bench.report import MIB
from bench.wire import Sent

TITLE = "Capturing packets"
TCPDUMP, DUMPCAP, NETSNIFF = "tcpdump", "dumpcap", "netsniff-ng"
STENOGRAPHER = "stenographer"
CHOSEN = "tcpdump, over the segments of these minutes, chosen by hand"
CAPTORS = (US, TCPDUMP, DUMPCAP, NETSNIFF)
ACCOUNTANTS = (US, "softflowd", "nfpcapd", "pmacctd")


@dataclass(frozen=True)
class Load:
    """What is sent: frames of 64 bytes, or of mixed sizes, at ``rate`` packets per second (0: as fast as it goes)."""

    title: str
    mixed: bool
    rate: int = 0


SMALL, MIXED = Load("64 B, as fast as it goes", False), Load("mixed sizes, as fast as it goes", True)
STEADY = Load("64 B, 100,000 per second", False, 100_000)
LOADS = (SMALL, MIXED, STEADY)

MANY, SOME, FEW = "64 B, 100,000 flows", "mixed sizes, 20,000 flows", "64 B, 1,000 flows"
FILES = (MANY, SOME, FEW)


@dataclass(frozen=True)
class Run:
    """One captor under one load. ``processor`` and ``beside`` (of the index process) are seconds."""

    load: Load
    captor: str
    sent: Sent
    written: int
    dropped: int
    processor: float
    beside: float

    @property
    def lost(self) -> int:
        return self.sent.arrived - self.written

    @property
    def per_million(self) -> float:
        return self.processor / self.sent.arrived * 1e6

    @property
    def beside_per_million(self) -> float:
        return self.beside / self.sent.arrived * 1e6


@dataclass(frozen=True)
class Rotation:
    """Numbered frames, and what of them was found over all segments."""

    sent: Sent
    segments: int
    stored: int
    distinct: int
    in_order: bool

    @property
    def lost(self) -> int:
        return self.sent.arrived - self.distinct

    @property
    def duplicated(self) -> int:
        return self.stored - self.distinct


@dataclass(frozen=True)
class Kill:
    """One capture that was killed: packets that it was sent and did not store; whether all it did can be read.

    ``rate``: packets per second that were sent.
    """

    lost: int
    stored: int
    whole: bool
    rate: float = 0.0


@dataclass(frozen=True)
class Memory:
    """Bytes, at most: of the capture process beside its ring, and of its index process. ``rate`` is per second."""

    rate: float
    arrived: int
    written: int
    capture: int
    index: int


@dataclass(frozen=True)
class Accounted:
    """One program over one file: seconds of processor, and of these what it takes for no packet at all."""

    program: str
    file: str
    packets: int
    processor: float
    start: float

    @property
    def per_million(self) -> float:
        return self.processor / self.packets * 1e6


@dataclass
class Queries:
    """Seconds by the clock for the same question, by who answers: with all of it in memory, and with nothing.

    ``start``: of our program when nothing is of the time that is asked for. Raises ``ValueError`` when answers differ.
    """

    bytes: int
    index_bytes: int
    packets: int
    found: int = 0
    warm: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cold: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    start: list[float] = field(default_factory=list)
    whole: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    """The question without its minutes, in memory: seconds, and packets found."""

    def add(self, to: dict[str, list[float]], who: str, seconds: float, found: int) -> None:
        """An answer of ``found`` packets."""
        if not found or self.found not in (0, found):
            raise ValueError(f"{who} finds {found} packets, and before that {self.found} were found")
        self.found = found
        to[who].append(seconds)


@dataclass(frozen=True)
class Visible:
    """How many seconds after it was sent a packet was in the answer to a query, beside a stream of others or not."""

    busy: bool
    seconds: float


@dataclass
class Figures:
    """What of it was measured."""

    runs: list[Run] = field(default_factory=list)
    scapy: float | None = None
    rotation: Rotation | None = None
    kills: list[Kill] = field(default_factory=list)
    kill_bound: int = 0
    memory: Memory | None = None
    accounted: list[Accounted] = field(default_factory=list)
    queries: Queries | None = None
    visible: list[Visible] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What could not be measured here, and why."""


def render(figures: Figures) -> str:
    """The targets, every table that there are figures for, and where somebody else is ahead."""
    parts = [table(["target", "must reach", "reached", ""], targets(figures))]
    if figures.runs:
        parts += [
            table(["packets lost of those that arrived", *CAPTORS], losses(figures.runs)),
            table(["seconds of processor per million packets", *CAPTORS], processors(figures.runs)),
        ]
    if figures.accounted:
        parts.append(table(["the same, from a file to flows", *ACCOUNTANTS], accounts(figures.accounted)))
    if more := list(others(figures)):
        parts.append(table(["", ""], more))
    behind = list(ahead_of_us(figures))
    parts += ["Where somebody else is ahead:", "\n".join(behind) if behind else "- nowhere"]
    if figures.notes:
        parts.append("\n".join(figures.notes))
    return "\n\n".join(parts)


def targets(figures: Figures) -> list[list[str]]:
    """What we promise, and whether this run kept it."""
    return [[what, bound, reached, "yes" if ok else "**no**"] for what, bound, reached, ok in _targets(figures)]


def _targets(figures: Figures) -> Iterator[tuple[str, str, str, bool]]:
    for load in (SMALL, MIXED):
        runs = figures.runs
        ours = [one for one in runs if (one.load, one.captor) == (load, US)]
        if not ours:
            continue
        lost, rate = sum(one.lost for one in ours), statistics.median(one.sent.rate for one in ours)
        best = min(sum(one.lost for one in runs if (one.load, one.captor) == (load, peer)) for peer in CAPTORS[1:])
        yield f"packets per second, {load.title}", "≥ 400,000", f"{rate:,.0f}", rate >= 400_000
        yield "of them lost", f"0, and ≤ {best:,} (the best peer)", f"{lost:,}", lost == 0
    for load in LOADS if figures.runs else ():
        for peer, bound, factor in ((TCPDUMP, "≤ 1.1", 1.1), (DUMPCAP, "≤ ⅓", 1 / 3)):
            ratio = paired(figures.runs, load, peer)
            yield f"processor of the capture, {load.title}", f"{bound} × {peer}", f"{ratio:.2f} ×", ratio <= factor
    if figures.scapy is not None and (rate := lossless(figures.runs)):
        times = rate / figures.scapy
        yield "loss-free rate", "≥ 30 × scapy's AsyncSniffer", f"{times:.0f} ×", times >= 30
    if (turned := figures.rotation) is not None:
        what = f"rotation every second, {turned.segments} segments"
        found = f"{turned.lost:,} lost, {turned.duplicated:,} duplicated of {turned.sent.arrived:,}"
        good = turned.lost == turned.duplicated == 0 and turned.in_order
        busy = turned.sent.rate >= 0.99 * 200_000
        yield what, "0 lost, 0 duplicated", found, good
        yield "packets per second meanwhile", "200,000", f"{turned.sent.rate:,.0f}", busy
    for file in FILES if figures.accounted else ():
        mine = accounted(figures, file, US)
        best_peer = min(ACCOUNTANTS[1:], key=lambda peer: accounted(figures, file, peer))
        least = accounted(figures, file, best_peer)
        yield f"index and flows, {file}, per million", f"< {least:.2f} s ({best_peer})", f"{mine:.2f} s", mine < least
    if (asked := figures.queries) is not None:
        warm, cold = (statistics.median(of[US]) for of in (asked.warm, asked.cold))
        what = f"host, port and 5 minutes out of {asked.bytes / 1e9:.0f} GB"
        yield f"{what} in memory", "< 1 s", f"{warm:.2f} s", warm < 1
        for of, mine, where in ((asked.warm, warm, "in memory"), (asked.cold, cold, "on disk")):
            times = statistics.median(of[TCPDUMP]) / mine
            yield f"{what} {where}", "≥ 100 × tcpdump over the files", f"{times:,.0f} ×", times >= 100
    if figures.visible:
        longest = max(one.seconds for one in figures.visible)
        what = f"on the wire to visible in a query, longest of {len(figures.visible)}"
        yield what, "≤ 2 s", f"{longest:.2f} s", longest <= 2
    if figures.kills:
        lost, whole = max(one.lost for one in figures.kills), all(one.whole for one in figures.kills)
        what = f"kill -9 at full rate, most lost of {len(figures.kills)}"
        bound = f"≤ {figures.kill_bound:,} packets (ring + 256 KiB)"
        yield what, bound, f"{lost:,}", lost <= figures.kill_bound
        yield "and what was stored", "readable each time", "readable" if whole else "not readable", whole
    if (seen := figures.memory) is not None:
        rate, mib = seen.rate, (seen.capture / MIB, seen.index / MIB)
        busy = rate >= 0.99 * 400_000
        yield (
            "memory of the capture, beside its ring",
            "≤ 40 MiB",
            f"{mib[0]:.1f} MiB at {rate:,.0f}/s",
            mib[0] <= 40 and busy,
        )
        yield "memory of its index process", "≤ 200 MiB", f"{mib[1]:.1f} MiB", mib[1] <= 200 and busy


def losses(runs: list[Run]) -> list[list[str]]:
    return [
        [
            load.title,
            *(f"{sum(one.lost for one in of):,} of {sum(one.sent.arrived for one in of):,}" for of in each(runs, load)),
        ]
        for load in LOADS
    ] + [
        [
            f"sent per second, {load.title}",
            *(f"{statistics.median(one.sent.rate for one in of):,.0f}" for of in each(runs, load)),
        ]
        for load in LOADS
    ]


def each(runs: list[Run], load: Load) -> Iterator[list[Run]]:
    """The runs of each captor under a load."""
    for captor in CAPTORS:
        yield [one for one in runs if (one.load, one.captor) == (load, captor)]


def processors(runs: list[Run]) -> list[list[str]]:
    found = [[load.title, *(f"{value:.3f}" for value in medians(runs, load))] for load in LOADS]
    for load in LOADS:
        beside = statistics.median(one.beside_per_million for one in runs if (one.load, one.captor) == (load, US))
        found.append([f"{load.title}: the index process beside it", f"{beside:.3f}", *["–"] * len(CAPTORS[1:])])
    return found


def medians(runs: list[Run], load: Load) -> list[float]:
    return [statistics.median(one.per_million for one in of) for of in each(runs, load)]


def paired(runs: list[Run], load: Load, peer: str) -> float:
    """The median, over rounds, of what the capture process takes as a multiple of what the peer takes."""
    ours, theirs = ([one for one in runs if (one.load, one.captor) == (load, name)] for name in (US, peer))
    return statistics.median(our.per_million / their.per_million for our, their in zip(ours, theirs, strict=True))


def lossless(runs: list[Run]) -> float:
    """The highest rate at which the capture lost nothing, as far as the sender goes; 0 when it always did."""
    return max((one.sent.rate for one in runs if one.captor == US and one.lost == 0), default=0.0)


def accounts(found: list[Accounted]) -> list[list[str]]:
    rows = []
    for file in dict.fromkeys(one.file for one in found):
        for title, value in _ACCOUNTS.items():
            of = [[value(one) for one in found if (one.file, one.program) == (file, name)] for name in ACCOUNTANTS]
            rows.append([f"{file}{title}", *(f"{statistics.median(values):.2f}" for values in of)])
    return rows


_ACCOUNTS: dict[str, Callable[[Accounted], float]] = {
    "": lambda one: one.per_million,
    ", without its start": lambda one: (one.processor - one.start) / one.packets * 1e6,
}


def accounted(figures: Figures, file: str, program: str) -> float:
    return statistics.median(one.per_million for one in figures.accounted if (one.file, one.program) == (file, program))


def others(figures: Figures) -> Iterable[list[str]]:
    if figures.scapy is not None:
        yield ["scapy's AsyncSniffer, highest rate without loss", f"{figures.scapy:,.0f} /s"]
        yield ["the capture, highest rate that was tried without loss", f"{lossless(figures.runs):,.0f} /s"]
    if (asked := figures.queries) is not None:
        yield ["query: packets found, of", f"{asked.found:,} of {asked.packets:,}"]
        for who, title in ((US, "`agentctl capture query`"), (TCPDUMP, "tcpdump, over all segments"), (CHOSEN, CHOSEN)):
            for of, where in ((asked.warm, "in memory"), (asked.cold, "on disk")):
                yield [f"{title}, {where}", f"{statistics.median(of[who]):.2f} s"]
        yield ["`agentctl capture query` of a time without packets", f"{statistics.median(asked.start):.2f} s"]
        for who, answers in asked.whole.items():
            took, found = (statistics.median(values) for values in zip(*answers, strict=True))
            title = f"{who}, host and port without the minutes, in memory"
            yield [title, f"{took:.2f} s, {found:,.0f} packets"]
        yield ["index, of the bytes of the segments", f"{asked.index_bytes / asked.bytes:.1%}"]
    if figures.visible:
        for busy, beside in ((False, "on an idle wire"), (True, "beside 100,000 per second")):
            took = statistics.median(one.seconds for one in figures.visible if one.busy == busy)
            yield [f"on the wire to visible in a query, median, {beside}", f"{took:.2f} s"]
    if figures.kills:
        yield ["kill -9: sent per second, median", f"{statistics.median(one.rate for one in figures.kills):,.0f}"]
        yield ["kill -9: packets lost, median", f"{statistics.median(one.lost for one in figures.kills):,.0f}"]
        yield ["kill -9: packets stored in these lives", f"{sum(one.stored for one in figures.kills):,}"]
    if (seen := figures.memory) is not None:
        yield [
            "packets lost while memory was looked at",
            f"{seen.arrived - seen.written:,} of {seen.arrived:,}",
        ]


def ahead_of_us(figures: Figures) -> Iterator[str]:
    """The rows in which a peer needs less than we do, as the tables show them."""
    for load in LOADS if figures.runs else ():
        lost = dict(zip(CAPTORS, (sum(one.lost for one in of) for of in each(figures.runs, load)), strict=True))
        yield from _ahead(f"packets lost, {load.title}", lost, "{:,.0f}")
        used = dict(zip(CAPTORS, medians(figures.runs, load), strict=True))
        yield from _ahead(f"seconds of processor per million packets, {load.title}", used, "{:.3f}")
    for file in dict.fromkeys(one.file for one in figures.accounted):
        taken = {name: accounted(figures, file, name) for name in ACCOUNTANTS}
        yield from _ahead(f"seconds of processor per million packets, {file}, to flows", taken, "{:.2f}")
    if (asked := figures.queries) is not None:
        for of, where in ((asked.warm, "in memory"), (asked.cold, "on disk")):
            taken = {who: statistics.median(seconds) for who, seconds in of.items()}
            yield from _ahead(f"the query, seconds, {where}", taken, "{:.2f}")
        everything = {who: statistics.median(took for took, _ in answers) for who, answers in asked.whole.items()}
        yield from _ahead("the query without its minutes, seconds, in memory", everything, "{:.2f}")


def _ahead(title: str, values: Mapping[str, float], form: str) -> Iterator[str]:
    ours = form.format(values[US])
    better = [f"{name} {form.format(value)}" for name, value in values.items() if value < values[US]]
    if better := [one for one in better if one.split()[-1] != ours]:
        yield f"- {title}: {', '.join(better)}; we {ours}"
