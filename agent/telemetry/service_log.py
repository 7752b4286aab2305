"""Where the output of one run goes: into the service's file, and into the journal where that is ours to speak to."""

from __future__ import annotations

import msgspec

from agent.declaration.model import AnyService, LogPolicy
from agent.paths import Paths
from agent.telemetry.events import Schedule
from agent.telemetry.journal import JournalledLog, Logbook
from agent.telemetry.log_pump import LogPump
from agent.telemetry.logs import LogFile, LogState


class ServiceLog:
    """The log of one run of a service, of which the journal gets a copy."""

    def __init__(self, paths: Paths, service: AnyService, schedule: Schedule, logbook: Logbook | None) -> None:
        self._file = LogFile(paths.log(service.name), service.log.size, service.log.keep)
        self._both = JournalledLog(self._file, service.name, logbook.write, schedule=schedule) if logbook else None
        self._schedule = schedule

    @property
    def dropped_bytes(self) -> int:
        return self._file.dropped_bytes

    def pump(self, fd: int) -> LogPump:
        return LogPump(fd, self._both or self._file, schedule=self._schedule)

    def freeze(self) -> LogState:
        state = self._file.freeze()
        return msgspec.structs.replace(state, line=self._both.freeze()) if self._both else state

    def thaw(self, state: LogState) -> None:
        self._file.thaw(state)
        if self._both:
            self._both.thaw(state.line)

    def adjust(self, policy: LogPolicy) -> None:
        self._file.adjust(policy.size, policy.keep)

    def close(self) -> None:
        self._file.close()
