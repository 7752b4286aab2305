"""The two declarations that come with the program: the one to try it with, and the one to begin from.

Imported only where one of them is needed: it brings the TOML writer along.
"""

from __future__ import annotations

from typing import Any

import tomli_w

DEMO = """\
# What `make run` starts: one service of each kind, on the loopback interface only.

[service.loopback]
kind = "capture"
interfaces = ["lo"]
rotate = { size = "1MiB", every = "10s" }
budget = "16MiB"

[service.selfscan]
kind = "scan"
targets = ["127.0.0.1"]
ports = "1-1024,${DEMO_PORT:-8642}"
profile = "ports"
oncalendar = "*:*:0/20"
timeout = "1m"

# Something for the scan to find and for the capture to see: the host's package documentation, to this host alone.
[service.documents]
kind = "command"
command = [
    "python3", "-u", "-m", "http.server",
    "--bind", "127.0.0.1", "--directory", "/usr/share/doc", "${DEMO_PORT:-8642}",
]
"""
"""A declaration that works on any Debian with nmap, as root; it sends and listens on 127.0.0.1 only."""

_HEAD = """\
What should be true on this host. `agentctl validate` checks it, `agentctl reload` makes it so.

Durations are "30s", "1h30m" or plain seconds, sizes "64MiB" or plain bytes. In any text ${NAME} is replaced from .env
beside this file, the service's env_file or the agent's environment; ${NAME:-default} and ${NAME:?message} too, and
$$ is a dollar sign. Everything that is not written has a default: `agentctl config show` shows them all.
"""

_SETTINGS: tuple[str, dict[str, Any]] = (
    "The agent itself. server is the host name when left out; members of group may read the control socket.",
    {"agent": {"heartbeat": {"interval": "10s"}}},
)

_EXAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "Packets of interfaces, in segments, within a budget of disk. Names hold no dashes.",
        {
            "edge_capture": {
                "kind": "capture",
                "interfaces": ["eth0"],
                "filter": "not port 22",
                "budget": "20GiB",
                "rotate": {"size": "256MiB", "every": "1m"},
            }
        },
    ),
    (
        "A scan of addresses and networks, by systemd's calendar (or: every, or minute hour day month weekday).",
        {
            "lan_scan": {
                "kind": "scan",
                "targets": ["10.20.0.0/24"],
                "ports": "1-1024,5432,6379",
                "profile": "services",
                "rate": 2000,
                "oncalendar": "Mon..Fri 02:30",
                "timeout": "2h",
            }
        },
    ),
    (
        "Any program, kept running. There is no shell: each argument is an item.",
        {
            "api": {
                "kind": "command",
                "command": ["/usr/bin/python3", "-m", "http.server", "${API_PORT:-8000}"],
                "working_directory": "/usr/share/doc",
                "restart": "unless-stopped",
                "limits": {"memory": "512M", "cpus": 1.0, "pids": 100},
                "environment": {"PYTHONUNBUFFERED": "1"},
            }
        },
    ),
)

_MORE: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "What is to be found: what differs is drift, which `agentctl drift` shows.",
        {"expect": {"gateway": {"hosts": ["10.20.0.1"], "open": ["tcp/22", "tcp/443"], "others": False}}},
    ),
    (
        "Who is told of it, and of what fails: one of webhook, email and command.",
        {"notify": {"operators": {"email": "root", "kinds": ["drift_*", "failed"]}}},
    ),
)


def _template() -> str:
    comment, settings = _SETTINGS
    parts = [_prose(_HEAD), _prose(comment) + tomli_w.dumps(settings)]
    examples = [(comment, {"service": service}) for comment, service in _EXAMPLES]
    for comment, example in (*examples, *_MORE):
        toml = tomli_w.dumps(example)
        parts.append(_prose(comment) + "".join(f"#{line}" if line.strip() else "#\n" for line in toml.splitlines(True)))
    return "\n".join(parts)


def _prose(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


TEMPLATE = _template()
"""What ``agentctl init`` writes: valid as it stands, with one example of each kind that ``#`` keeps inactive."""
