"""The file of a chunk: what is in it survives, and what is not ours, not whole or not of today is not believed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import StorageFailure
from agent.workers.scan.ledger import ANSWERED, ANSWERS, BELIEVED, Ledger, decode, encode

KEY = bytes(range(32))


def opened(path: Path, key: bytes = KEY, count: int = 100, now: float = 1000.0) -> Ledger:
    return Ledger(path, key, count, now=now, within=60.0)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("attempt", [1, 7, 8, 200])
def test_an_answer_is_one_byte(answer: tuple[str, str], attempt: int) -> None:
    byte = encode(*answer, attempt)
    assert ANSWERED <= byte <= 255
    assert decode(byte) == answer
    assert (byte & 7) + 1 == min(attempt, 8)


def test_a_reason_that_is_unknown_keeps_its_state() -> None:
    assert decode(encode("filtered", "source-quench", 1)) == ("filtered", "unreachable")
    assert (decode(encode("open", "strange", 1)) or ("",))[0] == "open"
    assert [decode(byte) for byte in (0, 5, BELIEVED)] == [None, None, None]


def test_what_was_stored_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.workers.scan.test_ledger import opened\n"
        "ledger = opened(Path(sys.argv[1])); ledger.states[7] = 0x81; ledger.states[99] = 3; ledger.mark(2, 40, 50)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "chunk")], cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL
    again = opened(tmp_path / "chunk", now=1050.0)
    assert (again.fresh, again.discarded) == (False, "")
    assert (again.states[7], again.states[99], again.states[0]) == (0x81, 3, 0)
    assert again.place == (2, 40, 50)
    assert again.tally(0, 100) == {0x81: 1, 3: 1, 0: 98}
    again.remove()
    assert not (tmp_path / "chunk").exists()


@pytest.mark.parametrize(
    ("key", "count", "now", "why"),
    [
        (bytes(32), 100, 1000.0, "it is of other probes"),
        (KEY, 99, 1000.0, "it is of other probes"),
        (KEY, 100, 1061.0, "it is too old to be part of a new picture"),
        (KEY, 100, 900.0, "it is too old to be part of a new picture"),
    ],
)
def test_another_chunk_or_another_day_begins_anew(tmp_path: Path, key: bytes, count: int, now: float, why: str) -> None:
    first = opened(tmp_path / "chunk")
    first.states[5] = 200
    first.close()
    again = opened(tmp_path / "chunk", key, count, now)
    assert (again.fresh, again.discarded, again.states[5]) == (True, why, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4195), st.integers(1, 255))
def test_a_damaged_file_is_never_believed_where_it_matters(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "chunk"
    opened(path).close()
    content = bytearray(path.read_bytes())
    content[at] ^= flip
    path.write_bytes(content)
    again = opened(path)
    if at < 47 or 64 <= at < 72:
        assert again.fresh
        assert again.discarded
    if not again.fresh:  # whatever it says, it can be worked with
        assert again.place[1] <= again.place[2] <= 100
        assert all(byte < 128 or decode(byte) for byte in again.states)


@pytest.mark.parametrize("content", [b"", b"SWEEP", os.urandom(5000), bytes(4196)])
def test_garbage_is_thrown_away(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "chunk").write_bytes(content)
    again = opened(tmp_path / "chunk")
    assert again.fresh
    assert again.discarded.startswith("it is damaged")
    assert bytes(again.states) == bytes(100)


def test_a_link_is_not_followed_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(victim)
    assert opened(tmp_path / "link").fresh
    assert victim.read_bytes() == b"precious"
    os.mkfifo(tmp_path / "pipe")
    assert opened(tmp_path / "pipe").discarded == "it is no file"


def test_a_full_disk_is_one_clear_line_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], check=True)
    try:
        with pytest.raises(StorageFailure, match="chunk: cannot be kept: No space left on device"):
            opened(small / "chunk", count=1 << 20)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
