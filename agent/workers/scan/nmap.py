"""Running nmap: one process, followed from the worker's own loop, and its answer judged.

nmap gets a session of its own and is killed with its whole process group, whatever ends the run: its end, a stop, an
error, an answer that cannot be trusted. If this process is killed, so is nmap, by the kernel.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import tty
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial

from agent.errors import ScanFailure, StorageFailure
from agent.linux.process import ExitStatus
from agent.linux.spawn import Child, SpawnRequest, spawn
from agent.workers.scan.stream import Verdict, XmlStream, clean

STDERR_KEPT = 8192
"""Bytes of what nmap complained about last."""

SILENCE = 120.0
"""Seconds without a word after which nmap is taken to hang. It reports every second; while it waits for a slow service
it was seen to say nothing for 6 s."""

_KILL_WAIT_MS = 1000
_READ = 65536
_READS_PER_TURN = 16  # as much as a pipe can ever hold, pipe(7): the dead are heard out, a flood cannot keep the loop

_NOISE = ("WARNING: No targets were specified", "QUITTING!", "See the output of nmap -h")
"""Lines that follow the one that says what is wrong."""


async def run_nmap(
    make_argv: Callable[[int, str], Sequence[str]],
    environment: Mapping[str, str],
    targets: bytes,
    *,
    capabilities: Collection[str] | None = None,
    hosts: int,
    stream: XmlStream,
    trace: Callable[[bytes], None] | None = None,
    turn: Callable[[], None],
    turn_every: float,
    silence: float = SILENCE,
) -> Verdict:
    """Run nmap to its end.

    ``make_argv`` gets the descriptor from which nmap reads ``targets``, the list of ``hosts`` addresses, and the path
    to which it writes its XML (``-oX``); nmap gets those ``capabilities`` (as in ``SpawnRequest``). ``trace`` is given,
    in whatever pieces, what nmap says for people, as it says it: its packets (``--packet-trace``). Without it nobody
    hears of that. ``turn`` is called every ``turn_every`` seconds, as long as nmap is alive and was not silent for
    ``silence`` seconds. Cancellation kills nmap within a second. Hosts come out of ``stream`` while nmap runs, and
    whatever ends it, also all that it had written.

    Raises ``ScanFailure`` when nmap failed, was killed, hangs, or did not scan what it was asked to, ``SpawnFailed``
    when it cannot be started.
    """
    complaint = bytearray()
    try:
        with ExitStack() as ours:
            with ExitStack() as theirs:
                out, out_child = _pipe(ours, theirs)
                err, err_child = _pipe(ours, theirs)
                list_fd = _file_in_memory(targets, theirs)
                heard: dict[int, Callable[[bytes], None]] = {out: stream.feed, err: partial(_complain, complaint)}
                xml, passed, shown = "-", [list_fd], out_child
                if trace is not None:
                    told, shown = _lines(ours, theirs)
                    heard[told] = trace
                    xml = f"/proc/self/fd/{out_child}"
                    passed.append(out_child)
                request = SpawnRequest(
                    argv=make_argv(list_fd, xml),
                    environment=environment,
                    stdout=shown,
                    stderr=err_child,
                    pass_fds=passed,
                    capabilities=capabilities,
                    bound=True,
                )
                child = spawn(request)
            try:
                await _follow(child, heard, turn, turn_every, silence)
            except BaseException:
                status = _end(child)
                for fd in heard:
                    with suppress(ScanFailure, StorageFailure):
                        _hear(fd, heard[fd])  # it was said, so it is not lost
                raise
            status = _end(child)
    except OSError as error:
        raise ScanFailure(f"nmap cannot be run: {error.strerror}") from error
    return judge(status, stream, hosts, complaint.decode("utf-8", "replace"))


def judge(status: ExitStatus, stream: XmlStream, hosts: int, complaint: str) -> Verdict:
    """Whether nmap did what it was asked to: scan ``hosts`` addresses and say so to the end.

    Its exit status alone is not enough: it is 0 when no target could be reached. Raises ``ScanFailure`` with nmap's own
    words where it has any.
    """
    said = _last_words(complaint)
    if status.code is None:
        why = ", by hand or for want of memory" if status.signal == signal.SIGKILL else ""
        raise ScanFailure(f"nmap was {status}{why}{said}")
    if status.code != 0:
        raise ScanFailure(f"nmap failed ({status}){said}")
    verdict = stream.close()
    if verdict.exit != "success":
        raise ScanFailure(f"nmap did not finish: {verdict.error or 'it does not say why'}{said}")
    if verdict.hosts_total != hosts:
        skipped = f", the first one left out is {verdict.skipped[0]}" if verdict.skipped else ""
        raise ScanFailure(f"nmap scanned {verdict.hosts_total or 0} of {hosts} addresses{skipped}{said}")
    if verdict.timed_out:
        raise ScanFailure(f"nmap gave up on {len(verdict.timed_out)} hosts, {verdict.timed_out[0]} first{said}")
    return verdict


def _last_words(complaint: str) -> str:
    lines = [clean(line) for line in complaint.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    return f": {telling[-1]}" if telling else ""


async def _follow(
    child: Child,
    takers: Mapping[int, Callable[[bytes], None]],
    turn: Callable[[], None],
    turn_every: float,
    silence: float,
) -> None:
    """Read what nmap writes until it ends, and what is left of that then."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    watched = {*takers, child.pidfd.fd}
    for fd in watched:
        loop.add_reader(fd, woken.set)
    heard = loop.time()
    due = heard + turn_every

    try:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await woken.wait()
            woken.clear()
            ended = child.pidfd.exited()  # asked before reading: a dead nmap adds nothing to its pipes
            said = False
            for fd, take in takers.items():
                some, at_end = _hear(fd, take)
                said = said or some
                if at_end and fd in watched:  # it would be readable for ever
                    loop.remove_reader(fd)
                    watched.remove(fd)
            if ended:
                return
            if said:
                heard = loop.time()
            elif loop.time() - heard >= silence:
                raise ScanFailure(f"nmap hangs: it has said nothing for {silence:.0f} s")
            if loop.time() >= due:  # it may write a thousand lines a second
                turn()
                due = loop.time() + turn_every
    finally:
        for fd in watched:
            loop.remove_reader(fd)


def _complain(complaint: bytearray, data: bytes) -> None:
    complaint.extend(data)
    del complaint[:-STDERR_KEPT]


def _hear(fd: int, take: Callable[[bytes], None]) -> tuple[bool, bool]:
    """Take what is there now: whether there was something, and whether that was the end of the stream."""
    some = False
    for _ in range(_READS_PER_TURN):
        data = _read(fd)
        if not data:
            return some, data == b""
        some = True
        take(data)
    return some, False


def _read(fd: int) -> bytes | None:
    """What is there now, empty at the end of the stream; ``None`` when nothing is there yet."""
    try:
        return os.read(fd, _READ)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal that nobody writes to any more
            return b""
        raise


def _end(child: Child) -> ExitStatus:
    """Kill what is left of nmap's process group, reap nmap, and let go of it."""
    with child.pidfd as pidfd:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # nmap is not reaped yet, so the group is still this one
        poll = select.poll()
        poll.register(pidfd.fd, select.POLLIN)
        poll.poll(_KILL_WAIT_MS)
        return pidfd.wait() or ExitStatus(None)


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """A pipe that we read, without blocking, and nmap writes; each end is closed with its stack."""
    read, write = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    os.set_blocking(read, False)
    return read, write


def _lines(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """A pseudoterminal, pty(7), in the place of a pipe: into a pipe the C library writes 4 KiB at a time, to a terminal
    each line as it ends (setbuf(3)). It is nobody's controlling terminal: nmap does not open it. Where none is to be
    had (no devpts, or too many) a pipe has to do."""
    try:
        read, write = os.openpty()
    except OSError:
        return _pipe(ours, theirs)
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    tty.setraw(write)
    os.set_blocking(read, False)
    return read, write


def _file_in_memory(content: bytes, theirs: ExitStack) -> int:
    """A file without a name, memfd_create(2): nothing to clean up, nobody else to read it, no disk to be full."""
    fd = os.memfd_create("targets", os.MFD_CLOEXEC)
    theirs.callback(os.close, fd)
    os.write(fd, content)
    return fd
