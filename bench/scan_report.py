"""What was measured of scanning, as tables with their targets and with the rows in which somebody else is ahead."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.installed_report import table
from bench.report import MIB
from bench.scan_kills_report import Kill, kill_targets, kills_in_words

TITLE = "Scanning"
US, NMAP, MASSCAN, RUSTSCAN = "agent", "nmap", "masscan", "RustScan"
PORTS = 65_535

Place = tuple[str, int]
"""An address, and a port of it or 0."""


class Found(NamedTuple):
    """An open port, and what it is where that is known because it answered; port 0 of a host that has none."""

    address: str
    port: int
    service: str = ""
    product: str = ""
    version: str = ""

    @property
    def place(self) -> Place:
        return self.address, self.port


@dataclass
class Ended:
    """A process that came to its end: seconds, of processor (it and all that it waited for) too."""

    code: int
    seconds: float
    processor: float


@dataclass(frozen=True)
class Outcome:
    """One run of one program: seconds, whether it said that all is well, and what it found."""

    who: str
    seconds: float
    processor: float
    ended: bool
    found: frozenset[Found]
    silent: frozenset[Place] = frozenset()
    """Ports that it keeps as those that say nothing."""

    @property
    def places(self) -> frozenset[Place]:
        return frozenset(each.place for each in self.found)


Round = Mapping[str, Outcome]
"""By who; in some rounds not everybody takes part."""


class Sending(NamedTuple):
    """SYNs that were sent and answers that were read: seconds, and of processor."""

    probes: int
    answers: int
    seconds: float
    processor: float


@dataclass
class Figures:
    """``runs`` are the rounds of each row; ``truth`` is what is open there."""

    versions: dict[str, str]
    runs: dict[str, list[Round]] = field(default_factory=dict)
    truth: dict[str, frozenset[Place]] = field(default_factory=dict)
    speaking: frozenset[Place] = frozenset()
    """Ports of the row of silent ones that do speak."""
    everyone: Outcome | None = None
    """Of ours: services with the hosts that nmap cannot end on."""
    memory: tuple[int, int] = (0, 0)
    """Bytes: the worker with its nmap, and without."""
    sendings: dict[str, Sending] = field(default_factory=dict)
    questions: list[tuple[str, float]] = field(default_factory=list)
    """About a large memory, and the seconds of each."""
    kills: list[Kill] = field(default_factory=list)
    differ: float = 0.0
    """Hosts' worth of probes by which a scan that nobody killed is above another such one."""


TITLES: Mapping[str, str] = {
    "ports": "65,535 ports, 10 ms, no privilege",
    "loss": "65,535 ports, 10 ms, 5 % lost each way",
    "cap": "65,535 ports, 10 ms, 5,000 packets a second pass",
    "silent": "40 silent, 40 SSH, 40 HTTP ports identified",
    "services": "services of 62 mixed hosts × 1,000 ports",
    "discovery": "discovery of a /20, where 256 answer",
    "crowd": "discovery of a /20, where all answer",
}
THEIRS: Mapping[str, Mapping[str, str]] = {
    "ports": {NMAP: "-sT", RUSTSCAN: ""},
    "loss": {NMAP: "-sS", MASSCAN: "--rate 20000 --retries 2", RUSTSCAN: ""},
    "cap": {NMAP: "-sS --min-rate 20000", MASSCAN: "--rate 20000 --retries 2", RUSTSCAN: ""},
    "silent": {NMAP: "-sV"},
    "services": {NMAP: "-sS -sV"},
    "discovery": {NMAP: "-sn", MASSCAN: "--ping --rate 20000"},
    "crowd": {NMAP: "-sn", MASSCAN: "--ping --rate 20000"},
}
"""Who takes part in a row beside us, and the options that matter."""


def render(figures: Figures) -> str:
    """The targets, every run's medians, and where somebody else is ahead."""
    behind = list(ahead_of_us(figures))
    parts = [
        table(["target", "must reach", "reached", ""], targets(figures)),
        table(["", "", "seconds", "of processor", "found"], rows(figures)),
    ]
    if figures.sendings:
        parts.append(
            table(["a SYN to each port, its answer read", "answers", "a second", "µs of processor"], sent(figures))
        )
    if figures.questions:
        rows_of = ([what, f"{1000 * taken:.1f} ms"] for what, taken in figures.questions)
        parts.append(table(["asked of 1,000 scans of 1,000 hosts", ""], rows_of))
    if figures.kills:
        parts.append(kills_in_words(figures.kills, figures.differ))
    return "\n\n".join([*parts, "Where somebody else is ahead:", "\n".join(behind) if behind else "- nowhere"])


def targets(figures: Figures) -> list[list[str]]:
    """What we promise, and whether this run kept it."""
    return [[what, bound, reached, "yes" if ok else "**no**"] for what, bound, reached, ok in _targets(figures)]


Target = tuple[str, str, str, bool]


def _targets(figures: Figures) -> Iterator[Target]:
    if "ports" in figures.runs:
        rate = PORTS / seconds(figures, "ports", US)
        yield f"ports per second, {TITLES['ports']}", "≥ 15,000", f"{rate:,.0f}", rate >= 15_000
        yield _all_found(figures, "ports")
    if "loss" in figures.runs:
        taken = seconds(figures, "loss", US)
        yield TITLES["loss"], "≤ 20 s", f"{taken:.1f} s", taken <= 20
        yield _all_found(figures, "loss")
    if "cap" in figures.runs:
        yield _all_found(figures, "cap")
    if "silent" in figures.runs:
        yield from _silent(figures)
    if "services" in figures.runs:
        yield from _services(figures)
    for row in ("discovery", "crowd"):
        if row in figures.runs:
            ratio = multiple(figures, row)
            yield TITLES[row], "≤ 1.1 × nmap -sn", f"{ratio:.2f} ×", ratio <= 1.1
            yield _all_found(figures, row)
    if any(figures.memory):
        together, alone = (each / MIB for each in figures.memory)
        reached = f"{together:.0f} MiB (ours alone {alone:.0f})"
        yield "memory (PSS) meanwhile, nmap included", "≤ 60 MiB", reached, together <= 60
    if figures.questions:
        what, longest = max(figures.questions, key=lambda each: each[1])
        yield (
            "questions about 1,000 scans of 1,000 hosts",
            "< 100 ms",
            f"{1000 * longest:.0f} ms ({what})",
            longest < 0.1,
        )
    if figures.kills:
        yield from kill_targets(figures.kills, figures.differ)


def _silent(figures: Figures) -> Iterator[Target]:
    rounds = figures.runs["silent"]
    taken = seconds(figures, "silent", US)
    yield TITLES["silent"], "≤ 20 s", f"{taken:.1f} s", taken <= 20
    named = min(len(identified(each[US]) & figures.speaking) for each in rounds)
    yield "of them named", f"{len(figures.speaking)}", f"{named}", named == len(figures.speaking)
    quiet = figures.truth["silent"] - figures.speaking
    kept = min(len(each[US].silent & quiet) for each in rounds)
    extra = max(len(each[US].silent - quiet) for each in rounds)
    reached = f"{kept}{f' and {extra} that speak' if extra else ''}"
    yield "silent ones of them quarantined", f"{len(quiet)}", reached, kept == len(quiet) and not extra


def _services(figures: Figures) -> Iterator[Target]:
    ratio = multiple(figures, "services")
    yield TITLES["services"], "≤ 0.5 × nmap -sS -sV", f"{ratio:.2f} ×", ratio <= 0.5
    (theirs, *_) = of(figures, "services", NMAP)
    less = max(len(lacking(each, theirs)) for each in of(figures, "services", US))
    yield "findings that nmap has and we have not", "0", f"{less}", less == 0
    if (all_of_them := figures.everyone) is not None:
        ratio = all_of_them.seconds / seconds(figures, "services", NMAP)
        reached = f"{ratio:.2f} × ({all_of_them.seconds:.0f} s)"
        yield "with the two that nmap does not end on", "≤ 0.5 × nmap without them", reached, ratio <= 0.5
        less = len(lacking(all_of_them, theirs))
        yield "findings that we then have not", "0", f"{less}", less == 0 and all_of_them.ended


def lacking(ours: Outcome, theirs: Outcome) -> frozenset[Found]:
    """What they found and we did not, or not as it is.

    A finding is an open port, and its service, product and version where these were told by the port itself. Of one
    that is not named by them only the port counts.
    """
    here = {each.place: each for each in ours.found}
    return frozenset(each for each in theirs.found if not _says(here.get(each.place), each))


def _says(ours: Found | None, theirs: Found) -> bool:
    if ours is None:
        return False
    if theirs.service in ("", "tcpwrapped"):
        return True
    return all(not their or their == our for our, their in zip(ours[2:], theirs[2:], strict=True))


def _all_found(figures: Figures, row: str) -> Target:
    truth, least = figures.truth[row], fewest(figures, row, US)
    return f"of them found, {TITLES[row]}", f"{len(truth):,}", f"{least:,}", least == len(truth)


def rows(figures: Figures) -> Iterator[list[str]]:
    """Who took how long (medians), and the least that was found in any round."""
    for row in figures.runs:
        title = TITLES[row]
        for who in (US, *THEIRS[row]):
            if outcomes := of(figures, row, who):
                options = THEIRS[row].get(who, "")
                stopped = "" if all(each.ended for each in outcomes) else " (ended by us)"
                taken = f"{seconds(figures, row, who):.1f}{stopped}"
                used = f"{statistics.median(each.processor for each in outcomes):.1f}"
                found = f"{fewest(figures, row, who):,} of {len(figures.truth[row]):,}"
                yield [title, f"`{who.lower()} {options}`" if options else who, taken, used, found]
                title = ""


def sent(figures: Figures) -> Iterator[list[str]]:
    """By whom SYNs were sent, how fast, and what each cost."""
    for who, one in figures.sendings.items():
        yield [
            who,
            f"{one.answers:,} of {one.probes:,}",
            f"{one.probes / one.seconds:,.0f}",
            f"{1e6 * one.processor / one.probes:,.1f}",
        ]


def ahead_of_us(figures: Figures) -> Iterator[str]:
    """The rows in which somebody needs less time than we do and finds as much, or finds more."""
    for row in figures.runs:
        ours, found = seconds(figures, row, US), fewest(figures, row, US)
        for who in THEIRS[row]:
            if not of(figures, row, who):
                continue
            theirs, their = seconds(figures, row, who), fewest(figures, row, who)
            if their > found:
                yield f"- found, {TITLES[row]}: {who} {their:,}; we {found:,}"
            elif their == found and theirs < ours:
                yield f"- seconds, {TITLES[row]}: {who} {theirs:.1f}; we {ours:.1f}"


def identified(outcome: Outcome) -> frozenset[Place]:
    """The open ports whose service is known because it answered."""
    return frozenset(each.place for each in outcome.found if each.service not in ("", "tcpwrapped"))


def of(figures: Figures, row: str, who: str) -> list[Outcome]:
    """Of the rounds in which it took part."""
    return [each[who] for each in figures.runs[row] if who in each]


def fewest(figures: Figures, row: str, who: str) -> int:
    """How much of the truth was found in the worst round."""
    return min(len(each.places & figures.truth[row]) for each in of(figures, row, who))


def seconds(figures: Figures, row: str, who: str) -> float:
    return statistics.median(each.seconds for each in of(figures, row, who))


def multiple(figures: Figures, row: str) -> float:
    """Of nmap's time, both medians."""
    return seconds(figures, row, US) / seconds(figures, row, NMAP)
