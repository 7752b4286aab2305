"""Each part of the selftest: what it proves here, and that it fails where it should."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from agent.cli import proofs
from agent.cli.proofs import PARTS, WRITING, Proof, main
from agent.errors import CaptureFailure, RuntimeFailure


@pytest.mark.parametrize("part", PARTS)
def test_a_part_finds_that_it_works_here(part: str) -> None:
    proof = PARTS[part]()
    assert proof.found and not proof.unchecked


@pytest.mark.parametrize("part", WRITING)
def test_a_part_that_writes_finds_that_it_works_here(part: str, tmp_path: Path) -> None:
    proof = WRITING[part](tmp_path)
    assert proof.found and not proof.unchecked


def test_an_elapse_that_systemd_would_not_have_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    expression, after, expected = proofs.ELAPSES[-1]
    monkeypatch.setattr(proofs, "ELAPSES", [(expression, after, expected + 1)])
    with pytest.raises(RuntimeFailure, match=f"'{expression}' elapses at @{expected}.0 after @{after}, not at"):
        proofs.calendar()


def test_without_time_zones_the_rest_of_the_calendar_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "ZONES", Path("/nonexistent"))
    proof = proofs.calendar()
    assert "UTC" in proof.found and "tzdata" in proof.unchecked


def test_a_database_that_takes_nothing_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "events.db").mkdir()
    with pytest.raises(RuntimeFailure, match="not a regular file"):
        proofs.database(tmp_path)


def test_a_database_without_a_write_ahead_log_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "_journal_mode", lambda path: "delete")
    with pytest.raises(RuntimeFailure, match="'delete', not as a write-ahead log"):
        proofs.database(tmp_path)


def test_the_journal_mode_is_that_of_the_file(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "plain.db") as connection:
        connection.execute("CREATE TABLE a (b)")
    connection.close()
    assert proofs._journal_mode(tmp_path / "plain.db") == "delete"


def test_what_foreign_programs_inherit_of_a_bundle_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_MEIPASS", "/bundle/lib", raising=False)
    monkeypatch.setenv("LANGUAGE", "/bundle/lib/locale")
    with pytest.raises(RuntimeFailure, match="started with LANGUAGE=/bundle/lib/locale"):
        proofs.processes()


def test_a_host_without_a_program_to_try_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    proof = proofs.processes()
    assert proof.found == "the source tree starts itself"
    assert "cannot start env" in proof.unchecked


def test_a_program_that_is_another_version_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "__version__", "0.0.9")
    with pytest.raises(RuntimeFailure, match="--version exited 0"):
        proofs.processes()
    with pytest.raises(RuntimeFailure, match="answered for version"):
        proofs.control(Path("/tmp"))


def said(capsys: pytest.CaptureFixture[str]) -> object:
    return json.loads(capsys.readouterr().out)


def test_a_proof_is_told_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "scan", lambda: Proof("it works", "but for this"))
    assert main("scan") == 0
    assert said(capsys) == {"found": "it works", "unchecked": "but for this"}


def test_a_failure_is_told_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Proof:
        raise CaptureFailure("lo: nothing came")

    monkeypatch.setitem(PARTS, "capture", fail)
    assert main("capture") == 2
    assert said(capsys) == {"failed": "lo: nothing came"}


def test_a_bug_is_told_with_its_place(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Proof:
        return Proof(str(1 / 0))

    monkeypatch.setitem(PARTS, "capture", fail)
    assert main("capture") == 2
    line = fail.__code__.co_firstlineno + 1
    assert said(capsys) == {"failed": f"ZeroDivisionError: division by zero (test_proofs.py:{line})"}
