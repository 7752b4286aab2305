"""Looking at other programs' processes from outside, the same way for everybody. All of it is proc(5)."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

WORKER = ("/bin/sleep", "infinity")
"""What every supervisor is told to run."""

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2): descendants that lose their parent come to us, so that none can be left behind."""


def become_subreaper() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def children(pid: int) -> list[int]:
    """The children of ``pid``; none when it is gone."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def descendants(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from descendants(child)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_worker(pid: int) -> bool:
    """Whether ``pid`` runs the worker's program by now, and not still its supervisor's copy that will become it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b"".join(part.encode() + b"\0" for part in WORKER)
    except OSError:
        return False


def workers(root: int) -> list[int]:
    """The running workers below ``root``, the eldest first."""
    return sorted(pid for pid in descendants(root) if is_worker(pid))


class Arrivals:
    """Counts the workers below ``root`` as they turn up.

    A worker that was seen is not looked at again: reading all of /proc each time takes so long that the observer would
    delay those who are observed.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._seen: set[int] = set()

    def count(self) -> int:
        """How many there are so far."""
        self._look(self._root)
        return len(self._seen)

    def _look(self, pid: int) -> None:
        for child in children(pid):
            if child in self._seen:
                continue
            if is_worker(child):
                self._seen.add(child)
            else:
                self._look(child)


def supervisors(root: int) -> list[int]:
    """``root`` and those of its descendants that are not workers: what the supervision itself costs."""
    return [root, *(pid for pid in descendants(root) if not is_worker(pid))]


def proportional_memory(pids: list[int], proc: Path = Path("/proc")) -> int:
    """PSS of ``pids`` together, in bytes. ``proc`` is where processes have these PIDs."""
    total = 0
    for pid in pids:
        for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def switches(pids: list[int]) -> int:
    """How often the threads of ``pids`` have gone to sleep of their own accord: once for each time they woke up."""
    total = 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
    return total


def await_true(condition: Callable[[], bool], what: str, *, within: float, every: float = 0.002) -> None:
    """Look every ``every`` seconds until ``condition`` holds. Raises ``TimeoutError`` after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took more than {within:.0f} s")
        time.sleep(every)


def end_all(pids: list[int]) -> None:
    """SIGKILL and bury ``pids`` and whatever else is below us and has come from them."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        bury()
        time.sleep(0.01)


def bury() -> None:
    """Wait for those of our children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
