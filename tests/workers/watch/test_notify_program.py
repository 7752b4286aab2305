"""One foreign program, run to its end."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from agent.errors import SpawnFailed
from agent.linux.environment import base_environment
from agent.workers.watch.notify_program import KEPT, Ended, run_program

ENVIRONMENT = base_environment(os.environ)


def run(*argv: str, content: bytes = b"", timeout: float = 20.0, files: dict[int, bytes] | None = None) -> Ended:
    return asyncio.run(run_program(argv, ENVIRONMENT, content, timeout=timeout, files=files or {}))


def test_it_is_given_a_text_and_listened_to() -> None:
    text = os.urandom(50_000).hex()
    ended = run("/bin/sh", "-c", "wc -c; cat $0; echo no >&2; exit 3", "{1}", content=text.encode(), files={1: b"more"})
    assert (ended.status.code, ended.out, ended.err) == (3, "100000\nmore", "no\n")
    assert ended.words == ": no"


def test_what_it_says_is_bounded_and_its_last_words_are_one_line() -> None:
    ended = run("/bin/sh", "-c", 'head -c 1000000 /dev/zero; printf "a\\nlast\\033[2J words\\n \\n" >&2')
    assert len(ended.out) == KEPT
    assert ended.words == ": last\\x1b[2J words"


def test_it_and_what_it_started_are_killed_in_time(tmp_path: Path) -> None:
    began = time.monotonic()
    ended = run("/bin/sh", "-c", f"sleep 300 & echo $! > {tmp_path}/pid; wait", timeout=0.3)
    assert not ended.in_time
    assert ended.status.signal == 9
    assert time.monotonic() - began < 60
    child = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()


def test_what_it_leaves_behind_holds_nothing_up() -> None:
    began = time.monotonic()
    assert run("/bin/sh", "-c", "sleep 300 & echo done").out == "done\n"
    assert time.monotonic() - began < 60


def test_a_cancellation_kills_it(tmp_path: Path) -> None:
    async def cancelled() -> None:
        program = run_program(
            ["/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 300"], ENVIRONMENT, b"", timeout=99
        )
        task = asyncio.create_task(program)
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_program_that_is_not_there_is_one_line() -> None:
    with pytest.raises(SpawnFailed, match=r"^cannot start /nowhere: ") as error:
        run("/nowhere")
    assert error.value.permanent
