"""What the life of a service is told in: phases, what happened (events), and what is to be done about it (effects)."""

from __future__ import annotations

from enum import Enum
from typing import Literal

import msgspec


class Phase(Enum):
    """What a service is doing. The values are the words of ``agentctl status``."""

    STOPPED = "stopped"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"


AT_REST = frozenset({Phase.STOPPED, Phase.WAITING, Phase.BACKOFF, Phase.COMPLETED, Phase.FAILED})
"""Phases without a process."""


class Policy(msgspec.Struct, frozen=True):
    """What the declaration says about one service's life. Times in seconds."""

    restart: Literal["no", "always", "on-failure", "unless-stopped"] = "always"
    max_restarts: int = 10
    restart_window: float = 300.0
    stop_timeout: float = 10.0
    start_timeout: float = 90.0
    announces_ready: bool = False
    job: bool = False
    run_timeout: float | None = None


class Verdict(msgspec.Struct, frozen=True):
    """How a run ended. ``cause`` is why the supervisor ended it, empty when the program ended by itself."""

    code: int | None = None
    signal: int | None = None
    text: str = ""
    cause: str = ""

    @property
    def success(self) -> bool:
        return self.code == 0 and not self.cause

    @property
    def permanent(self) -> bool:
        """Exit code 1: the configuration is wrong, and trying again cannot help."""
        return self.code == 1 and not self.cause

    def __str__(self) -> str:
        return f"{self.cause}; {self.text}" if self.cause and self.text else self.cause or self.text


After = Literal["judge", "stop", "restart"]
Timer = Literal["start", "run", "backoff", "stop", "kill"]


class State(msgspec.Struct, frozen=True):
    """Where one service is. Times are monotonic seconds, as given to ``step``."""

    phase: Phase = Phase.STOPPED
    run: int = 0
    since: float = 0.0
    ready_since: float | None = None
    exited: bool = False
    after: After = "judge"
    verdict: Verdict | None = None
    failures: int = 0
    restarts: int = 0
    recent: tuple[float, ...] = ()
    skipped: bool = False
    reason: str = ""

    @property
    def ready(self) -> bool:
        return self.phase is Phase.RUNNING

    @property
    def has_process(self) -> bool:
        return self.phase not in AT_REST


# Events: what happened.


class Boot(msgspec.Struct, frozen=True):
    """The agent came up, or a reload added the service: jobs wait for their time, the rest start."""


class Start(msgspec.Struct, frozen=True):
    """Somebody asked for it to run now."""


class Stop(msgspec.Struct, frozen=True):
    """Somebody asked for it to be down, and to stay down."""

    reason: str = ""


class Restart(msgspec.Struct, frozen=True):
    """Somebody asked for a new run."""


class Due(msgspec.Struct, frozen=True):
    """The calendar says that a job's time has come."""


class Spawned(msgspec.Struct, frozen=True):
    run: int
    pid: int


class SpawnFailed(msgspec.Struct, frozen=True):
    """``permanent``: trying again cannot help. ``busy``: somebody else runs it, so a job lets this time pass."""

    run: int
    text: str
    permanent: bool = False
    busy: bool = False


class Ready(msgspec.Struct, frozen=True):
    run: int


class Hung(msgspec.Struct, frozen=True):
    """The heartbeat is older than its timeout."""

    run: int
    cause: str


class Exited(msgspec.Struct, frozen=True):
    """The worker (not yet all it left behind) is gone."""

    run: int
    code: int | None = None
    signal: int | None = None
    text: str = ""


class Gone(msgspec.Struct, frozen=True):
    """No process of the run remains."""

    run: int


class Elapsed(msgspec.Struct, frozen=True):
    """An armed timer ran out."""

    timer: Timer


Event = Boot | Start | Stop | Restart | Due | Spawned | SpawnFailed | Ready | Hung | Exited | Gone | Elapsed


# Effects: what the engine is to do.


class Spawn(msgspec.Struct, frozen=True):
    run: int


class Signal(msgspec.Struct, frozen=True):
    """Send ``stop_signal`` to every process of the run."""

    run: int


class Kill(msgspec.Struct, frozen=True):
    """Send SIGKILL to every process of the run, and to those that appear, until ``Gone`` can be reported."""

    run: int


class Arm(msgspec.Struct, frozen=True):
    timer: Timer
    seconds: float


class Disarm(msgspec.Struct, frozen=True):
    timer: Timer


class Record(msgspec.Struct, frozen=True):
    """Something worth an event in the history; ``data`` has the message's numbers for programs."""

    kind: str
    message: str
    data: dict[str, int] = {}


Effect = Spawn | Signal | Kill | Arm | Disarm | Record
Step = tuple[State, list[Effect]]
