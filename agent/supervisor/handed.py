"""Files that a service gets as descriptors, because it could not open them itself.

A scan gets ``run/scan.budget``, by which all scans of this agent keep to one budget: see
``agent.workers.scan.budget_file``. The file is ours alone, and a scan may run as another user. Each start opens it
anew: a lock on it is then the worker's, and goes when that dies.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.declaration.model import AnyService
from agent.linux.files import open_regular
from agent.paths import BUDGET_VARIABLE, Paths


@contextmanager
def handed(service: AnyService, paths: Paths) -> Iterator[dict[str, int]]:
    """The descriptors for a start, by the variables that name them. They are closed afterwards: the child has its own.

    A scan whose budget cannot be opened goes without, and says so itself.
    """
    fd = -1
    if service.kind == "scan":
        with suppress(OSError):
            fd = _open(paths.scan_budget)
    try:
        yield {BUDGET_VARIABLE: fd} if fd >= 0 else {}
    finally:
        if fd >= 0:
            os.close(fd)


def _open(path: Path) -> int:
    """The file, ours and with no other name; whatever else lies there goes. Raises ``OSError``."""
    for _ in range(2):
        try:
            fd = open_regular(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EACCES):
                raise
        else:
            found = os.fstat(fd)
            if found.st_uid == os.geteuid() and found.st_nlink == 1 and not found.st_mode & 0o077:
                return fd
            os.close(fd)
        path.unlink()
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
