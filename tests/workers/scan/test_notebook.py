"""What phase 2 has noted of a host is there for whoever continues, whatever has happened to the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import StorageFailure
from agent.workers.scan import notebook
from agent.workers.scan.notebook import Before, Heard, Notebook, Told

ADDRESS = "fe80::1%../eth0"
FACTS = [
    Heard(22, "banner"),
    Told("light", (("tcp", 22), ("udp", 53)), b"<host>\xff\n</host>"),
    Heard(80, "endless"),
    Told("deep", (("tcp", 80),), given_up="too long"),
    Before((("tcp", 22), ("udp", 53))),
]


def noted(place: Path) -> Notebook:
    book = Notebook(place / "services", "run 1")
    book.heard(ADDRESS, 22, "banner")
    book.told(ADDRESS, "light", [("tcp", 22), ("udp", 53)], b"<host>\xff\n</host>")
    book.heard(ADDRESS, 80, "endless")
    book.told(ADDRESS, "deep", [("tcp", 80)], given_up="too long")
    book.before(ADDRESS, {("udp", 53), ("tcp", 22)})
    return book


def the_file(place: Path) -> Path:
    (path,) = (place / "services").iterdir()
    return path


def test_what_was_noted_is_read_again_until_it_is_forgotten(tmp_path: Path) -> None:
    book = noted(tmp_path)
    assert Notebook(tmp_path / "services", "run 1").read(ADDRESS) == FACTS
    assert book.read("10.0.0.1") == []
    book.forget(ADDRESS)
    book.forget(ADDRESS)
    assert book.read(ADDRESS) == []
    assert not [*(tmp_path / "services").iterdir()]


def test_the_notes_of_another_run_or_host_are_none(tmp_path: Path) -> None:
    noted(tmp_path)
    other = Notebook(tmp_path / "services", "run 2")
    assert other.read(ADDRESS) == []
    other.heard(ADDRESS, 25, "banner")
    assert other.read(ADDRESS) == [Heard(25, "banner")]
    other.discard()
    assert not [*(tmp_path / "services").iterdir()]
    Notebook(tmp_path / "nowhere", "run 2").discard()


@pytest.mark.parametrize("cut", [1, 9, 40, 100])
def test_a_line_that_was_cut_short_is_left_out_and_the_next_is_not(tmp_path: Path, cut: int) -> None:
    book = noted(tmp_path)
    path = the_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    before = book.read(ADDRESS)
    assert before == FACTS[: len(before)]
    assert len(before) < len(FACTS)
    book.heard(ADDRESS, 443, "tls")
    assert book.read(ADDRESS) == [*before, Heard(443, "tls")]


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_whatever_stands_in_the_file_is_survived(
    tmp_path_factory: pytest.TempPathFactory, nonsense: bytes, at: int
) -> None:
    place = tmp_path_factory.mktemp("notes")
    book = noted(place)
    path = the_file(place)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + nonsense + whole[at:])
    found = book.read(ADDRESS)
    book.heard(ADDRESS, 443, "tls")
    assert book.read(ADDRESS) == [*found, Heard(443, "tls")]


def test_a_file_that_is_too_long_is_none_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = noted(tmp_path)
    monkeypatch.setattr(notebook, "MOST", 100)
    assert book.read(ADDRESS) == []


def test_what_cannot_be_kept_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "services").write_text("a file")
    with pytest.raises(StorageFailure, match="cannot be kept: "):
        Notebook(tmp_path / "services", "run 1").heard(ADDRESS, 22, "banner")
    (tmp_path / "services").unlink()
    book = noted(tmp_path)
    the_file(tmp_path).unlink()
    (tmp_path / "services" / book._path(ADDRESS).name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFailure, match="cannot be kept: "):
        book.read(ADDRESS)


def test_what_is_no_file_or_no_directory_of_ours_is_told_in_one_line_and_not_waited_for(tmp_path: Path) -> None:
    book = noted(tmp_path)
    path = the_file(tmp_path)
    path.unlink()
    os.mkfifo(path)
    for use in (lambda: book.read(ADDRESS), lambda: book.heard(ADDRESS, 22, "banner")):
        with pytest.raises(StorageFailure, match=r"\.notes: cannot be kept: ") as told:
            use()
        assert "\n" not in str(told.value)
    book.forget(ADDRESS)
    path.mkdir()
    with pytest.raises(StorageFailure, match=r"\.notes: cannot be kept: Is a directory"):
        book.discard()
    (tmp_path / "linked").symlink_to(tmp_path / "services")
    with pytest.raises(StorageFailure, match="linked: it is a link"):
        Notebook(tmp_path / "linked", "run 1")
