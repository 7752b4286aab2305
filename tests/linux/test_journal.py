"""What is meant arrives, whatever bytes it is made of, and nobody is ever waited for."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux.journal import Journal, encode, is_ours
from tests.linux.journald import Journald, parse
from tests.linux.processes import open_fds

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,63}", fullmatch=True)
TRICKS = [b"", b"\n", b"=", b"\nPRIORITY=0\n", b"\n\0\0\0\0\0\0\0\0\n", b"#", b"."]
VALUES = st.binary(max_size=200) | st.sampled_from(TRICKS)
LARGE = 17 * 1024 * 1024
"""Bytes that fit into no datagram: the kernel gives twice the buffer that is asked for, at most."""


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    made = Journald(tmp_path / "socket")
    yield made
    made.go()


@pytest.fixture
def journal(journald: Journald) -> Iterator[Journal]:
    made = Journal(journald.path)
    yield made
    made.close()


# -- the protocol -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=8))
def test_exactly_the_fields_that_were_meant_come_out(fields: list[tuple[str, bytes]]) -> None:
    assert parse(encode(fields)) == [fields]


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=5))
def test_parts_make_one_entry(first: list[tuple[str, bytes]], second: list[tuple[str, bytes]]) -> None:
    assert parse(encode(first) + encode(second)) == [first + second]


@given(st.text(max_size=70))
def test_a_name_is_one_that_journald_takes_or_it_is_refused(name: str) -> None:
    try:
        sent = encode([(name, b"value")])
    except ValueError:
        return
    assert parse(sent) == [[(name, b"value")]]


@pytest.mark.parametrize("name", ["", "_PID", "9LIVES", "lower", "A-B", "A B", "Ä", "A=B", "A\nB", "A\n", "A" * 65])
def test_a_name_that_journald_would_drop_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a field"):
        encode([(name, b"value")])


# -- sending ----------------------------------------------------------------------------------------------------------


def test_an_entry_arrives(journald: Journald, journal: Journal) -> None:
    fields = [("MESSAGE", b"two\nlines"), ("PRIORITY", b"6"), ("TAG", b"a"), ("TAG", b"b")]
    assert journal.send(encode(fields))
    assert journald.entries() == [fields]
    assert journald.files == 0


def test_what_is_too_large_for_a_datagram_arrives_in_a_sealed_file(journald: Journald, journal: Journal) -> None:
    before = open_fds()
    fields = [("MESSAGE", os.urandom(LARGE)), ("PRIORITY", b"4")]
    assert journal.send(encode(fields))
    assert open_fds() == before
    assert journald.entries() == [fields]
    assert journald.files == 1


def test_where_no_file_is_to_be_had_it_is_lost_and_nothing_else_happens(journald: Journald, journal: Journal) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert not journal.send(encode([("MESSAGE", bytes(LARGE))]))
        assert journal.send(encode([("MESSAGE", b"small")]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert journald.messages() == ["small"]


def test_a_journal_that_does_not_read_is_not_waited_for(journald: Journald, journal: Journal) -> None:
    entry = encode([("MESSAGE", bytes(1000))])
    begun = time.monotonic()
    sent = 0
    while journal.send(entry):
        sent += 1
    assert not journal.send(encode([("MESSAGE", bytes(LARGE))]))
    assert time.monotonic() - begun < 10  # blocked, it would have been for ever
    assert len(journald.entries()) == sent > 0
    assert journal.send(entry)


def test_a_journal_that_is_gone_is_found_again_when_it_is_back(journald: Journald, journal: Journal) -> None:
    journald.go()
    assert not journal.send(encode([("MESSAGE", b"lost")]))
    again = Journald(journald.path)
    assert journal.send(encode([("MESSAGE", b"back")]))
    assert again.messages() == ["back"]
    again.go()


def test_nothing_can_be_sent_after_the_end(journald: Journald, journal: Journal) -> None:
    journal.close()
    journal.close()
    assert not journal.send(encode([("MESSAGE", b"late")]))


# -- whether it is ours -----------------------------------------------------------------------------------------------


def test_the_journal_is_ours_when_the_stream_is_the_one_that_systemd_names(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        found = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_ours(environ, stream.fileno())
        assert not is_ours(environ, other.fileno())
        assert not is_ours({}, stream.fileno())
    assert not is_ours(environ, 1_000_000)


@given(st.text())
def test_no_other_text_means_the_journal(text: str) -> None:
    found = os.fstat(2)
    if text != f"{found.st_dev}:{found.st_ino}":
        assert not is_ours({"JOURNAL_STREAM": text})


def test_a_stream_that_was_redirected_is_not_the_journal(tmp_path: Path) -> None:
    """As with `2>file` in a shell whose own stderr is the journal."""
    program = "import os\nfrom agent.linux.journal import is_ours\nprint(is_ours(os.environ))"
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "file").open("w") as file:
        found = os.fstat(stream.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        said = [
            subprocess.run(
                [sys.executable, "-c", program], env=environment, stderr=where, stdout=subprocess.PIPE, check=True
            ).stdout
            for where in (stream, file)
        ]
    assert said == [b"True\n", b"False\n"]
