"""What may be written in a declaration: every key, its type, its range and the words for both.

Each table is a ``TypedDict`` all of whose keys may be left out. A key's annotation says what TOML may hold (checked by
msgspec, strictly), ``Meta.description`` is how a message goes on after "is not", and ``parse`` turns the checked value
into the model's. Defaults are the model's, and rules that concern more than one key are in ``resolve``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from msgspec import Meta

from agent.declaration import check, sinks, targets, triggers
from agent.declaration.capture_limits import LARGEST_SNAPLEN, MOST_INTERFACES, MOST_PROCESSES, RING
from agent.declaration.model import Engine, Profile, Ready, Restart, Scheduler, Severity
from agent.declaration.units import format_size
from agent.declaration.wording import listed

Kind = Literal["capture", "scan", "command"]

KINDS: tuple[Kind, ...] = get_args(Kind)

MOST_SERVICES = 10_000
MOST_ITEMS = 1024
"""Items in one list or table: more is a mistake, and would cost more than linear time here and there."""


def _key(description: str, parse: Callable[..., Any] | None = None, *, first: Any = None, **limits: Any) -> Meta:
    return Meta(description=description, extra={"parse": parse, "first": first}, **limits)


def _duration(low: str, high: str) -> Meta:
    return _key(f'a duration such as "30s", from {low} to {high}', check.duration(low, high))


def _size(low: str, high: str) -> Meta:
    return _key(f'a size such as "64MiB", from {low} to {high}', check.size(low, high))


def _whole(low: int, high: int, of: str = "") -> Meta:
    return _key(f"a whole number{of}, from {low} to {high}", ge=low, le=high)


def _elsewhere(**reasons: str) -> Meta:
    """Why keys that could be expected in a table are not there."""
    return Meta(extra={"elsewhere": reasons})


Text = Annotated[str, Meta(min_length=1, description="a text")]
Duration = str | int | float
Size = str | int
Account = Annotated[Text, _key("the name of a user or group", check.account)]
CronField = Annotated[str | int, _key('a cron field such as 30, "*/5" or "mon-fri"', check.cron_field)]
CalendarText = Annotated[Text, _key('a calendar event such as "Mon..Fri 02:30"', check.calendar_text)]
Target = Annotated[str, _key("an address, a network, a range, a name or a file of these", targets.target)]
PortsText = Annotated[str | int, _key('ports such as "1-1024,5432,udp/53"', check.ports)]
WindowText = Annotated[Text, _key('a window of time such as "22:00-06:00"', check.window)]
EnvFile = Annotated[Text, _key("the path of a file", check.path)]


class LogKeys(TypedDict, total=False):
    size: Annotated[Size, _size("4KiB", "16GiB")]
    keep: Annotated[int, _whole(0, 1000)]


class HeartbeatKeys(TypedDict, total=False):
    interval: Annotated[Duration, _duration("100ms", "1h")]
    timeout: Annotated[Duration, _duration("200ms", "1d")]


class LimitsKeys(TypedDict, total=False):
    memory: Annotated[Size, _key('a size such as "512M" or a percentage of the memory such as "50%"', check.memory)]
    cpus: Annotated[float, _key("a number of processors, from 0.01 to 4096", ge=0.01, le=4096)]
    pids: Annotated[int, _whole(1, 4_194_304)]  # PID_MAX_LIMIT, linux/threads.h


class RotateKeys(TypedDict, total=False):
    size: Annotated[Size, _size("16KiB", "16GiB")]
    every: Annotated[Duration, _duration("1s", "1d")]


class AgentHeartbeatKeys(TypedDict, total=False):
    interval: Annotated[Duration, _duration("100ms", "1h")]


class AgentKeys(TypedDict, total=False):
    """``[agent]``."""

    server: Annotated[Text, _key("the name of this server", check.server)]
    group: Account
    scheduler: Scheduler
    heartbeat: Annotated[
        AgentHeartbeatKeys,
        _elsewhere(timeout="unknown key; how old tmp/agent.heartbeat may be is for those to say who watch it"),
    ]


class SharedKeys(TypedDict, total=False):
    """``[service.NAME]`` of any kind."""

    kind: Kind
    enabled: bool
    restart: Restart
    max_restarts: Annotated[int, _whole(0, 1_000_000)]
    restart_window: Annotated[Duration, _duration("1s", "7d")]
    stop_signal: Annotated[str | int, _key('a signal such as "TERM"', check.stop_signal)]
    stop_timeout: Annotated[Duration, _duration("100ms", "1d")]
    start_timeout: Annotated[Duration, _duration("100ms", "1d")]
    user: Account
    group: Account
    working_directory: Annotated[Text, _key("an absolute path", check.absolute_path)]
    environment: dict[
        str, Annotated[str | int | bool, _key("a text, a whole number, true or false", check.variable_value)]
    ]
    env_file: EnvFile | Annotated[list[EnvFile], _key("the path of a file or a list of them", max_length=32)]
    log: LogKeys
    heartbeat: HeartbeatKeys
    ready: Ready
    limits: LimitsKeys
    secrets: Annotated[
        list[Annotated[Text, _key("the name of a secret", check.secret_name)]],
        _key("a list of names of secrets", check.secrets, max_length=128),
    ]
    minute: CronField
    hour: CronField
    day: CronField
    month: CronField
    weekday: CronField
    oncalendar: (
        CalendarText
        | Annotated[
            list[CalendarText], _key("a calendar event or a list of them", check.distinct, min_length=1, max_length=32)
        ]
    )
    every: Annotated[Duration, _duration("1s", "366d")]
    timeout: Annotated[Duration, _duration("100ms", "366d")]
    randomized_delay: Annotated[Duration, _duration("0s", "366d")]
    persistent: bool


class TriggerKeys(TypedDict, total=False):
    """``trigger`` of a capture: see ``agent.declaration.triggers``."""

    before: Annotated[Duration, _duration("1s", "1d")]
    after: Annotated[Duration, _duration("1s", "1d")]
    keep: Literal["disk", "memory"]
    memory: Annotated[Size, _size("1MiB", "1TiB")]
    on: Annotated[
        list[Annotated[Text, _key('an event such as "api.failed"', triggers.event)]],
        _key("a list of events", check.distinct, max_length=64),
    ]
    when: Annotated[
        list[Annotated[Text, _key('a bound such as "dropped_kernel > 0"', triggers.bound)]],
        _key("a list of bounds on figures", check.distinct, max_length=64),
    ]


class CaptureKeys(TypedDict, total=False):
    """``kind = "capture"``."""

    interfaces: Annotated[
        list[Annotated[str, _key("the name of an interface or a pattern of names", check.interface)]],
        _key("a list of interfaces, with at least one", check.interfaces, min_length=1, max_length=MOST_INTERFACES),
    ]
    filter: Annotated[
        str, _key('a capture filter such as "not port 22", in pcap-filter(7)\'s words', check.capture_filter)
    ]
    budget: Annotated[Size, _size("32KiB", "1024TiB")]
    min_free: Annotated[Size, _key('a size such as "10GiB" or a share of the file system such as "10%"', check.reserve)]
    max_age: Annotated[Duration, _duration("1m", "3650d")]
    trigger: TriggerKeys
    rotate: RotateKeys
    snaplen: Annotated[int, _whole(1, LARGEST_SNAPLEN, " of bytes")]
    promiscuous: bool
    ring: Annotated[Size, _size(*map(format_size, RING))]
    fanout: Annotated[int, _whole(1, MOST_PROCESSES, " of processes")]
    ipfix: Annotated[str, _key('a collector such as "flows.example.org:4739"', check.collector)]


class HistoryKeys(TypedDict, total=False):
    max_age: Annotated[Duration, _duration("1d", "3650d")]
    size: Annotated[Size, _size("1MiB", "1TiB")]
    raw: Annotated[Duration, _duration("0s", "3650d")]


class ScanKeys(TypedDict, total=False):
    """``kind = "scan"``."""

    targets: Annotated[
        list[Target],
        _key("a list of targets, with at least one", min_length=1, max_length=MOST_ITEMS),
    ]
    exclude: Annotated[list[Target], _key("a list of targets", max_length=MOST_ITEMS)]
    allow_public: Annotated[
        list[Annotated[str, _key("an address, a network or a range", targets.addresses)]],
        _key("a list of addresses, networks and ranges", max_length=MOST_ITEMS),
    ]
    ports: PortsText
    profile: Profile
    scripts: Annotated[
        list[Annotated[Text, _key('the name of a script such as "ssh-hostkey"', check.script)]],
        _key("a list of names of nmap's scripts", check.distinct, max_length=64),
    ]
    engine: Engine
    rate: Annotated[int, _whole(1, 1_000_000, " of packets per second")]
    retries: Annotated[int, _whole(0, 10)]
    window: (
        WindowText
        | Annotated[
            list[WindowText], _key("a window of time or a list of them", check.distinct, min_length=1, max_length=32)
        ]
    )
    site: Annotated[Text, _key("the name of a site", check.site)]
    history: HistoryKeys
    silent_again: Annotated[Duration, _duration("1m", "3650d")]


class ScanningKeys(TypedDict, total=False):
    """``[scanning]``."""

    rate: Annotated[int, _whole(1, 1_000_000, " of packets per second")]
    network_rate: Annotated[int, _whole(1, 1_000_000, " of packets per second")]
    target_rate: Annotated[int, _whole(1, 1_000_000, " of packets per second")]


class ExpectedKeys(TypedDict, total=False):
    """A port of ``open`` in ``[expect.NAME]`` of which more is said."""

    port: PortsText
    service: Annotated[Text, _key('a pattern of names such as "http*"', check.wording_pattern)]
    version: Annotated[Text, _key('a pattern such as "nginx 1.2*"', check.wording_pattern)]


class ExpectKeys(TypedDict, total=False):
    """``[expect.NAME]``."""

    hosts: Annotated[
        list[Annotated[str, _key("an address, a network, a range or a name", targets.host)]],
        _key("a list of addresses, networks, ranges and names, with at least one", min_length=1, max_length=MOST_ITEMS),
    ]
    open: Annotated[list[PortsText | ExpectedKeys], _key("a list of ports", max_length=MOST_ITEMS)]
    closed: Annotated[list[PortsText], _key("a list of ports", max_length=MOST_ITEMS)]
    others: bool
    severity: Severity


Argv = Annotated[
    list[Annotated[str, _key("a text", check.argument)]],
    _key(
        "a list of texts: a program and its arguments",
        first=Annotated[str, _key("the path or the name of a program", check.program)],
        min_length=1,
        max_length=MOST_ITEMS,
    ),
]


class NotifyKeys(TypedDict, total=False):
    """``[notify.NAME]``."""

    webhook: Annotated[
        Text,
        _key('a URL such as "https://hooks.example.org/agent" (http is for private addresses alone)', sinks.webhook),
    ]
    secret: Annotated[Text, _key("the name of a secret", check.secret_name)]
    email: Annotated[Text, _key('an address such as "ops@example.org"', sinks.email)]
    command: Argv
    kinds: Annotated[
        list[Annotated[Text, _key('a kind of event such as "drift_*"', check.event_pattern)]],
        _key("a list of kinds of events, with at least one", check.distinct, min_length=1, max_length=64),
    ]
    services: Annotated[
        list[Annotated[Text, _key('the name of a service such as "lan_*"', check.service_pattern)]],
        _key("a list of names of services, with at least one", check.distinct, min_length=1, max_length=64),
    ]
    severity: Severity
    group: Annotated[Duration, _duration("0s", "1d")]


class CommandKeys(TypedDict, total=False):
    """``kind = "command"``."""

    command: Argv
    capabilities: Annotated[
        list[Annotated[Text, _key('a capability such as "CAP_NET_BIND_SERVICE"', check.capability)]],
        _key("a list of capabilities", check.capabilities, max_length=64),
    ]
    listens: PortsText


class Spec(NamedTuple):
    """One key, ready to be read.

    ``shape`` is how its value is walked: a ``table`` has ``fields``, a ``list`` and a table of ``variables`` have
    an ``item`` (and a list may have another ``first``), and a ``value`` is converted to ``type``. ``parse`` of a list
    is given those of its items that could be read. ``expected`` goes on after "is not", ``choices`` are the
    words of a closed list. ``lone`` lets a list of one be written without its brackets. ``table`` is what a value may
    be in place of itself. ``elsewhere`` says of keys that a table could be thought to have why it has not.
    """

    shape: Literal["value", "list", "variables", "table"]
    expected: str
    type: Any = None
    parse: Callable[..., Any] | None = None
    item: Spec | None = None
    first: Spec | None = None
    fields: Mapping[str, Spec] = {}
    least: int = 0
    most: int = MOST_ITEMS
    lone: bool = False
    table: Spec | None = None
    elsewhere: Mapping[str, str] = {}
    choices: tuple[str, ...] = ()


def _spec(hint: Any) -> Spec:
    """The ``Spec`` of an annotation."""
    if is_typeddict(hint):
        fields = _fields(hint)
        return Spec("table", f"a table with {listed(fields, 'and')}", fields=fields)
    if get_origin(hint) is Annotated:
        base, *metas = get_args(hint)
        described = [meta for meta in metas if isinstance(meta, Meta)]
        meta = described[-1]
        if is_typeddict(base):
            return _spec(base)._replace(elsewhere=(meta.extra or {})["elsewhere"])
        parse = (meta.extra or {}).get("parse")
        if get_origin(base) is list:
            first = (meta.extra or {}).get("first")
            return Spec(
                "list",
                meta.description or "",
                parse=parse,
                item=_spec(get_args(base)[0]),
                first=None if first is None else _spec(first),
                least=meta.min_length or 0,
                most=meta.max_length or MOST_ITEMS,
            )
        return Spec("value", meta.description or "", type=hint, parse=parse)
    if get_origin(hint) is dict:
        return Spec("variables", "a table of names and values", item=_spec(get_args(hint)[1]))
    if get_origin(hint) is Literal:
        words = get_args(hint)
        return Spec("value", f"one of {', '.join(words)}", type=hint, choices=words)
    if hint is bool:
        return Spec("value", "true or false", type=bool)
    one, other = get_args(hint)
    if is_typeddict(other):  # what may be one value, or a table that says more of it
        return _spec(one)._replace(table=_spec(other))
    return _spec(other)._replace(lone=True)  # what may be one value or a list of them


def _fields(table: type) -> dict[str, Spec]:
    return {name: _spec(hint) for name, hint in get_type_hints(table, include_extras=True).items()}


AGENT = _fields(AgentKeys)
SCANNING = _fields(ScanningKeys)
EXPECT = _fields(ExpectKeys)
NOTIFY = _fields(NotifyKeys)
PORT_SET = _spec(Annotated[str | int, _key('ports such as "8080,8443,udp/5060"', check.port_set)])
"""A value of ``[ports]``, whose keys are names."""

SHARED = _fields(SharedKeys)
OF_KIND: dict[Kind, dict[str, Spec]] = {
    "capture": _fields(CaptureKeys),
    "scan": _fields(ScanKeys),
    "command": _fields(CommandKeys),
}
