"""What was measured of scanning, as tables with their targets and with the rows in which somebody else is ahead."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.installed_report import table
from bench.report import MIB

TITLE = "Scanning"
US, NMAP = "agent", "nmap"
PORTS = 65_535


class Found(NamedTuple):
    """An open port, and the service where that is known because it answered; port 0 of a host that has none."""

    address: str
    port: int
    service: str


@dataclass(frozen=True)
class Outcome:
    """One run of one program: seconds, whether it said that all is well, and what it found."""

    who: str
    seconds: float
    processor: float
    ended: bool
    found: frozenset[Found]

    @property
    def places(self) -> frozenset[tuple[str, int]]:
        return frozenset((each.address, each.port) for each in self.found)


@dataclass(frozen=True)
class Kill:
    """One scan that was killed and continued. ``twice``: probes that were sent again; ``hosts``: to how many hosts."""

    after: float
    complete: bool
    twice: int
    hosts: int
    wrong: int
    """Ports that are open and were not said to be."""


@dataclass
class Figures:
    """``runs`` are the rounds of each row, each by who; ``truth`` is what is open there."""

    versions: dict[str, str]
    runs: dict[str, list[dict[str, Outcome]]] = field(default_factory=dict)
    truth: dict[str, frozenset[tuple[str, int]]] = field(default_factory=dict)
    speaking: frozenset[tuple[str, int]] = frozenset()
    """Ports of the row of silent ones that do speak."""
    memory: int = 0
    kills: list[Kill] = field(default_factory=list)
    per_host: int = 0
    """Probes of one host in the scans that were killed."""


TITLES: Mapping[str, str] = {
    "ports": "65,535 ports, 10 ms, no privilege",
    "loss": "65,535 ports, 10 ms, 5 % lost each way",
    "cap": "65,535 ports, 10 ms, 5,000 packets a second pass",
    "silent": "40 silent, 40 SSH, 40 HTTP ports identified",
    "services": "services of 62 mixed hosts × 1,000 ports",
    "discovery": "discovery of a /20, where 256 answer",
    "crowd": "discovery of a /20, where all answer",
}
THEIRS: Mapping[str, str] = {
    "ports": "nmap -sT",
    "loss": "nmap -sS",
    "cap": "nmap -sS --min-rate 20000",
    "silent": "nmap -sV",
    "services": "nmap -sS -sV",
    "discovery": "nmap -sn",
    "crowd": "nmap -sn",
}


def render(figures: Figures) -> str:
    """The targets, every run's medians, and where somebody else is ahead."""
    behind = list(ahead_of_us(figures))
    return "\n\n".join(
        [
            table(["target", "must reach", "reached", ""], targets(figures)),
            table(["", "seconds: agent", "nmap", "found: agent", "nmap", "nmap was"], list(rows(figures))),
            "Where somebody else is ahead:",
            "\n".join(behind) if behind else "- nowhere",
        ]
    )


def targets(figures: Figures) -> list[list[str]]:
    """What we promise, and whether this run kept it."""
    return [[what, bound, reached, "yes" if ok else "**no**"] for what, bound, reached, ok in _targets(figures)]


def _targets(figures: Figures) -> Iterator[tuple[str, str, str, bool]]:
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
        taken = seconds(figures, "silent", US)
        yield TITLES["silent"], "≤ 20 s", f"{taken:.1f} s", taken <= 20
        named = min(len(identified(each[US]) & figures.speaking) for each in figures.runs["silent"])
        yield "of them named", f"{len(figures.speaking)}", f"{named}", named == len(figures.speaking)
    if "services" in figures.runs:
        ratio = multiple(figures, "services")
        yield TITLES["services"], f"≤ 0.5 × {THEIRS['services']}", f"{ratio:.2f} ×", ratio <= 0.5
        less = max(len(identified(each[NMAP]) - identified(each[US])) for each in figures.runs["services"])
        yield "services that nmap named and we did not", "0", f"{less}", less == 0
    for row in ("discovery", "crowd"):
        if row in figures.runs:
            ratio = multiple(figures, row)
            yield TITLES[row], f"≤ 1.1 × {THEIRS[row]}", f"{ratio:.2f} ×", ratio <= 1.1
            yield _all_found(figures, row)
    if figures.memory:
        memory = figures.memory / MIB
        yield "memory (PSS) meanwhile, nmap included", "≤ 60 MiB", f"{memory:.0f} MiB", memory <= 60
    if kills := figures.kills:
        complete, wrong = sum(each.complete for each in kills), sum(each.wrong for each in kills)
        twice, hosts = max(each.twice for each in kills), max(each.hosts for each in kills)
        yield "scans that are complete after kill -9", f"{len(kills)}", f"{complete}", complete == len(kills)
        bound = figures.per_host
        yield "probes sent twice, at most", f"≤ {bound:,} (one host's)", f"{twice:,} to {hosts} hosts", twice <= bound
        yield "open ports of them said to be closed", "0", f"{wrong}", wrong == 0


def _all_found(figures: Figures, row: str) -> tuple[str, str, str, bool]:
    truth = figures.truth[row]
    least = min(len(each[US].places & truth) for each in figures.runs[row])
    return f"of them found, {TITLES[row]}", f"{len(truth):,}", f"{least:,}", least == len(truth)


def rows(figures: Figures) -> Iterator[list[str]]:
    """Medians of seconds; the least that was found in any round; and how nmap was called."""
    for row, rounds in figures.runs.items():
        truth = figures.truth[row]
        cells = [TITLES[row]]
        for who in (US, NMAP):
            stopped = "" if all(each[who].ended for each in rounds) else " (ended by us)"
            cells.append(f"{seconds(figures, row, who):.1f}{stopped}")
        cells += [f"{min(len(each[who].places & truth) for each in rounds):,} of {len(truth):,}" for who in (US, NMAP)]
        yield [*cells, f"`{THEIRS[row]}`"]


def ahead_of_us(figures: Figures) -> Iterator[str]:
    """The rows in which nmap needs less time than we do and finds as much, or finds more."""
    for row, rounds in figures.runs.items():
        ours, theirs = seconds(figures, row, US), seconds(figures, row, NMAP)
        found = {who: min(len(each[who].places & figures.truth[row]) for each in rounds) for who in (US, NMAP)}
        if found[NMAP] > found[US]:
            yield f"- found, {TITLES[row]}: nmap {found[NMAP]:,}; we {found[US]:,}"
        elif found[NMAP] == found[US] and theirs < ours:
            yield f"- seconds, {TITLES[row]}: nmap {theirs:.1f}; we {ours:.1f}"


def identified(outcome: Outcome) -> frozenset[tuple[str, int]]:
    """The open ports whose service is known because it answered."""
    return frozenset((each.address, each.port) for each in outcome.found if each.service not in ("", "tcpwrapped"))


def seconds(figures: Figures, row: str, who: str) -> float:
    return _median(figures, row, lambda outcomes: outcomes[who].seconds)


def multiple(figures: Figures, row: str) -> float:
    """Of nmap's time: the median of the multiples of each round."""
    return _median(figures, row, lambda outcomes: outcomes[US].seconds / outcomes[NMAP].seconds)


def _median(figures: Figures, row: str, of: Callable[[dict[str, Outcome]], float]) -> float:
    return statistics.median(of(outcomes) for outcomes in figures.runs[row])
