"""A one-file form that is to be installed: what it is, whether it works here, and having it install itself.

What lies in it and how it is laid is its own affair: a later version may know better than this one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from agent.errors import RuntimeFailure, UsageError
from agent.installation.ground import machine_in
from agent.installation.verdict import failed_part, last_line
from agent.linux.environment import fresh_environment
from agent.linux.spawn import Completed, SpawnRequest, run

SELFTEST_SECONDS = 120.0
INSTALL_SECONDS = 300.0
VERSION_SECONDS = 30.0

WAIT = "_AGENTCTL_WAIT"
"""Set for an ``install`` that is to wait for another one: a variable, as a version that does not know it ignores it."""

NOT_UNPACKED = (
    b"decompression resulted in return code -1!",  # Z_ERRNO: nothing more can be written
    b"failed to write data chunk",
    b"failed to open target file",
    b"Could not create temporary directory",
    b"failed to map segment from shared object",  # ld.so, where nothing may be executed
)
"""What stands on stderr when the one file cannot unpack itself, before anything of ours runs (docs/binary.md)."""


def examine(file: Path) -> None:
    """Raise ``UsageError`` unless ``file`` is a program for this machine that may be executed."""
    try:
        with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as stream:
            found, header = os.fstat(stream.fileno()), stream.read(20)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    machine, here = machine_in(header), os.uname().machine
    if not stat.S_ISREG(found.st_mode) or machine is None:
        raise UsageError(f"{file}: is no agentctl, nor any other program; give the one file of another version")
    if machine != here:
        raise UsageError(f"{file}: is for {machine}, and this machine is {here}: get the agentctl for {here}")
    if not os.access(file, os.X_OK):
        raise UsageError(f"{file}: may not be executed: chmod +x {file}")


def version(file: Path) -> str:
    """The version that the program says it has. Raises ``RuntimeFailure`` when it is no agentctl."""
    done = _run(file, ["--version"], VERSION_SECONDS)
    word, _, number = done.stdout.decode("utf-8", "replace").strip().partition(" ")
    if not done.status.success or word != "agentctl" or not number:
        raise RuntimeFailure(
            f"{file}: does not say which version of agentctl it is ({_last(done)}); nothing was changed"
        )
    return number


def prove(file: Path) -> None:
    """Run its self-test. Raises ``RuntimeFailure`` with the first part that fails."""
    done = _run(file, ["selftest", "--json"], SELFTEST_SECONDS)
    if done.status.success:
        return
    why = failed_part(done.stdout) or _last(done)
    raise RuntimeFailure(f"{file}: fails its self-test: {why}; nothing was changed")


def install(program: Path, prefix: str, *, back: bool = False) -> None:
    """Have it lay itself below ``prefix`` and point ``current`` at it; ``back``: although it is the older one.

    Waits for another installation to end.
    Raises ``UsageError`` and ``RuntimeFailure`` with its own words.
    """
    done = _run(program, ["install", "--prefix", prefix, *(["--force"] if back else [])], INSTALL_SECONDS, {WAIT: "1"})
    if not done.status.success:
        kind = UsageError if done.status.code == 1 else RuntimeFailure
        raise kind(_last(done).removeprefix("agentctl: "))


def _run(program: Path, words: list[str], seconds: float, variables: Mapping[str, str] = {}) -> Completed:
    """Run it with the environment of the person who asked: $TMPDIR says where it may unpack itself."""
    environment = {**fresh_environment(os.environ), **variables}
    done = run(SpawnRequest(argv=[str(program), *words], environment=environment), seconds)
    if done.timed_out:
        raise RuntimeFailure(f"{program} {words[0]}: not done after {seconds:g} s")
    if not done.status.success and any(said in done.stderr for said in NOT_UNPACKED):
        place = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # only named
        raise RuntimeFailure(
            f"{program}: cannot unpack itself: {place} is full or unusable: make room, or name another place by TMPDIR="
        )
    return done


def _last(done: Completed) -> str:
    """The last line that it said on stderr, else on stdout, else how it ended."""
    return last_line(done.stderr) or last_line(done.stdout) or str(done.status)
