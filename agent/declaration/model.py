"""The desired state of a host, typed and resolved: what every other floor reads.

Everything here is plain frozen data without I/O. Durations are seconds, sizes are bytes, signals are numbers, and
interpolation has already happened. ``load`` builds it from ``env.toml``; nothing else should.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.declaration.calendar import Calendar

Restart = Literal["no", "always", "on-failure", "unless-stopped"]
Ready = Literal["immediate", "notify", "heartbeat"]
Profile = Literal["discovery", "ports", "services"]
Scheduler = Literal["agent", "systemd"]


class LogPolicy(msgspec.Struct, frozen=True):
    """``log = { size, keep }``: rotate ``log/NAME.log`` at ``size`` bytes and keep that many old files."""

    size: int = 10 * 1024 * 1024
    keep: int = 5


class Heartbeat(msgspec.Struct, frozen=True):
    """``heartbeat = { interval, timeout }`` in seconds; older than ``timeout`` means the worker hangs."""

    interval: float = 10.0
    timeout: float = 30.0


class Limits(msgspec.Struct, frozen=True):
    """``limits = { memory, cpus, pids }``: cgroup v2 limits, in force where a cgroup is delegated."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None

    @property
    def declared(self) -> bool:
        return any(limit is not None for limit in (self.memory, self.cpus, self.pids))


class Timer(msgspec.Struct, frozen=True):
    """When a job runs: exactly one of ``calendar`` and ``every``.

    ``source`` is the text it was declared with, for people. ``timeout`` is how many seconds a run may take before it
    is killed (``None``: no bound). Each time is put off by a random part of ``randomized_delay`` seconds.
    ``persistent``: a time of the calendar that was missed is made up for, once (a missed period always is).
    """

    source: str
    calendar: Calendar | None = None
    every: float | None = None
    timeout: float | None = None
    randomized_delay: float = 0.0
    persistent: bool = False


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What all kinds share. ``timer`` set means timer mode: the service is a job.

    ``environment`` holds the variables of ``env_file`` too, overridden by those of ``environment``. ``project`` is the
    file of ``key/projects`` that declares the service, without its ``.toml``.
    """

    name: str
    enabled: bool = True
    restart: Restart = "always"
    max_restarts: int = 10
    restart_window: float = 300.0
    stop_signal: int = 15
    stop_timeout: float = 10.0
    start_timeout: float = 90.0
    ready: Ready = "immediate"
    user: str | None = None
    group: str | None = None
    working_directory: str | None = None
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    log: LogPolicy = LogPolicy()
    heartbeat: Heartbeat | None = None
    limits: Limits = Limits()
    timer: Timer | None = None
    project: str | None = None

    @property
    def kind(self) -> Literal["capture", "scan", "command"]:
        """The word after ``kind =``."""
        return self.__struct_config__.tag  # type: ignore[return-value]  # msgspec types a tag as str | int | None

    @property
    def run_timeout(self) -> float | None:
        """How many seconds one run may take before it is killed (``None``: no bound)."""
        return self.timer.timeout if self.timer else None


class Rotate(msgspec.Struct, frozen=True):
    """``rotate = { size, every }``: close a segment at ``size`` bytes or after ``every`` seconds, wall-aligned."""

    size: int = 64 * 1024 * 1024
    every: float = 60.0


class Reserve(msgspec.Struct, frozen=True):
    """``min_free``: so much of the file system stays free, in bytes or as a share of it (0 to 1); the other is 0."""

    bytes: int = 0
    share: float = 0.0


class Trigger(msgspec.Struct, frozen=True):
    """``trigger``: the capture is armed. It keeps ``before`` seconds, and of what triggers it also ``after`` seconds.

    ``keep`` is where until then, in ``memory`` with at most that many bytes. ``on`` are events, ``when`` bounds on
    figures: ``agent.declaration.triggers``.
    """

    before: float = 30.0
    after: float = 30.0
    keep: Literal["disk", "memory"] = "disk"
    memory: int = 64 * 1024 * 1024
    on: tuple[str, ...] = ()
    when: tuple[str, ...] = ()


class Capture(Service, frozen=True, kw_only=True, tag_field="kind", tag="capture"):
    """``kind = "capture"``: packets of ``interfaces`` into rotating segments within ``budget`` bytes.

    Segments that ended ``max_age`` seconds ago are removed even where there is room (``None``: no bound). ``ipfix`` is
    the collector that flow records go to: see ``collector``.
    """

    interfaces: tuple[str, ...]
    filter: str = ""
    budget: int = 1024**3
    min_free: Reserve = Reserve(share=0.02)
    max_age: float | None = None
    trigger: Trigger | None = None
    rotate: Rotate = Rotate()
    snaplen: int = 262144
    promiscuous: bool = False
    ring: int = 64 * 1024 * 1024
    ipfix: str | None = None
    fanout: int = 1


class Scan(Service, frozen=True, kw_only=True, tag_field="kind", tag="scan"):
    """``kind = "scan"``: nmap on ``targets`` (addresses and CIDR networks, normalised) and TCP ``ports``.

    ``rate`` is in packets per second. ``timeout`` bounds a scan outside timer mode; a job has its own in ``timer``.
    """

    targets: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    allow_public: tuple[str, ...] = ()
    ports: str = "1-1024"
    profile: Profile = "ports"
    rate: int = 1000
    timeout: float | None = None

    @property
    def run_timeout(self) -> float | None:
        return self.timer.timeout if self.timer else self.timeout


class Command(Service, frozen=True, kw_only=True, tag_field="kind", tag="command"):
    """``kind = "command"``: any program, as a list of arguments; there is no shell.

    ``capabilities`` are names of capabilities(7), sorted, and all that it holds. ``None`` is what it has by being the
    user that it is: nothing, or as root everything.
    """

    command: tuple[str, ...]
    capabilities: tuple[str, ...] | None = None


AnyService = Capture | Scan | Command


class AgentSettings(msgspec.Struct, frozen=True):
    """``[agent]``: ``server`` is ``SERVICE_SERVER``; members of ``group`` may read the control socket.

    ``heartbeat_interval`` is how many seconds apart the agent touches ``tmp/agent.heartbeat``. ``scheduler`` is who
    starts jobs at their times: the agent itself, or the timer units that ``agentctl timers sync`` makes of them.
    """

    server: str
    group: str | None = None
    heartbeat_interval: float = 10.0
    scheduler: Scheduler = "agent"


class Declaration(msgspec.Struct, frozen=True):
    """A whole declaration, read from ``file``: the one of ``Paths``, or a credential.

    ``masked`` holds the secret values that must never be shown, and ``masked_fields`` the dotted keys that they were
    written into, list positions included (``service.api.command.2``): a short secret hides its whole field.
    """

    agent: AgentSettings
    services: dict[str, AnyService]
    file: str = ""
    masked: frozenset[str] = frozenset()
    masked_fields: frozenset[str] = frozenset()
