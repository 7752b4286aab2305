"""What a program that was to prove itself said, made fit for one line."""

from __future__ import annotations

import json

import pytest

from agent.installation.verdict import LENGTH, failed_part, last_line

PARTS = [
    {"name": "scan", "verdict": "ok", "finding": "fine"},
    {"name": "calendar", "verdict": "fail", "finding": "a moon\x1b[2J\nis in the way"},
    {"name": "control", "verdict": "fail", "finding": "nothing works"},
]


def test_the_first_part_that_failed_is_told_in_one_printable_line() -> None:
    assert failed_part(json.dumps({"parts": PARTS[:1] + PARTS[2:]}).encode()) == "control: nothing works"
    assert failed_part(json.dumps({"parts": PARTS}).encode()) == "is in the way"


@pytest.mark.parametrize(
    "said",
    [
        *(b"", b"no JSON", b"\xff\xfe", b"[]", b"7", b'{"parts": 7}', b'{"parts": [7]}'),
        *(b'{"parts": [{"verdict": "ok"}]}', b'{"parts": [{"verdict": "fail"}]}', b"[" * 100_000),
    ],
)
def test_what_tells_of_no_failed_part_is_no_reason(said: bytes) -> None:
    assert failed_part(said) == ""


def test_a_byte_that_is_no_text_hides_no_reason() -> None:
    said = b'{"parts": [{"name": "scan", "verdict": "fail", "finding": "caf\xe9"}]}'
    assert failed_part(said) == "scan: caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("said", "line"),
    [(b"", ""), (b" \n\t\n", ""), (b"one\ntwo\n \n", "two"), (b"\x1b]0;x\x07", " ]0;x "), (b"x" * 9999, "x" * LENGTH)],
)
def test_the_last_words_are_one_printable_line(said: bytes, line: str) -> None:
    assert last_line(said) == line
