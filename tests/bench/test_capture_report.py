"""What the page says of captures: every promise with whether it was kept, and every row in which a peer is ahead."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench import capture_report as report
from bench.captors import US
from bench.capture_method import METHOD
from bench.capture_report import CAPTORS, LOADS, Figures
from bench.report import MIB
from bench.wire import Sent

SENT = Sent(1_000_000, 2.0, 1_000_000)


def run(load: report.Load, captor: str, *, lost: int = 0, processor: float = 0.1) -> report.Run:
    return report.Run(load, captor, SENT, SENT.arrived - lost, lost, processor, 0.5)


def kept() -> Figures:
    """Figures with which each promise is kept, and nobody is ahead."""
    asked = report.Queries(10**10, 5 * 10**8, 20_000_000)
    for of, ours, theirs in ((asked.warm, 0.2, 21.0), (asked.cold, 0.25, 30.0)):
        for who, seconds in ((US, ours), (report.TCPDUMP, theirs), (report.CHOSEN, 1.0)):
            asked.add(of, who, seconds, 87)
    asked.start.append(0.15)
    asked.whole = {US: [(0.3, 1000)], report.STENOGRAPHER: [(0.4, 1010)]}
    return Figures(
        runs=[
            run(load, captor, processor=seconds)
            for load in LOADS
            for captor, seconds in zip(CAPTORS, (0.1, 0.11, 0.9, 0.12), strict=True)
        ],
        scapy=12_000.0,
        rotation=report.Rotation(SENT, 6, SENT.arrived, SENT.arrived, in_order=True),
        kills=[report.Kill(1000, 50_000, whole=True)],
        kill_bound=108_133,
        memory=report.Memory(400_000.0, 10**7, 10**7, 17 * MIB, 120 * MIB),
        accounted=[
            report.Accounted(program, file, 10**6, seconds, 0.1)
            for file in (report.MANY, report.SOME, report.FEW)
            for program, seconds in zip(report.ACCOUNTANTS, (0.4, 1.0, 0.9, 1.5), strict=True)
        ],
        queries=asked,
        visible=[report.Visible(busy, 0.4) for busy in (False, True)],
    )


def verdicts(figures: Figures) -> dict[str, str]:
    return {f"{row[0]}: {row[1]}": row[3] for row in report.targets(figures)}


def broken(**changes: Any) -> list[str]:
    """Which promises are not kept with these figures instead."""
    return [name for name, verdict in verdicts(dataclasses.replace(kept(), **changes)).items() if verdict != "yes"]


def test_everything_kept_is_said_to_be_so() -> None:
    assert broken() == []
    text = report.render(kept())
    assert "Where somebody else is ahead:\n\n- nowhere" in text
    assert "**no**" not in text


def test_each_promise_can_be_broken() -> None:
    def other(load: report.Load, **changes: Any) -> list[report.Run]:
        rest = [one for one in kept().runs if (one.load, one.captor) != (load, US)]
        return [*rest, run(load, US, **changes)]

    assert broken(runs=other(report.MIXED, lost=1)) == ["of them lost: 0, and ≤ 0 (the best peer)"]
    for load in LOADS:
        what = f"processor of the capture, {load.title}"
        assert broken(runs=other(load, processor=0.2)) == [f"{what}: ≤ 1.1 × tcpdump"]
        assert broken(runs=other(load, processor=0.4))[1] == f"{what}: ≤ ⅓ × dumpcap"
    assert broken(scapy=20_000.0) == ["loss-free rate: ≥ 30 × scapy's AsyncSniffer"]
    for turned in (
        report.Rotation(SENT, 6, SENT.arrived - 1, SENT.arrived - 1, in_order=True),
        report.Rotation(SENT, 6, SENT.arrived + 1, SENT.arrived, in_order=True),
        report.Rotation(SENT, 6, SENT.arrived, SENT.arrived, in_order=False),
    ):
        assert broken(rotation=turned) == ["rotation every second, 6 segments: 0 lost, 0 duplicated"]
    assert broken(kills=[report.Kill(108_134, 1, whole=True)])[0].startswith("kill -9 at full rate")
    assert broken(kills=[report.Kill(1, 1, whole=False)]) == ["and what was stored: readable each time"]
    for memory in (
        report.Memory(400_000.0, 1, 1, 41 * MIB, 1),
        report.Memory(400_000.0, 1, 1, 1, 201 * MIB),
        report.Memory(300_000.0, 1, 1, 1, 1),  # not what was to be carried
    ):
        assert broken(memory=memory)
    slow = [dataclasses.replace(one, processor=0.95) if one.program == US else one for one in kept().accounted]
    assert broken(accounted=slow) == [
        f"index and flows, {file}, per million: < 0.90 s (nfpcapd)" for file in report.FILES
    ]
    slower = dataclasses.replace(kept().queries or report.Queries(1, 1, 1), warm={US: [0.22], report.TCPDUMP: [21.0]})
    assert broken(queries=slower) == ["host, port and 5 minutes out of 10 GB in memory: ≥ 100 × tcpdump over the files"]
    assert broken(visible=[report.Visible(False, 0.1), report.Visible(True, 2.1)])[0].startswith("on the wire")


def test_who_is_ahead_is_named_and_who_is_level_as_shown_is_not() -> None:
    figures = kept()
    figures.runs = [
        dataclasses.replace(one, processor=0.099 if one.captor == "netsniff-ng" else one.processor)
        for one in figures.runs
    ]
    assert "- nowhere" not in report.render(figures)
    figures.runs = [
        dataclasses.replace(one, processor=0.0999 if one.captor == "netsniff-ng" else one.processor)
        for one in figures.runs
    ]
    assert "- nowhere" in report.render(figures)
    few = [dataclasses.replace(one, processor=0.2) if one.program == "softflowd" else one for one in figures.accounted]
    assert "64 B, 1,000 flows, to flows: softflowd 0.20; we 0.40" in report.render(
        dataclasses.replace(figures, accounted=few)
    )


def test_a_part_of_it_can_be_shown_alone() -> None:
    assert "rotation" in report.render(Figures(rotation=kept().rotation))
    assert "scapy" not in report.render(Figures(rotation=kept().rotation))


def test_how_it_is_measured_names_what_the_bench_fills_in() -> None:
    from bench.capture import FULL, method

    text = method(Figures(versions={"tcpdump": "4.99"}), FULL)
    assert "tcpdump 4.99" in text
    assert "{" not in text
    assert METHOD.startswith("`make bench-capture ARGS=--write` writes this section.")
