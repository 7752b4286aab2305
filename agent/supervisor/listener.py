"""One service's notify socket in the loop: what its processes say, understood, and from nobody else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.linux.notify import NotifyReceiver
from agent.supervisor.notices import Notice, understand


class Ear(msgspec.Struct, frozen=True):
    """A notify socket between two programs: its descriptor, its address, and the user who may speak."""

    fd: int
    address: str
    uid: int


class Listener:
    """Calls ``on_notice`` with each message of the service's user, the agent's and root.

    The socket outlives a run, so that a service can be replaced on a disk that is full.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path, on_notice: Callable[[Notice], None]) -> None:
        self._loop = loop
        self._path = path
        self._on_notice = on_notice
        self._receiver: NotifyReceiver | None = None
        self._uid = -1

    def open(self, uid: int) -> str:
        """Listen to a service that runs as ``uid``; returns the address for it. Raises ``RuntimeFailure``."""
        if self._receiver is not None and (uid != self._uid or self._was_removed(self._receiver)):
            self.close()
        if self._receiver is None:
            self._uid = uid
            self._receiver = NotifyReceiver(self._path, owner=uid)
            self._loop.add_reader(self._receiver.fd, self.hear)
        return self._receiver.address

    def freeze(self) -> Ear | None:
        """What another program in this process needs to go on listening: the kernel keeps what is said meanwhile."""
        if self._receiver is None:
            return None
        return Ear(self._receiver.fd, self._receiver.address, self._uid)

    def thaw(self, ear: Ear) -> None:
        """Go on listening where an earlier program was frozen."""
        self._uid = ear.uid
        self._receiver = NotifyReceiver.adopt(ear.fd, self._path, ear.address)
        self._loop.add_reader(self._receiver.fd, self.hear)

    def hear(self) -> bool:
        """Take in what was said, a bounded amount of it; whether there was anything."""
        heard = self._receiver.receive() if self._receiver is not None else []
        for notification in heard:
            if notification.uid in (0, os.getuid(), self._uid):
                self._on_notice(understand(notification.fields))
        return bool(heard)

    def hear_out(self) -> None:
        """Take in all that was said: nobody lives any more to say more, and what is left would be put down to the next.

        The kernel keeps 512 messages at most (net.unix.max_dgram_qlen as systemd sets it, unix(7)).
        """
        for _ in range(16):
            if not self.hear():
                return

    def close(self) -> None:
        """Listen no more. Twice does no harm."""
        if self._receiver is not None:
            self._loop.remove_reader(self._receiver.fd)
            self._receiver.close()
            self._receiver = None

    def _was_removed(self, receiver: NotifyReceiver) -> bool:
        """Whether somebody tidied our socket's file away."""
        return receiver.address == str(self._path) and not self._path.is_socket()
