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
Profile = Literal["discovery", "ports", "services", "full"]
Engine = Literal["auto", "connect", "syn"]
Severity = Literal["info", "notice", "warning", "err"]
"""How grave a thing is, in the words of syslog(3), the least first."""
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
    def kind(self) -> Literal["capture", "scan", "command", "watch"]:
        """The word after ``kind =``, or ``watch``, which nobody writes."""
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


class Scanning(msgspec.Struct, frozen=True):
    """``[scanning]``: packets per second at most, over all scans that run at once.

    ``rate`` is of this whole host, ``network_rate`` to any one network (a /24, a /64), ``target_rate`` to any one
    address.
    """

    rate: int = 20_000
    network_rate: int = 10_000
    target_rate: int = 5_000


class History(msgspec.Struct, frozen=True):
    """``history``: what a scan remembers, and for how long.

    ``max_age`` and ``raw`` (of nmap's own XML) are seconds, ``size`` is bytes of the database.
    """

    max_age: float = 400 * 86_400.0
    size: int = 1024**3
    raw: float = 30 * 86_400.0


class Scan(Service, frozen=True, kw_only=True, tag_field="kind", tag="scan"):
    """``kind = "scan"``: who answers on ``targets``, on which ports, and what runs there.

    ``targets`` and ``exclude`` are in the normal form of ``agent.declaration.targets`` (addresses, networks, ranges,
    names, files), ``ports`` in that of ``agent.declaration.ports``, ``window`` in that of ``agent.declaration.window``:
    outside of these times it pauses. ``scripts`` are names of scripts of nmap, for the profile ``full`` alone.

    ``rate`` is in packets per second, within the ``budget`` that all scans share. ``retries`` is how often a port that
    did not answer is asked again at most. ``site`` says where these addresses are: the server's own name unless
    declared. Ports that accept and say nothing are asked what they are once in ``silent_again`` seconds. ``timeout``
    bounds a scan outside timer mode; a job has its own in ``timer``.
    """

    targets: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    allow_public: tuple[str, ...] = ()
    ports: str = "1-1024"
    profile: Profile = "ports"
    scripts: tuple[str, ...] = ()
    engine: Engine = "auto"
    rate: int = 1000
    retries: int = 4
    window: tuple[str, ...] = ()
    site: str = ""
    history: History = History()
    silent_again: float = 7 * 86_400.0
    budget: Scanning = Scanning()
    timeout: float | None = None

    @property
    def run_timeout(self) -> float | None:
        return self.timer.timeout if self.timer else self.timeout


class Command(Service, frozen=True, kw_only=True, tag_field="kind", tag="command"):
    """``kind = "command"``: any program, as a list of arguments; there is no shell.

    ``capabilities`` are names of capabilities(7), sorted, and all that it holds. ``None`` is what it has by being the
    user that it is: nothing, or as root everything. ``listens`` are the ports on which it is said to listen, in the
    normal form of ``agent.declaration.ports``: nothing is done about them, but that drift is told.
    """

    command: tuple[str, ...]
    capabilities: tuple[str, ...] | None = None
    listens: str = ""


class ExpectedPorts(msgspec.Struct, frozen=True):
    """Ports ``first`` to ``last`` of one protocol, and what is to run there.

    ``service`` and ``version`` are patterns as a shell has them, ``None`` for anything. The first is held against the
    name of the service (``http``), the second against its product and version (``nginx 1.22.1``).
    """

    protocol: Literal["tcp", "udp"]
    first: int
    last: int
    service: str | None = None
    version: str | None = None


class Expect(msgspec.Struct, frozen=True):
    """``[expect.NAME]``: what is to be found on ``hosts`` (addresses, networks, ranges and names, normalised).

    Each of ``open`` is to be open and each of ``closed`` is not. ``others``: whether anything else may be open.
    ``severity`` is how grave it is when that is not so.
    """

    name: str
    hosts: tuple[str, ...]
    open: tuple[ExpectedPorts, ...] = ()
    closed: tuple[ExpectedPorts, ...] = ()
    others: bool = True
    severity: Severity = "warning"
    project: str | None = None


class Notify(msgspec.Struct, frozen=True):
    """``[notify.NAME]``: who is told of events, by exactly one of ``webhook``, ``email`` and ``command``.

    ``secret`` is the name of the secret that webhooks are signed with. Told is of events whose kind and whose service
    match one of ``kinds`` and ``services`` (patterns as a shell has them; the agent itself is the service ``agent``)
    and that are at least as grave as ``severity`` (whoever names kinds and no severity means all of them). What happens
    within ``group`` seconds is one message.
    """

    name: str
    webhook: str | None = None
    email: str | None = None
    command: tuple[str, ...] | None = None
    secret: str | None = None
    kinds: tuple[str, ...] = ("*",)
    services: tuple[str, ...] = ("*",)
    severity: Severity = "warning"
    group: float = 30.0


class Declared(msgspec.Struct, frozen=True):
    """A declared service, as far as drift is concerned with it. ``listens`` is that of a command."""

    name: str
    kind: Literal["capture", "scan", "command"]
    enabled: bool = True
    job: bool = False
    listens: str = ""
    site: str = ""


class Watch(Service, frozen=True, kw_only=True, tag_field="kind", tag="watch"):
    """The service ``watch``, which is there when something is expected or somebody is to be told.

    Nobody declares it: it is made of everything that it has to know of the rest of the declaration. Names of scans and
    captures are those in ``declared`` of that kind.
    """

    expects: tuple[Expect, ...] = ()
    notifies: tuple[Notify, ...] = ()
    declared: tuple[Declared, ...] = ()


AnyService = Capture | Scan | Command | Watch


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

    ``ports`` are the sets of ports that it names. ``services`` has ``watch`` where anything is expected or to be told.
    ``masked`` holds the secret values that must never be shown, and ``masked_fields`` the dotted keys that they were
    written into, list positions included (``service.api.command.2``): a short secret hides its whole field.
    """

    agent: AgentSettings
    services: dict[str, AnyService]
    file: str = ""
    scanning: Scanning = Scanning()
    ports: dict[str, str] = {}
    expects: dict[str, Expect] = {}
    notifies: dict[str, Notify] = {}
    masked: frozenset[str] = frozenset()
    masked_fields: frozenset[str] = frozenset()
