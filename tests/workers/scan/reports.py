"""Reports as nmap writes them, made of what each port is to be: the truth that a comparison is held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from agent.workers.scan.argv import format_ports
from agent.workers.scan.memory.coverage import Asked
from agent.workers.scan.memory.place import text
from agent.workers.scan.spans import merge

PORTS = range(1, 31)
"""What every host is asked for, TCP."""

UDP = range(53, 64)
"""What every host is asked for besides, where any machine has something to say of it."""

START = 1_700_000_000


@dataclass(frozen=True)
class Answer:
    """What one port says. ``service``: attributes of nmap's element. ``scripts``: names to outputs."""

    state: str
    service: tuple[tuple[str, str], ...] = ()
    scripts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Machine:
    """A host that is up: ``others`` is the state of all ports that ``ports`` does not name.

    States of which there are more than ``together`` ports, and that are not open, are told of together.
    """

    ports: dict[int, Answer] = field(default_factory=dict)
    others: str = "closed"
    names: tuple[str, ...] = ()
    mac: str = ""
    os: tuple[str, ...] = ()
    scripts: tuple[tuple[str, str], ...] = ()
    together: int = 5
    udp: dict[int, Answer] = field(default_factory=dict)
    """Others are ``open|filtered``."""

    def answer(self, number: int, protocol: str = "tcp") -> Answer:
        if protocol == "udp":
            return self.udp.get(number, Answer("open|filtered"))
        return self.ports.get(number, Answer(self.others))


def report(
    machines: dict[str, Machine],
    *,
    asked: int | None = None,
    targets: str = "",
    ports: range = PORTS,
    options: str = "-sS -sV",
    start: int = START,
    turned: bool = False,
) -> bytes:
    """A finished report about these hosts out of ``asked`` addresses, all of ``targets``.

    ``turned``: groups of ports in the other order.
    """
    asked_for = {"tcp": ports, **({"udp": UDP} if any(machine.udp for machine in machines.values()) else {})}
    infos = "".join(
        f'<scaninfo type="{"udp" if protocol == "udp" else "syn"}" protocol="{protocol}" numservices="{len(numbers)}"'
        f' services="{format_ports(merge((number, number) for number in numbers))}"/>\n'
        for protocol, numbers in asked_for.items()
    )
    hosts = "".join(_host(address, machine, asked_for, turned) for address, machine in machines.items())
    total = len(machines) if asked is None else asked
    words = f"nmap {options} -oX - {targets or ' '.join(machines)}"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE nmaprun>\n'
        f'<nmaprun scanner="nmap" args={quoteattr(words)} start="{start}" version="7.93" xmloutputversion="1.05">\n'
        f"{infos}{hosts}"
        f'<runstats><finished time="{start + 60}" timestr="" elapsed="60" exit="success"/>'
        f'<hosts up="{len(machines)}" down="{total - len(machines)}" total="{total}"/></runstats></nmaprun>\n'
    ).encode()


def _host(address: str, machine: Machine, asked: dict[str, range], turned: bool) -> str:
    each = [(protocol, number) for protocol, ports in asked.items() for number in ports]
    states = Counter(machine.answer(number, protocol).state for protocol, number in each)
    groups = [state for state, times in sorted(states.items()) if state != "open" and times > machine.together]
    kind = "ipv6" if ":" in address else "ipv4"
    mac = f'<address addr="{machine.mac}" addrtype="mac"/>' if machine.mac else ""
    names = "".join(f'<hostname name={quoteattr(name)} type="PTR"/>' for name in machine.names)
    extra = "".join(
        f'<extraports state="{state}" count="{states[state]}">'
        + "".join(_reason(state, machine, protocol, ports) for protocol, ports in asked.items())
        + "</extraports>"
        for state in (reversed(groups) if turned else groups)
    )
    single = "".join(
        _port(protocol, number, machine.answer(number, protocol))
        for protocol, number in each
        if machine.answer(number, protocol).state not in groups
    )
    guesses = "".join(f'<osmatch name={quoteattr(name)} accuracy="96" line="1"/>' for name in machine.os)
    system = f"<os>{guesses}</os>" if guesses else ""
    scripts = "".join(_script(*one) for one in sorted(machine.scripts))
    said = f"<hostscript>{scripts}</hostscript>" if scripts else ""
    return (
        f'<host starttime="{START}" endtime="{START}"><status state="up" reason="arp-response" reason_ttl="0"/>'
        f'<address addr="{address}" addrtype="{kind}"/>{mac}<hostnames>{names}</hostnames>'
        f"<ports>{extra}{single}</ports>{system}{said}</host>\n"
    )


def _reason(state: str, machine: Machine, protocol: str, ports: range) -> str:
    found = [number for number in ports if machine.answer(number, protocol).state == state]
    if not found:
        return ""
    numbers = format_ports(merge((number, number) for number in found))
    return f'<extrareasons reason="reset" count="{len(found)}" proto="{protocol}" ports="{numbers}"/>'


def _port(protocol: str, number: int, answer: Answer) -> str:
    service = "".join(f" {name}={quoteattr(value)}" for name, value in answer.service)
    found = f"<service{service}/>" if service else ""
    scripts = "".join(_script(*one) for one in sorted(answer.scripts))
    state = f'<state state="{answer.state}" reason="syn-ack" reason_ttl="64"/>'
    return f'<port protocol="{protocol}" portid="{number}">{state}{found}{scripts}</port>'


def _script(name: str, output: str) -> str:
    return f"<script id={quoteattr(name)} output={quoteattr(output)}/>"


def each(asked: Asked) -> Iterator[str]:
    """Every address of a part that was asked."""
    return (text(asked.line, number) for low, high in asked.addresses for number in range(low, high + 1))
