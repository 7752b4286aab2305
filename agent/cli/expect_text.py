"""An expectation made of what a scan found: the text of ``[expect.NAME]`` tables, to be edited. Pure.

Hosts that have the same ports open, with the same answering there, share a table. What a stranger's banner says becomes
a pattern that means itself: brackets and the like are escaped, as is the ``$`` of a variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from agent.declaration.check import LONGEST_NAME, wording_pattern
from agent.declaration.ports import Ports, merge
from agent.declaration.schema import MOST_ITEMS
from agent.errors import UsageError

_WIDE = 100
"""Characters of a line."""


class Opened(NamedTuple):
    """An open port. ``service`` and ``version`` are what answers, empty where that is not known."""

    protocol: str
    port: int
    service: str = ""
    version: str = ""


class Table(NamedTuple):
    """One ``[expect.NAME]``."""

    name: str
    hosts: tuple[str, ...]
    ports: tuple[Opened, ...]


def tables(name: str, found: Iterable[tuple[str, frozenset[Opened]]]) -> list[Table]:
    """Hosts with their open ports, in order, as tables named after ``name``. A host without any is in none."""
    groups: dict[frozenset[Opened], list[str]] = {}
    for host, ports in found:
        if ports:
            groups.setdefault(ports, []).append(host)
    made: list[Table] = []
    for ports, hosts in groups.items():
        for start in range(0, len(hosts), MOST_ITEMS):
            number = f"_{len(made) + 1}" if len(groups) > 1 or len(hosts) > MOST_ITEMS else ""
            plain = name[: LONGEST_NAME - len(number)]
            made.append(Table(f"{plain}{number}", tuple(hosts[start : start + MOST_ITEMS]), tuple(sorted(ports))))
    return made


def text(made: Sequence[Table], source: str, left_out: int = 0) -> str:
    """The tables as TOML. ``source`` says on which scan they rest, for the comment above them; ``left_out`` how many
    hosts differ from all of these."""
    lines = [
        f"# What {_comment(source)} found open, for you to edit: take out what should not be, add what should be.",
        '# Patterns are those of a shell: version = "OpenSSH 9.*" lets updates pass; without it, any version will do.',
        "# Put it into key/env.toml or a project, and `agentctl drift` holds everything against it.",
    ]
    for one in made:
        lines += ["", *_table(one)]
    if left_out:
        lines += ["", f"# {left_out:,} more hosts differ from all of these, and are left out."]
    return "\n".join(lines) + "\n"


def _table(one: Table) -> Iterator[str]:
    many = f"{len(one.hosts)} hosts" if len(one.hosts) > 1 else "one host"
    yield f"# {many}"
    yield f"[expect.{one.name}]"
    yield from _list("hosts", [_string(host) for host in one.hosts], several=True)
    yield from _list("open", _ports(one.ports))
    yield "others = false"


def _list(key: str, items: Sequence[str], *, several: bool = False) -> Iterator[str]:
    """On one line if they fit; else one on each, or with ``several`` as many as fit."""
    line = f"{key} = [{', '.join(items)}]"
    if len(line) <= _WIDE:
        yield line
        return
    yield f"{key} = ["
    line = ""
    for item in items:
        if line and not (several and len(line) + len(item) + 2 <= _WIDE):
            yield line
            line = ""
        line = f"{line} {item}," if line else f"    {item},"
    yield line
    yield "]"


def _ports(ports: Sequence[Opened]) -> list[str]:
    known = [port for port in ports if port.service or port.version]
    if len(known) >= MOST_ITEMS:
        known = []
    plain = [port for port in ports if port not in known]
    spans = {
        protocol: merge((port.port, port.port) for port in plain if port.protocol == protocol)
        for protocol in ("tcp", "udp")
    }
    numbers = str(Ports(spans["tcp"], spans["udp"]))
    return [*map(_item, known), *([_string(numbers)] if numbers else [])]


def _item(port: Opened) -> str:
    parts = {"port": f"{port.protocol}/{port.port}"}
    for key, said in (("service", port.service), ("version", port.version)):
        if pattern := _pattern(said):
            parts[key] = pattern
    if len(parts) == 1:
        return _string(parts["port"])
    return "{ " + ", ".join(f"{key} = {_string(value)}" for key, value in parts.items()) + " }"


def _pattern(said: str) -> str:
    """A pattern that means these words; empty for what cannot be one."""
    escaped = re.sub(r"([*?[])", r"[\1]", said)
    try:
        return wording_pattern(escaped)
    except UsageError:
        return ""


def _string(value: str) -> str:
    """A string of TOML that a declaration reads as ``value``."""
    import tomli_w

    return tomli_w.dumps({"x": value.replace("$", "$$")}).partition(" = ")[2].rstrip("\n")


def _comment(words: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in words)
