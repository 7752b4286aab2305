"""Capabilities by name and in sets, capabilities(7). Pure.

A set is a mask: bit ``n`` is capability number ``n``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

NAMES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST"),
    *("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"),
    *("CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE"),
    *("CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE"),
    *("CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM"),
    *("CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
)
"""In the order of their numbers, from 0: linux/capability.h, as of Linux 5.9 and unchanged since."""

NET_RAW = "CAP_NET_RAW"

_NUMBERS = {name: number for number, name in enumerate(NAMES)}


class Sets(NamedTuple):
    """The five sets of a process."""

    inheritable: int = 0
    permitted: int = 0
    effective: int = 0
    bounding: int = 0
    ambient: int = 0


_FIELDS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def parse_sets(status: str) -> Sets:
    """The sets in the text of /proc/PID/status, proc_pid_status(5); those that it does not tell are empty."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Sets(*(int(fields.get(name, "0"), 16) for name in _FIELDS))


def mask(names: Iterable[str]) -> int:
    """The set of these capabilities. Raises ``KeyError`` for a name that is not in ``NAMES``."""
    found = 0
    for name in names:
        found |= 1 << _NUMBERS[name]
    return found


def names(capabilities: int) -> tuple[str, ...]:
    """What is in a set, by number; one that is newer than this program is called as setpriv(1) does."""
    return tuple(NAMES[number] if number < len(NAMES) else f"CAP_{number}" for number in numbers(capabilities))


def in_a_drop_in(missing: Iterable[str]) -> str:
    """The lines of a unit, systemd.exec(5), by which an agent that runs as an ordinary user would hold these too."""
    words = " ".join(missing)
    return f"AmbientCapabilities={words} and CapabilityBoundingSet={words}"


def numbers(capabilities: int) -> Iterator[int]:
    """What is in a set, by number."""
    while capabilities:
        lowest = capabilities & -capabilities
        yield lowest.bit_length() - 1
        capabilities ^= lowest
