"""One foreign program, run from the watch's own loop: given a text to read, listened to, and killed in time."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Final, NamedTuple

from agent.errors import SpawnFailed
from agent.linux.memfd import seal
from agent.linux.process import ExitStatus
from agent.linux.spawn import Child, SpawnRequest, spawn
from agent.workers.watch.notify_message import cut

KEPT: Final = 8192
"""Bytes of what it said last."""

_READ = 65536
_KILL_WAIT_MS = 1000


class Outcome(NamedTuple):
    """``why`` not, when it was not ``delivered``; ``refused`` says that this very message is not wanted."""

    delivered: bool
    why: str = ""
    refused: bool = False


class Ended(NamedTuple):
    """``out`` and ``err`` are the last of what it wrote. ``in_time``: it was not killed for taking too long."""

    status: ExitStatus
    out: str
    err: str
    in_time: bool

    @property
    def words(self) -> str:
        """Its last line of complaint, to be read after something else; empty when it had none."""
        lines = [line for line in (self.err or self.out).splitlines() if line.strip()]
        return f": {cut(lines[-1].strip())}" if lines else ""


async def handed_over(
    argv: Sequence[str], environment: Mapping[str, str], content: bytes, *, timeout: float, name: str = ""
) -> Outcome:
    """Give ``content`` to a program, which has taken it when it exits 0. ``name`` is what it is called when it fails.

    Raises ``SpawnFailed``.
    """
    name = name or argv[0]
    ended = await run_program(argv, environment, content, timeout=timeout)
    if not ended.in_time:
        return Outcome(False, f"{name} took longer than {timeout:.0f} s")
    return Outcome(True) if ended.status.success else Outcome(False, f"{name} {ended.status}{ended.words}")


async def run_program(
    argv: Sequence[str],
    environment: Mapping[str, str],
    content: bytes,
    *,
    timeout: float,
    files: Mapping[int, bytes] = {},
) -> Ended:
    """Run a program that reads ``content``. Its whole process group is killed when it ends, and after ``timeout``
    seconds, and when this is cancelled.

    ``files`` are further texts for it, by the number of the descriptor that ``argv`` names as ``{NUMBER}``.
    Raises ``SpawnFailed``.
    """
    heard = {"out": bytearray(), "err": bytearray()}
    in_time = True
    try:
        with ExitStack() as ours:
            with ExitStack() as theirs:
                pipes = {name: _pipe(ours, theirs) for name in heard}
                fds = {number: _file(text, theirs) for number, text in files.items()}
                words = argv
                for number, fd in fds.items():
                    words = [word.replace(f"{{{number}}}", f"/proc/self/fd/{fd}") for word in words]
                request = SpawnRequest(
                    argv=words,
                    environment=environment,
                    stdin=_file(content, theirs),
                    stdout=pipes["out"][1],
                    stderr=pipes["err"][1],
                    pass_fds=tuple(fds.values()),
                )
                child = spawn(request)
            try:
                async with asyncio.timeout(timeout):
                    await _follow(child, {pipes[name][0]: heard[name] for name in heard})
            except TimeoutError:
                in_time = False
            finally:
                status = _end(child)
    except OSError as error:
        raise SpawnFailed(f"cannot start {argv[0]}: {error.strerror}", permanent=False) from error
    out, err = (heard[name].decode("utf-8", "replace") for name in ("out", "err"))
    return Ended(status, out, err, in_time)


async def _follow(child: Child, pipes: Mapping[int, bytearray]) -> None:
    """Listen until the program itself has ended, whatever it has left behind that still holds its pipes."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(child.pidfd.fd, end)

    def listen(fd: int) -> None:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return
        if not data:
            loop.remove_reader(fd)
        pipes[fd].extend(data)
        del pipes[fd][:-KEPT]

    for fd in pipes:
        loop.add_reader(fd, listen, fd)
    try:
        await ended
    finally:
        loop.remove_reader(child.pidfd.fd)
        for fd in pipes:
            loop.remove_reader(fd)
        for fd in pipes:  # what the dead has left there
            listen(fd)


def _end(child: Child) -> ExitStatus:
    """Kill what is left of its process group, reap it, and let go of it."""
    with child.pidfd as pidfd:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # it is not reaped yet, so the group is still this one
        poll = select.poll()
        poll.register(pidfd.fd, select.POLLIN)
        poll.poll(_KILL_WAIT_MS)
        return pidfd.wait() or ExitStatus(None)


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    os.set_blocking(read, False)
    return read, write


def _file(content: bytes, theirs: ExitStack) -> int:
    """A file without a name, from its beginning: nothing to clean up, no disk to be full, and it waits for nobody."""
    fd = seal("notification", content)
    theirs.callback(os.close, fd)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
