"""What a service holds while it runs: the lock that makes it the only one, its notify socket, its files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec

from agent.declaration.model import AnyService
from agent.errors import AgentError
from agent.linux.files import PrefixLock
from agent.paths import Paths
from agent.supervisor.listener import Ear, Listener
from agent.supervisor.notices import Notice
from agent.supervisor.prepare import drop_secrets, prepare, tidy


class Tenancy(msgspec.Struct, frozen=True):
    """Premises between two programs: the descriptor of the lock while it is held, and the notify socket."""

    lock: int | None
    ear: Ear | None


class Premises:
    """Taken for a run, and left when no process of it remains. Whoever holds the lock may touch the files.

    The agent and ``run-once`` take turns here, so that a job never overlaps itself, and neither clears away what the
    other one's run needs.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, paths: Paths, name: str, on_notice: Callable[[Notice], None]
    ) -> None:
        self.listener = Listener(loop, paths.notify(name), on_notice)
        self._paths = paths
        self._name = name
        self._lock = PrefixLock(paths.service_lock(name))

    @property
    def lock_fd(self) -> int:
        """The descriptor that holds the lock."""
        return self._lock.fd

    def take(self, service: AnyService) -> str:
        """Have everything in place for a run; returns the address of the notify socket.

        Raises ``AlreadyRunning`` when somebody else runs it, other ``AgentError`` and ``OSError``.
        """
        if self._lock.fd < 0:
            self._lock.acquire()
        return self.listener.open(prepare(service, self._paths))

    def freeze(self) -> Tenancy:
        """What another program in this process needs to go on holding them."""
        return Tenancy(self._lock.fd if self._lock.fd >= 0 else None, self.listener.freeze())

    def thaw(self, tenancy: Tenancy) -> None:
        """Go on holding what an earlier program held."""
        if tenancy.lock is not None:
            self._lock.adopt(tenancy.lock)
        if tenancy.ear is not None:
            self.listener.thaw(tenancy.ear)

    def leave(self, *, clear: bool, heartbeat: bool) -> None:
        """Let somebody else have a run; ``clear`` away the secrets, and the ``heartbeat`` file too."""
        if clear and self._is_ours():
            drop_secrets(self._name, self._paths)
            if heartbeat:
                with suppress(OSError):
                    self._paths.heartbeat(self._name).unlink()
        self._lock.release()

    def close(self) -> None:
        """Take back everything but data and logs."""
        self.listener.close()
        if self._is_ours():
            tidy(self._name, self._paths)
        self._lock.release()

    def _is_ours(self) -> bool:
        if self._lock.fd < 0:
            with suppress(AgentError):
                self._lock.acquire()
        return self._lock.fd >= 0
