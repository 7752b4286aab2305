"""What a short command says while it runs, kept as far as is wanted and read to the end so that it never blocks."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence

from agent.linux.process import Pidfd


class Sink:
    """The reading end of a pipe, and as much of what came through as is wanted."""

    def __init__(self, fd: int, limit: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.limit = limit
        self.kept = bytearray()
        self.truncated = False
        self.ended = False

    def read(self) -> bool:
        """Take what there is, up to 64 KiB; ``False`` when there is nothing now. All writers gone: ``ended``."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return False
        room = self.limit - len(self.kept)
        self.kept += data[:room]
        self.truncated |= len(data) > room
        self.ended = not data
        return not self.ended

    def drain(self) -> None:
        """Take what its dead writers left in the pipe, 1 MiB at most; a live one that escaped cannot keep us."""
        for _ in range(64):
            if not self.read():
                return


def follow(pidfd: Pidfd, sinks: Sequence[Sink], deadline: float) -> bool:
    """Collect output until the process ends; ``False`` when the deadline came first."""
    poll = select.poll()
    poll.register(pidfd.fd, select.POLLIN)
    by_fd = {sink.fd: sink for sink in sinks}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            if fd == pidfd.fd:
                return True
            by_fd[fd].read()
            if by_fd[fd].ended:
                poll.unregister(fd)
    return pidfd.exited()
