"""What single values may be: one small function per grammar, text in, the model's value out.

Each raises ``UsageError`` with what is wrong and what would be right. None looks at the host: whether an interface, a
user or a program exists is known when the service starts, and may change while it runs.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.declaration.capture_limits import ENDLESS, LONGEST_FILTER, endless, is_interface_pattern
from agent.declaration.collector import parse_collector
from agent.declaration.model import Reserve
from agent.declaration.ports import parse_ports
from agent.declaration.units import parse_duration, parse_percent, parse_size
from agent.declaration.window import parse_window
from agent.declaration.wording import shown
from agent.errors import UsageError
from agent.linux.capability_sets import NAMES as CAPABILITIES

LONGEST_NAME: Final = 63
"""Characters of anything that is declared by name."""

_SERVICE_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST_NAME - 1}}}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_.-]{0,31}|0|[1-9][0-9]{0,9}", re.IGNORECASE)
_CRON_FIELD = re.compile(r"[A-Za-z0-9*/,~-]{1,200}")
_CALENDAR = re.compile(r"[ -~]{1,400}")

_SCRIPT = re.compile(r"(?=.{1,64}$)[a-z0-9][a-z0-9-]*(\.(?!nse$)[a-z0-9][a-z0-9-]*)?", re.ASCII)
_EVENT_PATTERN = re.compile(r"[a-z0-9_*?\[\]!-]{1,128}", re.ASCII)
_LONGEST_WORDING = 200  # characters

_SCRIPT_CATEGORIES = frozenset(
    {"all", "auth", "broadcast", "brute", "default", "discovery", "dos", "exploit", "external", "fuzzer"}
    | {"intrusive", "malware", "safe", "version", "vuln"}
)
"""Of nmap(1), "--script": a word that means many scripts, and others tomorrow."""

RESERVED_NAMES = frozenset({"agent"})
"""``tmp/agent.heartbeat``, ``log/agent.log`` and ``spool/agent/`` are the agent's own."""

_OURS = ("SERVICE_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")
"""What a child is told about itself: a declared value of the same name would tell it lies."""

_LAST_SIGNAL = 64
_CANNOT_STOP = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGCONT, signal.SIGCHLD})
_LONGEST_ARGUMENT = 128 * 1024 - 1  # bytes, the closing NUL not counted: MAX_ARG_STRLEN, execve(2)
_LONGEST_PATH = 4095  # bytes: PATH_MAX, linux/limits.h
_LONGEST_INTERFACE = 15  # bytes: IFNAMSIZ - 1, netdevice(7)
_LONGEST_PATTERN = 64  # bytes
_LAST_UID = 2**32 - 2


class Unknown(UsageError):
    """A word that is none of those in ``known``, which maps them in lower case to how they are to be written.

    To find the one that was meant costs a comparison with each: that is left to whoever tells of it, and ``advice``
    is what to say when there is none.
    """

    def __init__(self, message: str, word: str, known: Mapping[str, str], advice: str) -> None:
        self.message = message
        self.word = word
        self.known = known
        self.advice = advice
        super().__init__(f"{message}; {advice}")


def service_name(name: str) -> str:
    """The name of a service or project."""
    if name in RESERVED_NAMES:
        raise UsageError(f"the name {name} is the agent's own; choose another")
    return declared_name(name)


def declared_name(name: str) -> str:
    """The name of anything that is declared by name."""
    if _SERVICE_NAME.fullmatch(name):
        return name
    if "-" in name and _SERVICE_NAME.fullmatch(better := name.replace("-", "_").lower()):
        raise UsageError(f"a name holds no dash; use an underscore: {better}")
    if _SERVICE_NAME.fullmatch(better := name.lower()):
        raise UsageError(f"a name is in lower case: {better}")
    if _SERVICE_NAME.fullmatch(name[:63]):
        raise UsageError("a name has at most 63 characters")
    raise UsageError("a name begins with a letter a to z; letters, digits and underscores follow, 63 characters in all")


def site(text: str) -> str:
    """Where addresses are that others may have too."""
    if not _SERVER_NAME.fullmatch(text):
        raise UsageError(f"{shown(text)} is not the name of a site; use letters, digits, dots, dashes and underscores")
    return text


def server(text: str) -> str:
    if not _SERVER_NAME.fullmatch(text):
        raise UsageError(f"{shown(text)} is not a server's name; use letters, digits, dots and dashes")
    return text


def account(text: str) -> str:
    """A user or group, by name or number (useradd(8))."""
    if not _ACCOUNT.fullmatch(text) or (text.isdigit() and int(text) > _LAST_UID):
        raise UsageError(f"{shown(text)} is not the name or number of a user or group")
    return text


def stop_signal(value: str | int) -> int:
    """The number of a signal that can end a process, from a name with or without ``SIG`` or from a number."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) < 4):
        name = value.upper().removeprefix("SIG")
        known = {member.name.removeprefix("SIG"): member.value for member in signal.Signals}
        if name not in known:
            words = {other.lower(): other for other in known}
            raise Unknown(f"{shown(value)} is not a signal", name, words, 'write a name such as "TERM", or a number')
        number = known[name]
    else:
        number = int(value)
    if not 1 <= number <= _LAST_SIGNAL:
        raise UsageError(f"{shown(value)} is not a signal; numbers go from 1 to {_LAST_SIGNAL}")
    if number in _CANNOT_STOP:
        raise UsageError(f'{shown(value)} does not end a process; write "TERM", "INT", "QUIT" or "HUP"')
    return number


def capability(text: str) -> str:
    """A capability as capabilities(7) spells it, from its name in any case, with or without ``CAP_``."""
    word = text.upper().removeprefix("CAP_")
    if not text.isascii() or f"CAP_{word}" not in CAPABILITIES:
        known = {name.removeprefix("CAP_").lower(): name for name in CAPABILITIES}
        raise Unknown(f"{shown(text)} is not a capability", word, known, "capabilities(7) lists them all")
    return f"CAP_{word}"


def capabilities(names: Sequence[str]) -> tuple[str, ...]:
    """A set of capabilities, in one order."""
    return tuple(sorted(distinct(names)))


def absolute_path(text: str) -> str:
    if not text.startswith("/"):
        raise UsageError(f"{shown(text)} is not an absolute path; begin it with /")
    return path(text)


def path(text: str) -> str:
    if not 0 < len(text.encode()) <= _LONGEST_PATH:
        raise UsageError(f"a path has 1 to {_LONGEST_PATH} bytes")
    return text


def argument(text: str) -> str:
    """One argument of a command."""
    if len(text.encode()) > _LONGEST_ARGUMENT:
        raise UsageError(f"longer than the {_LONGEST_ARGUMENT} bytes that one argument may have")
    return text


def program(text: str) -> str:
    """What a command begins with: an absolute path, or a bare name that PATH resolves."""
    if not text:
        raise UsageError("the program, the first item, is empty; write its path or its name")
    if not text.startswith("/") and "/" in text:
        raise UsageError(f"{shown(text)} is a relative path; write an absolute one, or a bare name for PATH")
    if any(character.isspace() for character in text) and not text.startswith("/"):
        raise UsageError(f"{shown(text)} is no program's name; there is no shell: give each argument as an item")
    return argument(text)


def variable_name(name: str) -> str:
    """The name of a variable that a service may be given."""
    if not _VARIABLE_NAME.fullmatch(name):
        raise UsageError("not a variable's name; use letters, digits and _, and no digit first")
    if name.startswith(_OURS):
        raise UsageError("set by the agent itself; choose another name")
    return name


def variable_value(value: str | int | bool) -> str:
    """The text a program sees: numbers in decimal, ``true`` and ``false``."""
    return argument(value if isinstance(value, str) else shown(value))


def secret_name(name: str) -> str:
    """The name of a file in ``key/secrets``; its upper case with ``_FILE`` becomes a variable."""
    if not _SECRET_NAME.fullmatch(name):
        raise UsageError(f"{shown(name)} is not a secret's name; use letters, digits and _, and no path")
    return name


def interface(name: str) -> str:
    """The name of a network interface (dev_valid_name() in the kernel's net/core/dev.c), or a pattern of names."""
    pattern = is_interface_pattern(name)
    if pattern and name.count("[") > name.count("]"):
        raise UsageError(f"{shown(name)} has a [ without its ]; write one such as eth[0-3]")
    bare = name.removeprefix("!")
    longest = _LONGEST_PATTERN if pattern else _LONGEST_INTERFACE
    valid = 0 < len(bare.encode()) <= longest and bare not in (".", "..")
    if not valid or not name.isprintable() or any(c in "/:" or c.isspace() for c in name):
        raise UsageError(
            f"{shown(name)} is not an interface's name; it has 1 to {_LONGEST_INTERFACE} bytes, no / : space"
        )
    return name


def interfaces(names: Sequence[str]) -> tuple[str, ...]:
    """Names and patterns of interfaces, of which not all are to be left out."""
    if all(name.startswith("!") for name in names):
        raise UsageError('all of it is left out by "!"; write what is to be captured too, such as "*"')
    return distinct(names)


def capture_filter(text: str) -> str:
    """A capture filter; its words are known to libpcap alone, which compiles it when the service starts."""
    if len(text) > LONGEST_FILTER:
        raise UsageError(f"{len(text)} characters are too many for a filter; write at most {LONGEST_FILTER}")
    if endless(text):
        raise UsageError(ENDLESS)
    return text


def collector(text: str) -> str:
    """The host and the port of a collector of flow records."""
    return str(parse_collector(text))


def distinct(values: Sequence[str]) -> tuple[str, ...]:
    """A list in which nothing stands twice."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise UsageError(f"{shown(value)} stands there twice")
    return tuple(values)


def secrets(names: Sequence[str]) -> tuple[str, ...]:
    """Secrets whose variables do not collide."""
    distinct([name.upper() for name in names])
    return tuple(names)


def ports(value: str | int) -> str:
    """Ports as they were written: what the names of sets in it mean is known once all of these have been read."""
    return str(value)


def port_set(value: str | int) -> str:
    """The ports of a set that an operator declares, in normal form. It may name our own sets, not others of his."""
    return str(parse_ports(value))


def script(name: str) -> str:
    """The name of a script of nmap: no path, no category, no expression, and none that asks whom nobody declared."""
    if name in _SCRIPT_CATEGORIES:
        raise UsageError(f"{shown(name)} is a category of scripts; write the names of those that are to run")
    if not _SCRIPT.fullmatch(name):
        raise UsageError(f'{shown(name)} is not a script\'s name; write one such as "ssh-hostkey", without a path')
    if name.startswith(("broadcast-", "targets-")):
        raise UsageError(f"{shown(name)} asks hosts that are not among the targets; leave it out")
    return name


def window(text: str) -> str:
    """A window of time in its normal form."""
    return str(parse_window(text))


def event_pattern(text: str) -> str:
    """A pattern of kinds of events, or of names of services."""
    if not _EVENT_PATTERN.fullmatch(text):
        raise UsageError(f'{shown(text)} is not a kind of event or a pattern of them, such as "drift_*"')
    return text


def service_pattern(text: str) -> str:
    """A pattern of names of services."""
    if not _EVENT_PATTERN.fullmatch(text):
        raise UsageError(f'{shown(text)} is not the name of a service or a pattern of names, such as "lan_*"')
    return text


def wording_pattern(text: str) -> str:
    """A pattern that the words of a scan are held against."""
    if len(text) > _LONGEST_WORDING or not text.isprintable():
        raise UsageError(f'{shown(text)} is not a pattern of up to {_LONGEST_WORDING} characters, such as "nginx 1.2*"')
    return text


def cron_field(value: str | int) -> str:
    """One field of crontab(5), in its alphabet; what it means is ``parse_cron``'s to say."""
    text = str(value).strip()
    if not _CRON_FIELD.fullmatch(text):
        raise UsageError(f'{shown(value)} is not a cron field; write one such as 30, "*/5" or "mon-fri"')
    return text


def calendar_text(text: str) -> str:
    """A calendar event in printable ASCII; its grammar is ``parse_calendar``'s."""
    stripped = text.strip()
    if not _CALENDAR.fullmatch(stripped):
        raise UsageError(f'{shown(text)} is not a calendar event; write one such as "Mon..Fri 02:30" or "daily"')
    return stripped


def duration(low: str, high: str) -> Callable[[str | int | float], float]:
    """A parser of durations from ``low`` to ``high``."""
    least, most = parse_duration(low), parse_duration(high)

    def within(value: str | int | float) -> float:
        seconds = parse_duration(value)
        if not least <= seconds <= most:
            raise UsageError(f"{shown(value)} is out of range; write {low} to {high}")
        return seconds

    return within


def size(low: str, high: str) -> Callable[[str | int], int]:
    """A parser of sizes from ``low`` to ``high``."""
    least, most = parse_size(low), parse_size(high)

    def within(value: str | int) -> int:
        number = parse_size(value)
        if not least <= number <= most:
            raise UsageError(f"{shown(value)} is out of range; write {low} to {high}")
        return number

    return within


_reserve = size("0", "1024TiB")


def reserve(value: str | int) -> Reserve:
    """What is to stay free of a file system: a size, or a share of a total that only the host knows."""
    if not isinstance(value, str) or "%" not in value:
        return Reserve(bytes=_reserve(value))
    share = parse_percent(value)
    if share >= 1:
        raise UsageError(f'{shown(value)} of the file system leaves nothing to write to; write less, such as "10%"')
    return Reserve(share=share)


LEAST_MEMORY = 1024 * 1024
"""Bytes of memory that a service may be limited to at the least."""

_memory = size("1MiB", "1048576TiB")


class Share(float):
    """A part of the host's memory, above 0 and at most 1."""


def memory(value: str | int) -> int | Share:
    """A size, or a share of a total that only the host knows."""
    return Share(parse_percent(value)) if isinstance(value, str) and "%" in value else _memory(value)
