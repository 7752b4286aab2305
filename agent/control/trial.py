"""Whether another version of this program works here, found out before anything depends on it.

Its ``selftest`` is run as a child of the agent: by the same user, in the same sandbox, with the same libraries as the
agent that it would become.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress

from agent.errors import RuntimeFailure
from agent.installation.verdict import failed_part, last_line
from agent.linux.environment import Program, base_environment
from agent.linux.spawn import SpawnRequest, spawn

PATIENCE = 60.0
"""Seconds that a self-test may take."""

PARTING = 5.0
"""Seconds that it then has to end by itself."""

KEPT = 64 * 1024
"""Bytes of its output that are kept: the last ones tell what failed."""

Spare = Callable[[int, bool], None]
"""Told of a child that somebody waits for (true), so that it is not reaped as a stranger; and of its end (false)."""


async def try_out(program: Program, directory: str, environ: Mapping[str, str], spare: Spare) -> None:
    """Run the self-test of ``program``, whose temporary files go below ``directory``.

    Raises ``RuntimeFailure`` when it fails, hangs, or is no program of ours at all.
    """
    loop = asyncio.get_running_loop()
    environment = {**base_environment(environ), **program.variables, "TMPDIR": directory}
    try:
        output, theirs = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFailure(f"{program.argv[0]} cannot be tried out: {error.strerror}") from error
    os.set_blocking(output, False)
    try:
        try:
            child = spawn(
                SpawnRequest(
                    argv=[*program.argv, "selftest", "--json"], environment=environment, stdout=theirs, stderr=theirs
                )
            )
        finally:
            os.close(theirs)
        spare(child.pid, True)
        said, ended = bytearray(), asyncio.Event()

        def listen() -> None:
            data = _read(output)
            said.extend(data)
            del said[:-KEPT]
            if not data:  # everybody who could say something is gone
                loop.remove_reader(output)

        loop.add_reader(output, listen)
        loop.add_reader(child.pidfd.fd, ended.set)
        with child.pidfd:
            try:
                async with asyncio.timeout(PATIENCE):
                    await ended.wait()
            except TimeoutError:
                with suppress(TimeoutError, ProcessLookupError):
                    os.killpg(child.pid, signal.SIGINT)  # so that it ends the part that hangs, in a group of its own
                    async with asyncio.timeout(PARTING):
                        await ended.wait()
                raise RuntimeFailure(f"{program.argv[0]}: its self-test did not end within {PATIENCE:g} s") from None
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)  # its leader is not reaped: the group is still this one
                await ended.wait()
                loop.remove_reader(child.pidfd.fd)
                loop.remove_reader(output)
                status = child.pidfd.wait()
                spare(child.pid, False)
        said.extend(_read(output))
    finally:
        os.close(output)
    if status is None or not status.success:
        raise RuntimeFailure(f"{program.argv[0]} fails its self-test ({status}): {reason(bytes(said))}")


def reason(said: bytes) -> str:
    """Why a self-test failed, on one line: the first part that did, or the last words of what is no self-test."""
    return failed_part(said) or last_line(said) or "it said nothing"


def _read(fd: int) -> bytes:
    """What there is, 64 KiB at most; nothing at the end, or when there is nothing now."""
    with suppress(BlockingIOError):
        return os.read(fd, 65536)
    return b""
