"""Reports of nmap and masscan as files: opened with the eyes of whoever names them, read piece by piece."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import RuntimeFailure, ScanFailure, StorageFailure, UsageError
from agent.linux.files import why

if TYPE_CHECKING:
    from agent.workers.scan.importing import Report

_PIECE = 256 * 1024


def is_file(word: str) -> bool:
    """Whether a word means a file and no run: it has a slash in it, or ends as such files do."""
    return "/" in word or word.endswith(".xml")


@contextmanager
def hinting(words: Sequence[str]) -> Iterator[None]:
    """Where none of ``words`` could be meant, say how the file is meant that is called so."""
    try:
        yield
    except (UsageError, RuntimeFailure) as error:
        file = next((word for word in words if not is_file(word) and Path(word).is_file()), None)
        if file is None or type(error) not in (UsageError, RuntimeFailure):  # nothing is wrong with the words
            raise
        raise type(error)(f"{error}; if the file {file} is meant, write ./{file}") from error


def read(name: str) -> Report:
    """Read a report. Raises ``UsageError`` when there is none, ``RuntimeFailure`` when it is not whole, or not one."""
    from agent.workers.scan.importing import read_report

    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return read_report(_pieces(file.fileno()))
    except FileNotFoundError:
        raise UsageError(f"{name}: there is no such file") from None
    except OSError as error:
        raise StorageFailure(f"{name}: cannot be read: {why(error)}") from error
    except ScanFailure as failure:
        raise RuntimeFailure(f"{name}: {failure}") from failure


def text_of(name: str) -> str:
    """The name of a file as text that can be stored: bytes of it that are no UTF-8 as their escapes, ``\\xe9``."""
    return os.fsencode(name).decode(errors="backslashreplace")


def short(name: str) -> str:
    """What a report is called where it is shown, and stored."""
    return text_of(Path(name).name)


def _pieces(descriptor: int) -> Iterator[bytes]:
    while data := os.read(descriptor, _PIECE):
        yield data
