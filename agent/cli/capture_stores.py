"""The stores of captures below a prefix, as commands name them."""

from __future__ import annotations

import os
from pathlib import Path

from agent.cli.base import no_such
from agent.errors import RuntimeFailure, StorageFailure, UsageError
from agent.linux.files import why
from agent.workers.capture import version
from agent.workers.capture.catalogue import interfaces, segments


def stores(spool: Path, names: tuple[str, ...] = ()) -> list[Path]:
    """The stores of these services, or of all that captured anything.

    Raises ``UsageError`` for a name that has none, ``RuntimeFailure`` when there is none at all, ``StorageFailure``
    when one cannot be read, and ``ConfigurationError`` for one of a newer version.
    """
    try:
        with os.scandir(spool) as entries:
            found = sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise StorageFailure(f"{spool}: cannot be read: {why(error)}") from error
    if names:
        known = {store.name: store for store in found}
        for name in names:
            if name not in known or not _is_store(known[name]):
                raise UsageError(no_such("capture", name, (store.name for store in _readable(found)[0])))
        return [known[name] for name in dict.fromkeys(names)]
    chosen, closed = _readable(found)
    if closed is not None and not chosen:
        raise closed
    if not chosen:
        raise RuntimeFailure(f"no packets are stored below {spool}")
    return chosen


def _readable(directories: list[Path]) -> tuple[list[Path], StorageFailure | None]:
    """Those that are stores, and what kept us from looking: it may be no capture, and does not matter if others are."""
    found: list[Path] = []
    closed: StorageFailure | None = None
    for directory in directories:
        try:
            found += [directory] if _is_store(directory) else []
        except StorageFailure as error:
            closed = error
    return found, closed


def _is_store(directory: Path) -> bool:
    return version.check(directory) or bool(segments(directory))


def check_interfaces(chosen: list[Path], names: tuple[str, ...]) -> None:
    """Raise ``UsageError`` for an interface of which none of these stores has packets."""
    known = sorted({interface for store in chosen for interface in interfaces(store)})
    for name in names:
        if name not in known:
            raise UsageError(f"{no_such('interface', name, known)}; stored are {', '.join(known) or 'none'}")
