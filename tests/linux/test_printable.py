"""Names as somebody chose them: read without a failure, handed back as they were, and shown as one harmless line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux.printable import LONGEST, name_of, printable, proc_text

NAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]), 0, 0, 0)  # PR_SET_NAME, prctl(2)
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"\xff\xfebad", r"\xff\xfebad"),
        (b"\x1b[2J\ry", r"\x1b[2J\x0dy"),
        ("caf\u00e9".encode(), "caf\u00e9"),
        ("a\u202eb\u2028c".encode(), r"a\u202eb\u2028c"),
    ],
)
def test_the_name_of_a_process_is_read_and_shown(name: bytes, shown: str) -> None:
    words = [sys.executable, "-c", NAMED, name.hex()]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        comm = proc_text(Path(f"/proc/{process.pid}/comm"))
        process.communicate(b"\n")
    assert os.fsencode(comm) == name + b"\n"
    assert printable(comm.removesuffix("\n")) == shown


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=300))
def test_whatever_it_is_it_is_one_line_of_unicode(text: str) -> None:
    for shown in (printable(text), name_of(text)):
        assert shown.isprintable()
        shown.encode()
    assert len(name_of(text)) <= LONGEST


@given(st.binary(max_size=64))
def test_bytes_that_are_no_utf_8_are_written_as_they_are(name: bytes) -> None:
    assert printable(os.fsdecode(name)).isprintable()
