"""Where a command writes what it was asked for with ``-o``: a file that is whole or not there, or standard output.

What was written is told alike by all: ``FILE: what``, with ``--json`` an object; of ``-o -`` that is on stderr.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import click

from agent.cli import output
from agent.cli.base import Session
from agent.cli.guard import complain
from agent.cli.text import safe
from agent.errors import StorageFailure
from agent.linux.files import why

STDOUT = "-"

_BUFFER = 256 * 1024
_MODE = 0o640


def written_to(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command ``-o``: the argument ``target``."""
    return click.option("-o", "--output", "target", metavar="FILE", help=f"Write {what} to FILE; - is standard output.")


class Target:
    """A file that gets its name when it is whole; ``-`` is standard output, and what is no regular file is written to.

    Raises ``StorageFailure`` when it cannot be made.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._path = Path(os.path.realpath(name))
        self._scratch: Path | None = None
        self.stream: IO[bytes]
        try:
            if name == "-":
                self.stream = os.fdopen(os.dup(1), "wb", _BUFFER)
            elif Path(name).exists() and not Path(name).is_file():
                self.stream = os.fdopen(os.open(name, os.O_WRONLY | os.O_CLOEXEC), "wb", _BUFFER)
            else:
                scratch = self._path.with_name(f".{self._path.name[:200]}.{os.urandom(4).hex()}")
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self.stream = os.fdopen(os.open(scratch, flags, _MODE), "wb", _BUFFER)
                self._scratch = scratch
        except OSError as error:
            raise StorageFailure(f"{name}: cannot be written: {why(error)}") from error

    def write(self, data: bytes) -> None:
        """Raises as ``finish``."""
        try:
            self.stream.write(data)
        except OSError as error:
            raise self.failure(error) from error

    def finish(self) -> None:
        """It is whole. Raises ``StorageFailure``, or ``BrokenPipeError`` when nobody reads standard output any more."""
        try:
            self.stream.close()
            if self._scratch is not None:
                self._scratch.rename(self._path)
                self._scratch = None
        except OSError as error:
            raise self.failure(error) from error

    def abandon(self) -> None:
        """It will not be whole: leave nothing behind."""
        if self._scratch is not None:
            with suppress(OSError):
                self._scratch.unlink()
            self._scratch = None
        with suppress(OSError):
            self.stream.close()

    def failure(self, error: OSError) -> Exception:
        """What to raise for a write that failed."""
        if isinstance(error, BrokenPipeError):
            return error
        name = "the output" if self.name == "-" else self.name
        return StorageFailure(f"{name}: cannot be written: {error.strerror}")


@contextmanager
def writing(name: str) -> Iterator[Target]:
    """A target that gets its name when the block ends well, and is gone otherwise."""
    target = Target(name)
    try:
        yield target
        target.finish()
    except BaseException:
        target.abandon()
        raise


def told(session: Session, name: str, words: str, figures: dict[str, Any]) -> None:
    """Say what was written."""
    if session.json:
        document = {"file": name, **figures}
        if name == STDOUT:  # it holds something else
            import json

            complain(json.dumps(document))
        else:
            output.document(document)
    elif name != STDOUT:
        print(f"{safe(name)}: {words}")
