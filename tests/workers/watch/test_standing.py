"""Drift over time: told once when it comes and once when it goes, whatever is blind in between; and kept in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replaced

from agent.errors import StorageFailure
from agent.telemetry.kinds import DRIFT_SEVERITIES, DriftSeverity
from agent.workers.watch.drift import Judged
from agent.workers.watch.row import Row
from agent.workers.watch.standing import ANSWERS, NAME, Damaged, Kept, Standing, fold, notice, read, write

SOURCES = ("scan a", "scan b", "listening")


def row(number: int, since: float = 5.0, depends: frozenset[str] = frozenset()) -> Row:
    return Row("open_undeclared", "high", "10.0.0.1", "tcp", number, "is open", since, (), depends)


def judged(*rows: Row, left_out: int = 0) -> Judged:
    return Judged(list(rows), [], left_out)


rounds = st.lists(
    st.tuples(st.sets(st.integers(1, 4)), st.sets(st.sampled_from(SOURCES))),
    max_size=12,
)


@given(rounds)
def test_each_difference_is_told_once_when_it_comes_and_once_when_it_goes(
    history: list[tuple[set[int], set[str]]],
) -> None:
    """What is real comes and goes; a difference can be judged only while what it depends on is looked at."""
    standing: Standing = {}
    told: dict[str, list[str]] = {}
    for now, (real, blind) in enumerate(history):
        depends = {number: SOURCES[number % 3] for number in range(1, 5)}
        rows = [row(number, depends=frozenset({depends[number]})) for number in real if depends[number] not in blind]
        before = set(standing)
        folded = fold(standing, judged(*rows), blind, float(now))
        standing = folded.standing
        for found in folded.found:
            told.setdefault(found.key, []).append("found")
        for gone in folded.gone:
            told.setdefault(gone.key, []).append("gone")
        assert {one.key for one in folded.found} == set(standing) - before
        assert {one.key for one in folded.gone} == before - set(standing)
        for number, source in depends.items():
            if source not in blind:
                assert (row(number).key in standing) == (number in real)
            else:
                assert (row(number).key in standing) == (row(number).key in before)
    for words in told.values():
        assert words == (["found", "gone"] * len(words))[: len(words)]


def test_since_is_as_it_was_found_and_how_grave_as_it_is_now() -> None:
    first = fold({}, judged(row(1, since=100.0)), (), 200.0)
    later = fold(first.standing, judged(row(1, since=150.0)), (), 300.0)
    (one,) = later.standing.values()
    assert (one.since, one.found) == (100.0, 200.0)
    assert not (later.found or later.gone)


severities = st.sampled_from(DRIFT_SEVERITIES)


@given(st.lists(severities, min_size=1, max_size=12), st.booleans())
def test_what_is_graver_than_was_ever_told_is_told_again_and_nothing_else(
    history: list[DriftSeverity], earlier: bool
) -> None:
    """Also after a restart of a version that wrote down how grave it was, and not how grave it had been."""
    standing: Standing = {}
    worst = -1
    for now, severity in enumerate(history):
        folded = fold(standing, judged(replace(row(1), severity=severity)), (), float(now))
        rank = DRIFT_SEVERITIES.index(severity)
        assert [one.severity for one in folded.found] == ([severity] if rank > worst else [])
        assert not folded.gone
        worst = rank if earlier else max(worst, rank)
        (one,) = folded.standing.values()
        assert (one.severity, one.since, one.found) == (severity, 5.0, 0.0)
        standing = {one.key: replaced(one, told="")} if earlier else folded.standing
    (gone,) = fold(standing, judged(), (), 99.0).gone
    assert gone.severity == history[-1]


def test_who_answers_instead_is_told_of_once_however_often_they_take_turns() -> None:
    def told(answer: str, since: float, standing: Standing) -> tuple[bool, Standing]:
        asked = replace(row(1, since=since), kind="service_differs", answer=answer)
        folded = fold(standing, judged(asked), (), since)
        assert not folded.gone
        return bool(folded.found), folded.standing

    found, standing = told("http nginx", 1.0, {})
    assert found
    for turn in range(3):
        found, standing = told("http nginx", 2.0 + turn, standing)
        assert not found
        found, standing = told("backdoor meterpreter", 10.0 + turn, standing)
        assert found == (turn == 0)
    (one,) = standing.values()
    assert (one.since, one.found) == (10.0, 10.0)
    for number in range(3 * ANSWERS):
        found, standing = told(f"it changes each time {number}" + "x" * 2000, 20.0, standing)
        assert found
        (one,) = standing.values()
        assert len(one.answers) <= ANSWERS
    # Of what an earlier version wrote down nobody knows who it was that answered.
    found, standing = told("http nginx", 30.0, {one.key: replaced(one, answers=())})
    assert not found
    assert told("ssh", 31.0, standing)[0]


def test_what_was_left_out_for_want_of_room_is_not_gone() -> None:
    first = fold({}, judged(row(1), row(2)), (), 1.0)
    crowded = fold(first.standing, judged(row(1), left_out=1), (), 2.0)
    assert len(crowded.standing) == 2
    assert len(fold(crowded.standing, judged(row(1)), (), 3.0).gone) == 1


def test_listeners_are_noticed_once() -> None:
    ssh, web = ("tcp", "::", 22), ("tcp", "::", 80)
    first = notice({}, [ssh], 1.0)
    assert notice(first, [ssh, web], 2.0) == {ssh: 1.0, web: 2.0}
    assert notice(notice(first, [web], 2.0), [ssh], 3.0) == {ssh: 3.0}


def test_what_stands_is_read_back(tmp_path: Path) -> None:
    standing = fold({}, judged(row(1, depends=frozenset({"scan a"}))), (), 7.0).standing
    noticed = {("tcp", "::", 22): 1.5}
    kept = Kept(standing, noticed, 5, [("drift_found", "high: it", {"change": 5, "port": None})])
    write(tmp_path / NAME, kept)
    assert read(tmp_path / NAME) == kept
    assert read(tmp_path / "none") is None


def test_what_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"rows": [], "noticed": [["tcp", "::", 22, 1.5]], "version": 1}')
    assert read(tmp_path / NAME) == Kept({}, {("tcp", "::", 22): 1.5}, 0, [])


def test_rows_that_an_earlier_version_wrote_are_read(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(
        '{"rows": [{"key": "open_undeclared 10.0.0.1 tcp/1", "kind": "open_undeclared", "severity": "high",'
        ' "host": "10.0.0.1", "service": "tcp/1", "what": "is open", "since": 5.0, "found": 7.0, "depends": [],'
        ' "expectations": [], "site": ""}], "noticed": [], "version": 1, "last": 5, "untold": []}'
    )
    kept = read(tmp_path / NAME)
    assert kept is not None
    folded = fold(kept.standing, judged(row(1)), (), 9.0)
    assert not (folded.found or folded.gone)


def test_what_cannot_be_read_or_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(Damaged, match="cannot be read: it is no regular file"):
        read(tmp_path / NAME)
    with pytest.raises(StorageFailure, match="cannot be written: Is a directory"):
        write(tmp_path / NAME, Kept({}, {}))
    with pytest.raises(StorageFailure, match=r"cannot be written: .*surrogates"):
        write(tmp_path / "other", Kept({}, {("tcp", "0.0.0.0 in lxc/\udcff", 80): 1.0}))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 1}',
        '{"rows": [{"key": 5}], "version": 1}',
        '{"rows": [], "noticed": [["tcp", "::", 70000, 1.0]]}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(Damaged, match=r"no list of drift .*; a new one is begun") as told:
        read(tmp_path / NAME)
    assert "\n" not in str(told.value)


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"version": 2}')
    with pytest.raises(StorageFailure, match="of version 2; this program knows up to 1") as told:
        read(tmp_path / NAME)
    assert not isinstance(told.value, Damaged)
