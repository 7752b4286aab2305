"""The rim of every process of this program: whatever happens inside, a line and an exit code of the contract come out.

It stands apart from the command line because the agent's own process runs inside it too, and that one must not import
click (see ``agent.__main__``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from agent.cli.text import safe
from agent.errors import EXIT_INTERRUPTED, EXIT_RUNTIME, AgentError, DeclarationError

EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE: the reader of our output went away; whether the rest went well, nobody was told."""

INTERNAL_ERRORS = "agentctl.log"
"""The file below ``log/`` that tracebacks go to."""

LOG_LIMIT = 1024 * 1024
"""Bytes after which the log of internal errors starts anew."""


def guarded(work: Callable[[], int], *, program: str, log: Path | Callable[[], Path]) -> int:
    """Run ``work`` and return its exit code, or the one that belongs to how it failed.

    ``program`` begins each message; ``log`` is where the traceback of an internal error goes, or tells it at that time.
    Output that is still buffered is written before this returns, so that a full disk or a closed pipe counts.
    """
    open_missing_streams()
    with _answering(_end):
        code = _judged(work, program, log)
        try:
            sys.stdout.flush()
        except OSError as error:
            _discard_output()
            return code or _unwritten(error, program)
        return code


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, a Ctrl-C is a ``KeyboardInterrupt``, for what has to be put in order then.

    Everywhere else it ends the process at once: an exception may come where Python can only print it, as in what is run
    when an object goes, and nobody wants to read that.
    """
    with _answering(signal.default_int_handler):
        yield


@contextlib.contextmanager
def _answering(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Within, this answers a Ctrl-C, unless somebody wants it to be ignored, as nohup(1) does."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(EXIT_INTERRUPTED)


def _judged(work: Callable[[], int], program: str, log: Path | Callable[[], Path]) -> int:
    try:
        return work()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except AgentError as error:
        report(error, program)
        return error.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC) and error.filename is None:
            return _unwritten(error, program)
        return internal(error, program, log)


def internal(error: Exception, program: str, log: Path | Callable[[], Path]) -> int:
    """A bug, or a program of which a part is missing: one line, the traceback in the log, and the exit code."""
    complain(f"{program}: internal error: {type(error).__name__}: {error} ({_keep_traceback(error, log)})")
    return EXIT_RUNTIME


def _unwritten(error: OSError, program: str) -> int:
    if isinstance(error, BrokenPipeError):
        return EXIT_BROKEN_PIPE
    complain(f"{program}: cannot write the output: {error.strerror}")
    return EXIT_RUNTIME


def report(error: AgentError, program: str) -> None:
    """Print an error of ours on stderr. The problems of a declaration stand alone on their lines: ``file:line: …``."""
    if isinstance(error, DeclarationError):
        for problem in error.problems:
            complain(str(problem))
    else:
        complain(f"{program}: {error}")


def complain(line: str) -> None:
    """Print one line on stderr, whatever state stderr is in. In the journal it is an error, and not a mere remark."""
    priority = "<3>" if read_by_the_journal() else ""  # sd-daemon(3)
    with contextlib.suppress(OSError):
        print(priority + safe(line), file=sys.stderr, flush=True)


def read_by_the_journal() -> bool:
    """Whether what we print goes to the journal: what the agent tells there itself is then not worth a second line."""
    if "JOURNAL_STREAM" not in os.environ:
        return False
    from agent.linux.journal import is_ours

    return is_ours(os.environ)


def _discard_output() -> None:
    """Send stdout to nowhere, so that the interpreter's own flush at exit finds no broken pipe."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)


def open_missing_streams() -> None:
    """Make stdout and stderr usable when they were closed (``>&-``), and able to show any text in any locale.

    Every one of the three descriptors leads somewhere from now on: the next file to be opened would get its number, and
    what is meant for a person would be written into it.
    """
    while (sink := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(sink, True)
    os.close(sink)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _keep_traceback(error: Exception, log: Path | Callable[[], Path]) -> str:
    """Append the traceback to the log; returns where to look for details.

    The log lies where the agent may write, and root writes there too: nothing else that stands in its place is opened,
    and no file that has a second name, which may be any file of this disk.
    """
    import time
    import traceback

    from agent.linux.files import open_regular

    frames = traceback.extract_tb(error.__traceback__)
    place = f"at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    try:
        path = log if isinstance(log, Path) else log()
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            found = os.fstat(descriptor)
            if found.st_nlink > 1:
                raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), str(path))
            if found.st_size >= LOG_LIMIT:
                os.ftruncate(descriptor, 0)
            print(time.strftime("%Y-%m-%dT%H:%M:%S%z"), "pid", os.getpid(), file=file)
            traceback.print_exception(error, file=file)
    except (OSError, AgentError):
        return f"{place}; its details could not be logged"
    return f"{place}; details in {path}"
