"""Running nmap: real scans of the loopback, and programs in its place that misbehave as real processes do."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from agent.errors import ScanFailure, SpawnFailed
from agent.linux.process import ExitStatus
from agent.workers.scan.argv import Ask, ask_argv, target_list
from agent.workers.scan.nmap import judge, run_nmap
from agent.workers.scan.stream import Verdict, XmlStream

GOOD = (
    '<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun version="7.93"><runstats><finished exit="success"/>'
    '<hosts total="1"/></runstats></nmaprun>'
)


def fake(tmp_path: Path, script: str) -> str:
    """A program in nmap's place."""
    path = tmp_path / "nmap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def follow(
    program: str,
    *,
    hosts: int = 1,
    silence: float = 30.0,
    turn: Callable[[], None] = lambda: None,
    trace: Callable[[bytes], None] | None = None,
) -> Verdict:
    return await run_nmap(
        lambda targets, xml: [program, f"/proc/self/fd/{targets}", xml],
        {"PATH": os.environ["PATH"]},
        target_list(("127.0.0.1",)),
        hosts=hosts,
        stream=XmlStream(),
        trace=trace,
        turn=turn,
        turn_every=0.05,
        silence=silence,
    )


def run(program: str, *, hosts: int = 1, silence: float = 30.0) -> Verdict:
    return asyncio.run(follow(program, hosts=hosts, silence=silence))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_real_nmap_scans_what_it_is_given() -> None:
    argv = partial(ask_argv, Ask(4, tcp=((1, 100),)), nmap="/usr/bin/nmap", rate=1000, privileged=False)

    async def scan() -> tuple[Verdict, int]:
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1

        answer = await run_nmap(
            argv,
            {"PATH": os.environ["PATH"], "NMAP_UNPRIVILEGED": "1"},
            target_list(("127.0.0.1", "127.0.0.2")),
            hosts=2,
            stream=XmlStream(),
            turn=turn,
            turn_every=0.05,
        )
        return answer, turns

    before = descriptors()
    answer, turns = asyncio.run(scan())
    assert answer.hosts_total == 2
    assert turns > 0
    assert descriptors() == before


def test_targets_arrive_in_a_file_that_no_other_user_or_process_can_name(tmp_path: Path) -> None:
    program = fake(tmp_path, f"cat $1 > {tmp_path}/seen; readlink $1 >> {tmp_path}/seen; echo '{GOOD}'")
    run(program)
    assert (tmp_path / "seen").read_text() == "127.0.0.1\n/memfd:targets (deleted)\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -SEGV $$", "nmap was killed by SIGSEGV"),
        (
            "echo Killed by the kernel >&2; kill -KILL $$",
            "nmap was killed by SIGKILL, by hand or for want of memory: Killed by the kernel",
        ),
        ("echo 'cannot do this' >&2; echo 'QUITTING!' >&2; exit 1", r"nmap failed \(exited 1\): cannot do this"),
        (f"echo '{GOOD}'; exit 3", r"nmap failed \(exited 3\)"),
        (r"printf '\033[2Jcleared\007\n' >&2; exit 1", r"failed \(exited 1\): \[2Jcleared$"),
        ("exit 0", "nmap wrote nothing"),
        ("echo garbage", "not its XML"),
        ("head -c 300000 /dev/urandom", "not its XML"),
        ("printf '<?xml version=\"1.0\"?><nmaprun><host>'", "stops before its end"),
        (f"echo '{GOOD}' | sed s/success/error/", "nmap did not finish"),
        (
            f"echo 'setup_target: failed to determine route' >&2; echo '{GOOD}' | sed 's/total=\"1\"/total=\"0\"/'",
            "nmap scanned 0 of 1 addresses: setup_target: failed to determine route",
        ),
        ("echo '<!DOCTYPE nmaprun [<!ENTITY a \"b\">]><nmaprun/>'", "not its XML"),
    ],
)
def test_whatever_goes_wrong_is_one_clear_line(tmp_path: Path, script: str, message: str) -> None:
    before = descriptors()
    with pytest.raises(ScanFailure, match=message) as failure:
        run(fake(tmp_path, script))
    assert "\n" not in str(failure.value)
    assert descriptors() == before


def test_an_answer_that_leaves_hosts_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanFailure, match="nmap scanned 1 of 2 addresses"):
        run(fake(tmp_path, f"echo '{GOOD}'"), hosts=2)


def test_a_host_that_nmap_gave_up_on_spoils_the_answer() -> None:
    stream = XmlStream()
    late = '<host timedout="true"><address addr="10.0.0.7" addrtype="ipv4"/></host><runstats>'
    stream.feed(GOOD.replace("<runstats>", late).encode())
    with pytest.raises(ScanFailure, match=r"gave up on 1 hosts, 10\.0\.0\.7 first"):
        judge(ExitStatus(0), stream, 1, "")


def test_a_program_that_is_not_there_cannot_be_started(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(SpawnFailed, match="no such program"):
        run(str(tmp_path / "nmap"))
    assert descriptors() == before


def test_a_flood_of_complaints_neither_blocks_nmap_nor_fills_memory(tmp_path: Path) -> None:
    answer = run(fake(tmp_path, f"head -c 20000000 /dev/zero | tr '\\0' x >&2; echo '{GOOD}'"))
    assert answer.exit == "success"


def test_an_nmap_that_hangs_is_found_out_and_killed(tmp_path: Path) -> None:
    with pytest.raises(ScanFailure, match="nmap hangs: it has said nothing for 0 s"):
        run(fake(tmp_path, "exec sleep 60"), silence=0.3)


def test_turns_come_while_nmap_is_silent_and_alive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 5:  # only turns that come without a word of nmap let it go on
            (tmp_path / "go").write_text("go\n")

    program = fake(tmp_path, f"read x < {tmp_path}/go; echo '{GOOD}'")
    asyncio.run(follow(program, turn=turn))
    assert turns >= 5


def test_a_stop_kills_nmap_and_all_it_started_within_a_second(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    script = f"trap '' TERM INT; sleep 60 & echo $$ $! > {started}; wait"

    async def scenario() -> tuple[float, list[int]]:
        task = asyncio.create_task(follow(fake(tmp_path, script)))
        pids = await asyncio.to_thread(lambda: [int(pid) for pid in started.read_text().split()])
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began, pids

    took, pids = asyncio.run(scenario())
    assert took < 1
    assert len(pids) == 2
    for pid in pids:
        assert gone(pid)


def gone(pid: int) -> bool:
    """Whether the process ends; an orphan is reaped by whoever inherits it, which we wait for."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(asyncio.run(_readable(pidfd)))
    finally:
        os.close(pidfd)


async def _readable(fd: int) -> bool:
    ready = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, ready.set)
    async with asyncio.timeout(5):
        return await ready.wait()


def test_a_grandchild_that_keeps_the_pipes_open_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "away")
    away = f"setsid sh -c 'echo $$ > {tmp_path}/away; exec sleep 50' & read pid < {tmp_path}/away"
    answer = run(fake(tmp_path, f"{away}; echo $pid > {tmp_path}/pid; echo '{GOOD}'"))
    assert answer.exit == "success"
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # still there: nobody waited for it


def test_nmap_is_in_a_session_of_its_own(tmp_path: Path) -> None:
    run(fake(tmp_path, f"cut -d' ' -f1,6 /proc/$$/stat > {tmp_path}/seen; echo '{GOOD}'"))
    pid, session = (tmp_path / "seen").read_text().split()
    assert pid == session


def test_a_paused_nmap_is_killed_by_a_stop_too(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)

    async def scenario() -> int:
        task = asyncio.create_task(follow(fake(tmp_path, f"echo $$ > {ready}; sleep 60")))
        pid = int(await asyncio.to_thread(ready.read_text))
        os.kill(pid, signal.SIGSTOP)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    assert gone(asyncio.run(scenario()))


def test_the_real_nmap_says_how_far_it_is() -> None:
    """``--stats-every`` works on the command line we use (``--noninteractive`` would silence it)."""
    words = ask_argv(Ask(4, tcp=((1, 600),)), nmap="nmap", rate=300, privileged=False, targets=0)
    done = subprocess.run(
        words, input=b"127.0.0.1\n", capture_output=True, check=True, env={**os.environ, "NMAP_UNPRIVILEGED": "1"}
    )
    assert b"<taskprogress" in done.stdout


TALKS = f"exec {sys.executable} -c 'import time; print(\"SENT\"); time.sleep(60)'"
"""A program that writes as C programs do: to a terminal each line, to anything else when its buffer is full."""


def test_a_trace_is_heard_as_it_is_said(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def until_it_is_heard() -> None:
        said = asyncio.Event()

        def trace(data: bytes) -> None:
            heard.append(data)
            said.set()

        running = asyncio.create_task(follow(fake(tmp_path, TALKS), trace=trace))
        await asyncio.wait_for(said.wait(), 20)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    before = descriptors()
    asyncio.run(until_it_is_heard())
    assert heard == [b"SENT\n"]
    assert descriptors() == before


def test_where_no_terminal_is_to_be_had_a_trace_comes_by_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> tuple[int, int]:
        raise OSError(errno.ENOENT, "No such file or directory", "/dev/ptmx")

    monkeypatch.setattr(os, "openpty", none)
    heard: list[bytes] = []
    answer = asyncio.run(follow(fake(tmp_path, f"echo SENT; echo '{GOOD}' >$2"), trace=heard.append))
    assert answer.exit == "success"
    assert b"".join(heard) == b"SENT\n"
