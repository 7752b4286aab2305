"""Another version is tried out as it would run here; whatever it is, nothing of it is left and nobody waits long."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.control import trial
from agent.control.trial import reason, try_out
from agent.errors import RuntimeFailure, SpawnFailed
from agent.linux.environment import Program, running_program
from agent.linux.process import descendants, reap_strangers, stat
from tests.linux.conftest import subreaper
from tests.linux.processes import eventually, open_fds

__all__ = ["subreaper"]

Offer = Callable[[str], Program]


@pytest.fixture(autouse=True)
def _nothing_is_left(subreaper: None) -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    """A program that is a shell script."""

    def make(script: str) -> Program:
        file = tmp_path / "agentctl"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return Program([str(file)], {})

    return make


class Spared:
    """Who must not be reaped as a stranger, as the supervisor is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, bool]] = []

    def __call__(self, pid: int, living: bool) -> None:
        self.told.append((pid, living))
        if living:
            assert stat(pid) is not None
        else:
            assert stat(pid) is None, "its status has been collected by then"


def tried(program: Program, environ: dict[str, str] | None = None) -> Spared:
    """Try it out. Whoever was started has been spared, and is gone."""
    spared = Spared()
    try:
        asyncio.run(try_out(program, "/tmp", environ or {}, spared))
    finally:
        assert [living for _, living in spared.told] in ([], [True, False])
        assert len({pid for pid, _ in spared.told}) <= 1
    return spared


def everybody_gone() -> bool:
    reap_strangers(lambda pid: False)
    return not descendants(os.getpid())


def refused(program: Program) -> str:
    with pytest.raises(RuntimeFailure) as failure:
        tried(program)
    assert "\n" not in str(failure.value)
    return str(failure.value).removeprefix(program.argv[0])


def test_one_that_passes_is_told_nothing_of(offer: Offer) -> None:
    assert tried(offer("exit 0")).told


def test_this_very_version_passes_in_the_environment_of_the_agent() -> None:
    assert tried(running_program(), {"PATH": os.environ["PATH"]}).told


def test_it_is_asked_as_the_agent_itself_would_be_started(offer: Offer, tmp_path: Path) -> None:
    program = offer(f"printf '%s\\n' \"$*\" > {tmp_path}/words; env > {tmp_path}/environment; pwd > {tmp_path}/place")
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/", "LD_LIBRARY_PATH": "/bundle", "API_TOKEN": "swordfish"}
    tried(program._replace(variables={"PYTHONPATH": "/version"}), environ)
    assert (tmp_path / "words").read_text() == "selftest --json\n"
    found = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    assert {name: found[name] for name in found if name not in ("PWD", "OLDPWD", "_", "SHLVL")} == {
        "PATH": "/usr/bin:/bin",
        "HOME": "/",
        "PYTHONPATH": "/version",
        "TMPDIR": "/tmp",
    }


def test_one_that_fails_is_told_with_its_last_words(offer: Offer) -> None:
    program = offer("echo fine; echo 'out of luck' >&2; printf '\\n\\n'; exit 2")
    assert refused(program) == " fails its self-test (exited 2): out of luck"
    assert refused(offer("kill -SEGV $$")) == " fails its self-test (killed by SIGSEGV): it said nothing"


def test_a_self_test_is_told_by_the_first_part_that_fails_however_much_it_says(offer: Offer, tmp_path: Path) -> None:
    parts = [
        {"name": "scan", "verdict": "ok", "finding": "x" * 20_000},
        {"name": "database", "verdict": "fail", "finding": "the disk\nis \x1b[31mfull"},
        {"name": "control", "verdict": "fail", "finding": "nothing works"},
    ]
    (tmp_path / "said").write_text(json.dumps({"ok": False, "parts": parts}, indent=2))
    program = offer(f"cat {tmp_path}/said; exit 2")
    assert refused(program) == " fails its self-test (exited 2): is  [31mfull"


def test_one_that_hangs_is_ended_with_all_its_children(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENCE", 0.3)
    begun = time.monotonic()
    program = offer("trap '' TERM; sleep 86611 & sleep 86611 & sleep 86611")
    assert refused(program) == ": its self-test did not end within 0.3 s"
    assert time.monotonic() - begun < 5
    eventually(everybody_gone)


def test_one_that_hangs_may_end_what_it_has_started_elsewhere(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENCE", 0.3)
    program = offer("setsid sleep 86611 & trap 'kill $!; exit 130' INT; while :; do sleep 0.01; done")
    assert refused(program) == ": its self-test did not end within 0.3 s"
    eventually(everybody_gone)


def test_who_is_left_behind_with_its_output_is_not_waited_for(offer: Offer) -> None:
    begun = time.monotonic()
    assert tried(offer("sleep 86612 & setsid sleep 86612 & exit 0")).told
    assert "(exited 2): done" in refused(offer("setsid sleep 86612 & echo done; exit 2"))
    assert time.monotonic() - begun < 5


def test_one_that_floods_neither_hangs_nor_costs_memory(offer: Offer) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    program = offer("head -c 50000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 2")
    assert refused(program) == " fails its self-test (exited 2): the end"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (b"#!/bin/sh\nexit 0\n", 0o644, "not executable"),
        (b"\x7fELF of another machine", 0o755, "not a program"),
        (b"#!/no/such/interpreter\n", 0o755, "the interpreter that its first line"),
        (b"", 0o755, "not a program"),
    ],
)
def test_what_cannot_be_started_is_refused(tmp_path: Path, content: bytes, mode: int, why: str) -> None:
    file = tmp_path / "agentctl"
    file.write_bytes(content)
    file.chmod(mode)
    assert why in refused(Program([str(file)], {}))
    file.unlink()
    assert "no such program" in refused(Program([str(file)], {}))


def test_the_loop_has_its_turn_while_it_goes_on(offer: Offer) -> None:
    async def scenario() -> int:
        trying = asyncio.ensure_future(try_out(offer("sleep 0.3"), "/tmp", {}, Spared()))
        turns = 0
        while not trying.done():
            await asyncio.sleep(0.01)
            turns += 1
        await trying
        return turns

    assert asyncio.run(scenario()) > 10


def test_one_that_is_given_up_is_ended_at_once(offer: Offer, tmp_path: Path) -> None:
    spared = Spared()

    async def scenario() -> None:
        trying = asyncio.ensure_future(try_out(offer(f"touch {tmp_path}/begun; exec sleep 86613"), "/tmp", {}, spared))
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.005)
        trying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trying

    asyncio.run(scenario())
    assert [living for _, living in spared.told] == [True, False]
    eventually(everybody_gone)


def test_without_descriptors_it_is_refused(offer: Offer) -> None:
    program = offer("exit 0")

    async def scenario(left: int) -> str:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = [os.dup(0) for _ in range(left + 1)]  # the next to be given out; there may be gaps between them
        for fd in free:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
        try:
            await try_out(program, "/tmp", {}, Spared())
        except RuntimeFailure as failure:
            return str(failure)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return ""

    assert asyncio.run(scenario(0)) == f"{program.argv[0]} cannot be tried out: Too many open files"
    assert "no file descriptor is left" in asyncio.run(scenario(2))
    assert issubclass(SpawnFailed, RuntimeFailure)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "it said nothing"),
        (b"\n \n", "it said nothing"),
        (b"one\ntwo\n", "two"),
        (b"\xff\x00\x1b[2J", "�  [2J"),
        (b"x" * 1000, "x" * 300),
        (b'{"parts": []}', '{"parts": []}'),
        (b'{"parts": [{"verdict": "fail"}]}', '{"parts": [{"verdict": "fail"}]}'),
        (b"[1]", "[1]"),
        (b'{"parts": [{"verdict": "fail", "name": "scan", "finding": ""}]}', "scan: "),
    ],
)
def test_whatever_was_said_the_reason_is_one_printable_line(said: bytes, told: str) -> None:
    assert reason(said) == told
