"""The version of a store: ``store.json`` beside its interfaces says which program may touch it.

It is made when a capture first takes a directory over. A store from before there were versions has none, and is of the
first.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from agent.errors import ConfigurationError, StorageFailure
from agent.linux.files import open_regular, why, write_atomic
from agent.workers.capture.catalogue import interfaces

VERSION = 1

FILE = "store.json"

_LONGEST = 4096


class _Mark(msgspec.Struct):
    version: int


def check(directory: Path) -> bool:
    """Whether the store says its version; call it before anything in there is looked at.

    Raises ``ConfigurationError``, in one line, when that is newer than ours or cannot be told, and ``StorageFailure``
    when the file cannot be read.
    """
    path = directory / FILE
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            version = msgspec.json.decode(file.read(_LONGEST), type=_Mark).version
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be read: {why(error)}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        version = 0
    if version < 1:
        raise ConfigurationError(f"{path}: says no version of a store; put back the file, or move the store away")
    if version > VERSION:
        raise ConfigurationError(
            f"{path}: the store is of version {version}, and this program knows {VERSION}; use the newer program, "
            "or move the store away"
        )
    return True


def is_store(directory: Path) -> bool:
    """Whether a capture stores packets there. Raises as ``check`` does, and ``StorageFailure``."""
    return check(directory) or bool(interfaces(directory))


def mark(directory: Path) -> None:
    """Write down our version. Raises ``StorageFailure``."""
    write_atomic(directory / FILE, b'{"version": %d}\n' % VERSION, mode=0o640, durable=True)
