"""From a typed question to nmap's arguments. Pure.

nmap is driven by its command line, and that command line can run scripts, read files and write them. So nothing that
was ever text in a declaration reaches it: targets go in through a file (``-iL``) that holds addresses made from
integers, ports are integers that are written anew, scripts are files that were looked at (``program``), and every other
word stands in this module. A list of forbidden options would not do: nmap takes unique prefixes and one dash for two
(getopt_long_only(3)).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from agent.errors import ConfigurationError
from agent.linux.capability_sets import NET_RAW, mask, parse_sets
from agent.workers.scan.plan import Family
from agent.workers.scan.spans import Ranges, size

STATS_EVERY: Final = 1
"""Seconds between two reports of progress (``--stats-every``)."""

MAX_RATE: Final = 1_000_000
"""Packets per second, more than nmap can send."""

LEAST_RATE: Final = 2000
"""Packets per second that a discovery is to send, if half of what it may is as much. By itself nmap sends no more than
ten where nobody answers, as it has ten under way, and each is waited for: for a /20 of silence that is 50 minutes."""

SCRIPT_TIMEOUT: Final = 60
"""Seconds after which nmap gives up on one script at one port; what it found besides stays."""

PORTS_AT_ONCE: Final = 2048
"""Most ports of one command line: in words they stay below what one argument may hold (128 KiB, execve(2))."""

PATIENCE: Final = 1
"""Seconds that a discovery waits for an answer at least. By what others need nmap comes down to a tenth of that, and
with a least rate it does so on the link from the beginning: who sleeps, or is far away, would not be there."""

Probe = Literal["echo", "timestamp", "443", "80"]
"""By what it is asked who is there: two questions of ICMP, and two of TCP."""

_PROBES: Final[dict[Probe, str]] = {"echo": "-PE", "443": "-PS443", "80": "-PA80", "timestamp": "-PP"}
"""The option of each with raw packets: together what nmap does of itself (nmap(1), -sn). By connect there is ``-PS``
alone, which may be given once."""

TRIES: Final = 2
"""How often nmap sends each probe to an address that does not answer."""

_SCRIPT = re.compile(r"/[A-Za-z0-9/._+-]{1,200}/[a-z0-9][a-z0-9._-]{0,63}\.nse", re.ASCII)

_ADDRESS = re.compile(r"[0-9a-f:][0-9a-f:.]{1,44}(%[A-Za-z0-9_.-]{1,15})?", re.ASCII)


def format_ports(ports: Ranges) -> str:
    """The ranges as nmap's ``-p`` takes them."""
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ports)


@dataclass(frozen=True, slots=True)
class Ask:
    """What nmap is to find out about addresses of one family.

    Without ports: whether a host is there, by ``probes``, or if there are none by all that nmap has (and by ARP or
    neighbour discovery alone, where these can be used), each sent up to ``tries`` times. A single one, if that is once:
    nmap gives a host up when the first of its last probes is late. With ports it is taken to be there, and those that
    are open are asked what they are, with ``intensity`` (0 to 9), ``at_once`` of them at a time; ``udp`` needs raw
    packets. ``scripts`` are files to run on them, and ``system`` guesses the operating system, which needs raw packets.
    """

    family: Family
    tcp: Ranges = ()
    udp: Ranges = ()
    intensity: int = 0
    at_once: int = 1
    scripts: tuple[str, ...] = ()
    system: bool = False
    probes: tuple[Probe, ...] = ()
    tries: int = TRIES


def probes_of(family: Family, *, privileged: bool) -> tuple[Probe, ...]:
    """Those by which nmap asks addresses of a family behind a router."""
    if not privileged:
        return ("443", "80")
    return tuple(probe for probe in _PROBES if family == 4 or probe != "timestamp")


def ask_argv(ask: Ask, targets: int, xml: str = "-", *, nmap: str, rate: int, privileged: bool) -> tuple[str, ...]:
    """The whole command line.

    ``nmap`` is the absolute path of the program, ``targets`` the descriptor, inherited by nmap, of a file with one
    address a line (``target_list``), ``xml`` the path that the XML goes to, ``rate`` at most how many packets per
    second are sent (1 or more; nmap does not count those of service detection and scripts). ``privileged`` chooses raw
    SYN packets over ``connect``. Who asks whether hosts are there is told of each packet, on the standard output.

    ``--host-timeout`` is never used: it throws away what was found before it struck. Nor is ``--noninteractive``: it
    silences ``--stats-every`` too, and a session of its own keeps nmap from any terminal just as well. Scripts are
    given as files: a name alone could be that of a category.

    Raises ``ConfigurationError`` for what cannot be asked.
    """
    _check(ask, rate, privileged)
    argv = [nmap, "-n", "--no-stylesheet", "--stats-every", f"{STATS_EVERY}s", "-oX", xml]
    argv += ["--max-rate", str(rate)]
    if ask.family == 6:
        argv.append("-6")
    if not ask.tcp and not ask.udp:
        argv.append("-sn")
        if privileged:
            argv += [_PROBES[probe] for probe in ask.probes]
        elif ask.probes:
            argv.append(f"-PS{','.join(ask.probes)}")
        if ask.tries < TRIES:
            argv += ["--max-retries", str(ask.tries - 1)]
        argv += ["--min-rate", str(max(1, min(LEAST_RATE, rate // 2))), "--min-rtt-timeout", f"{PATIENCE}s"]
        return (*argv, "--packet-trace", "-iL", f"/proc/self/fd/{targets}")
    argv.append("-Pn")
    parts = []
    if ask.tcp:
        argv.append("-sS" if privileged else "-sT")
        parts.append(f"T:{format_ports(ask.tcp)}")
    if ask.udp:
        argv.append("-sU")
        parts.append(f"U:{format_ports(ask.udp)}")
    argv += ["-p", ",".join(parts)]
    argv += ["-sV", "--version-intensity", str(ask.intensity), "--min-parallelism", str(ask.at_once)]
    if ask.system:
        argv.append("-O")
    if ask.scripts:
        argv += ["--script-timeout", f"{SCRIPT_TIMEOUT}s", "--script", ",".join(ask.scripts)]
    return (*argv, "-iL", f"/proc/self/fd/{targets}")


def _check(ask: Ask, rate: int, privileged: bool) -> None:
    if not 1 <= rate <= MAX_RATE:
        raise ConfigurationError(f"rate: {rate} is not a number of packets per second from 1 to {MAX_RATE}")
    if not 0 <= ask.intensity <= 9:
        raise ConfigurationError(f"intensity: {ask.intensity} is not a number from 0 to 9")
    if not 1 <= ask.at_once <= 300:
        raise ConfigurationError(f"at once: {ask.at_once} is not a number of ports from 1 to 300")
    if not 1 <= ask.tries <= TRIES:
        raise ConfigurationError(f"tries: {ask.tries} is not a number from 1 to {TRIES}")
    if ask.tries < TRIES and len(ask.probes) > 1:
        raise ConfigurationError(f"probes: {', '.join(ask.probes)} cannot be sent once each by one nmap")
    if set(ask.probes) - set(probes_of(ask.family, privileged=privileged)):
        raise ConfigurationError(f"probes: {', '.join(ask.probes)} cannot all be sent here")
    if (count := size(ask.tcp) + size(ask.udp)) > PORTS_AT_ONCE:
        raise ConfigurationError(f"{count} ports are too many for one run of nmap, which takes {PORTS_AT_ONCE}")
    for script in ask.scripts:
        if not _SCRIPT.fullmatch(script):
            raise ConfigurationError(f"scripts: {script[:80]!r} is not the path of a script of nmap")
    if not privileged and (ask.udp or ask.system):
        raise ConfigurationError("UDP ports and operating systems need CAP_NET_RAW")


def target_list(addresses: tuple[str, ...]) -> bytes:
    """What nmap reads from ``-iL``: one address a line. Raises ``ConfigurationError`` for what is none."""
    for address in addresses:
        if not _ADDRESS.fullmatch(address):
            raise ConfigurationError(f"targets: {address[:80]!r} is not an address")
    return "".join(f"{address}\n" for address in addresses).encode("ascii")


def privileges(process_status: str) -> tuple[bool, str]:
    """Whether nmap, started by this process, may send raw packets, and if not, why, for a person.

    ``process_status`` is the text of ``/proc/self/status``. What counts is what can be handed on: of root all that is
    permitted and in the bounding set, of everybody else what is permitted (capabilities(7)).
    """
    sets = parse_sets(process_status)
    root = any(line.split()[:1] == ["Uid:"] and line.split()[2:3] == ["0"] for line in process_status.splitlines())
    if sets.permitted & (sets.bounding if root else sets.permitted) & mask([NET_RAW]):
        return True, ""
    where = "root here lacks CAP_NET_RAW" if root else "CAP_NET_RAW is not held"
    return False, f"{where}: ports are asked by connect (-sT), not by SYN packets"


def nmap_environment(base: Mapping[str, str], *, privileged: bool, data_directory: str | None) -> dict[str, str]:
    """The environment of nmap: ``base`` and what it is to believe about its rights.

    Without ``NMAP_PRIVILEGED`` it looks at the user id only, and so refuses raw packets to a user that may send them
    and tries them as a root that may not. ``data_directory`` (``NMAPDIR``) is asked before the home directory of the
    user, so that no file there changes what nmap does.
    """
    environment = {key: value for key, value in base.items() if not key.startswith("NMAP")}
    environment["LC_ALL"] = "C"  # what it says of its packets is read (``trace``)
    environment["NMAP_PRIVILEGED" if privileged else "NMAP_UNPRIVILEGED"] = "1"
    if data_directory is not None:
        environment["NMAPDIR"] = data_directory
    return environment
