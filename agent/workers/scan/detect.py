"""Which runs of nmap identify the services of some hosts, and what their answers come to. Pure.

nmap asks all addresses of one run for the same ports, and tells of a host when it is through with some of them. So
hosts are put together by equal sets of ports, and few at a time: a slow one holds up few others, and a run that is
killed is soon done anew. It is asked lightly first (its intensity 2); only ports of which that learned no product are
asked at length (7), which takes minutes for a port that answers nothing nmap knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from agent.workers.scan import spans
from agent.workers.scan.argv import Ask
from agent.workers.scan.found import Host, Port, Script
from agent.workers.scan.plan import Family
from agent.workers.scan.requests import NEVER_ASKED
from agent.workers.scan.spans import Ranges, merge

Stage = Literal["light", "deep", "slow"]
"""``slow``: lightly, but of ports that said nothing, so that it takes long."""

INTENSITY: Final[Mapping[Stage, int]] = {"light": 2, "deep": 7, "slow": 2}
"""``--version-intensity`` of nmap(1): 2 is what ``--version-light`` is, 7 what it does by itself."""

GROUP_HOSTS: Final = 16
"""Most hosts of one run. nmap tells of them when it is through with all: so many are asked anew after a kill."""

GROUP_PORTS: Final = 256
"""Most ports of one run, over all of its hosts, and so of one host too."""

ALONE: Final = 8
"""So many unrecognised ports of one host are asked at length each in a run of its own."""

AT_ONCE: Final = 64
"""Most ports that one run identifies at a time. nmap's own 20 make it wait for the same 6 s again and again."""

LIMIT: Final[Mapping[Stage, float]] = {"light": 60.0, "deep": 120.0, "slow": 120.0}
"""Seconds after which a run is broken off and done in parts. A port that never answers costs a light run 41 s, one
that says what nmap does not know a deep one 85 s (measured, nmap 7.93). One that never stops talking, a tarpit, costs
any amount."""

USUAL: Final[Mapping[Stage, float]] = {"light": 12.0, "deep": 85.0, "slow": 41.0}
"""Seconds that a run takes with a port that does not speak first, or not in words that nmap knows (measured)."""

_PER_ROUND: Final = 15.0
"""Seconds more for each further ``AT_ONCE`` ports of a run."""

_FOR_SCRIPTS: Final = 120.0

PortKey = tuple[str, int]
"""``found.Port.key``."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run of nmap."""

    stage: Stage
    addresses: tuple[str, ...]
    ask: Ask

    @property
    def ports(self) -> tuple[PortKey, ...]:
        """What each of its addresses is asked for."""
        both = (("tcp", self.ask.tcp), ("udp", self.ask.udp))
        return tuple(
            (protocol, number) for protocol, ranges in both for low, high in ranges for number in range(low, high + 1)
        )

    @property
    def limit(self) -> float:
        """Seconds that it may take."""
        rounds = len(self.addresses) * len(self.ports) // AT_ONCE
        beside = _FOR_SCRIPTS if self.ask.system or len(self.ask.scripts) > 1 else 0.0
        return LIMIT[self.stage] + _PER_ROUND * rounds + beside


def parts(task: Task, left: Sequence[str]) -> tuple[Task, ...]:
    """What to do instead of a run that took too long and had not told of ``left`` by then; nothing for a single port.

    Each host is asked alone, and then each half of its ports: so whoever holds a run up does it once to others.
    """
    if len(left) > 1:
        return tuple(replace(task, addresses=(address,)) for address in left)
    if len(left) == 0 or len(task.ports) < 2:
        return ()
    middle = len(task.ports) // 2
    return tuple(
        replace(task, addresses=tuple(left), ask=_only(task.ask, some))
        for some in (task.ports[:middle], task.ports[middle:])
    )


def _only(ask: Ask, ports: Sequence[PortKey]) -> Ask:
    """The same of fewer ports, without what may have taken so long beside."""
    tcp, udp = (spans.of(number for each, number in ports if each == protocol) for protocol in ("tcp", "udp"))
    return replace(ask, tcp=tcp, udp=udp, at_once=min(ask.at_once, len(ports)), system=False, scripts=ask.scripts[:1])


def askable(host: Host) -> tuple[PortKey, ...]:
    """The open ports of a host that may be asked what they are: TCP and UDP ones, none of a printer's."""
    return tuple(
        port.key
        for port in host.open_ports()
        if port.protocol in ("tcp", "udp") and not (port.protocol == "tcp" and port.number in NEVER_ASKED)
    )


def tasks(
    stage: Stage,
    wanted: Mapping[str, Collection[PortKey]],
    *,
    scripts: Sequence[str] = (),
    beside: Mapping[str, Host] | None = None,
    most_ports: int = GROUP_PORTS,
) -> list[Task]:
    """The runs that ask each address for its ports. Every pair is in exactly one of them.

    ``most_ports`` of one host are in one run, at most ``GROUP_PORTS``. ``scripts`` are files to run beside. ``beside``
    asks for operating systems as well, and says what is known of the hosts: nmap wants one closed port for that.
    """
    groups: dict[tuple[Family, str, str, tuple[int, ...]], list[str]] = {}
    for address, keys in wanted.items():
        plain, _, zone = address.partition("%")
        family: Family = 6 if ":" in plain else 4
        for protocol in ("tcp", "udp"):
            all_numbers = sorted({number for each, number in keys if each == protocol})
            for start in range(0, len(all_numbers), most_ports):
                group = (family, zone, protocol, tuple(all_numbers[start : start + most_ports]))
                groups.setdefault(group, []).append(address)
    made = []
    for (family, _, protocol, numbers), addresses in groups.items():
        size = max(1, min(GROUP_HOSTS, GROUP_PORTS // len(numbers)))
        for start in range(0, len(addresses), size):
            some = tuple(addresses[start : start + size])
            ports = spans.of(numbers)
            system = beside is not None and protocol == "tcp"
            if system and beside is not None:
                ports = merge([*ports, *_closed([beside[address] for address in some])])
            ask = Ask(
                family,
                tcp=ports if protocol == "tcp" else (),
                udp=ports if protocol == "udp" else (),
                intensity=INTENSITY[stage],
                at_once=min(AT_ONCE, len(some) * len(numbers)),
                scripts=tuple(scripts),
                system=system,
            )
            made.append(Task(stage, some, ask))
    return made


def at_length(wanted: Mapping[str, Collection[PortKey]], *, most_ports: int = GROUP_PORTS) -> list[Task]:
    """The runs that ask each address for its ports at length: one port at a time, of all who have it, where there are
    few; so many hosts with something that nobody knows cost no more than one."""
    many = {address: keys for address, keys in wanted.items() if len(keys) > ALONE}
    by_key: dict[PortKey, dict[str, Collection[PortKey]]] = {}
    for address, keys in wanted.items():
        if address not in many:
            for key in sorted(keys):
                by_key.setdefault(key, {})[address] = (key,)
    made = tasks("deep", many, most_ports=most_ports)
    return made + [task for _, some in sorted(by_key.items()) for task in tasks("deep", some)]


CONNECTIONS: Final[Mapping[Stage, int]] = {"light": 8, "deep": 30, "slow": 30}
"""Connections that nmap opens at most, or nearly, to a port that it asks in a stage, by which a run is paid for.
Measured: it waits 5 s or more for each, and for one silent port in all 41 s with ``--version-light``, 157 s without."""

_OF_A_SCRIPT: Final = 4
"""Connections to a port; the first script is for certificates, and runs only where TLS is spoken, which nmap has not to
ask about then."""
_OF_A_SYSTEM: Final = 60
"""Packets of ``-O``, in nmap's book: 16 probes and two more rounds of them."""


def cost(task: Task) -> int:
    """Connections, or packets, that a run may make to each of its addresses."""
    each = CONNECTIONS[task.stage] + _OF_A_SCRIPT * len(task.ask.scripts[1:])
    return len(task.ports) * each + (_OF_A_SYSTEM if task.ask.system else 0)


def affordable(stage: Stage, target_rate: int) -> int:
    """How many ports of one host may be in one run, so that it makes no more connections in all than ``target_rate``,
    the limit of one target in a second; one at least."""
    return max(1, min(GROUP_PORTS, target_rate // CONNECTIONS[stage]))


def _closed(hosts: Sequence[Host]) -> Ranges:
    """A TCP port that was closed at all of them, if a likely one was."""
    first, *others = hosts
    likely = [low for rest in first.rest if rest.protocol == "tcp" and rest.state == "closed" for low, _ in rest.ports]
    likely += [port.number for port in first.ports if port.protocol == "tcp" and port.state == "closed"]
    for number in likely[:16]:
        if number not in NEVER_ASKED and all(host.state_of("tcp", number) == "closed" for host in others):
            return ((number, number),)
    return ()


def unknown(port: Port) -> bool:
    """Whether nmap took a port for open and learned no product."""
    return "open" in port.state and not port.product and port.service != "tcpwrapped"


def better(before: Port | None, now: Port) -> Port:
    """What two runs told of a port: the later one, unless only the earlier one learned what it is."""
    if before is None:
        return now
    if "open" in before.state and "open" not in now.state:  # it has had enough of us
        return before
    chosen = before if unknown(now) and before.service and before.method == "probed" else now
    return replace(
        chosen,
        certificate=now.certificate or before.certificate,
        fingerprint=now.fingerprint or before.fingerprint,
        scripts=now.scripts or before.scripts,
    )


def told(port: Port, nmap: Port) -> Port:
    """An open port of the sweep with what nmap says it is.

    Whether it is open was settled by the sweep, which asked more than once. That nmap found it otherwise a moment
    later, or was shown the door (``tcpwrapped``), stands beside the reason.
    """
    if "open" not in nmap.state:
        return replace(port, reason=f"{port.reason}; nmap: {nmap.state} ({nmap.reason})")
    if nmap.service == "tcpwrapped":
        return replace(port, reason=f"{port.reason}; nmap: tcpwrapped", ttl=port.ttl or nmap.ttl)
    return replace(nmap, state=port.state, reason=port.reason, ttl=port.ttl or nmap.ttl)


def settled(
    host: Host,
    ports: Mapping[PortKey, Port],
    remarks: Mapping[PortKey, str],
    *,
    system: Sequence[str] = (),
    scripts: Sequence[Script] = (),
) -> Host:
    """A host of the sweep with all that was learned since.

    ``ports`` is what nmap told, ``remarks`` what else stands beside the reason of a port. What stood beside it before,
    as it does where this was broken off and is continued, goes.
    """

    def one(port: Port) -> Port:
        if port.key in ports or port.key in remarks:
            port = replace(port, reason=port.reason.partition("; ")[0])
        if port.key in ports and port.state == "open":
            port = told(port, ports[port.key])
        return replace(port, reason=f"{port.reason}; {remarks[port.key]}") if port.key in remarks else port

    return replace(
        host,
        ports=tuple(one(port) for port in host.ports),
        os=tuple(system) or host.os,
        scripts=tuple(scripts) or host.scripts,
    )
