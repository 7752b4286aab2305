"""``agentctl status [NAME]``: what runs, since when, and what it costs."""

from __future__ import annotations

import time
from typing import Any

import click

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.cli.names import SERVICE

HEADS = ("NAME", "STATE", "READY", "PID", "SINCE", "RESTARTS", "CPU", "RSS", "NEXT", "MESSAGE")
NUMBERS = ("PID", "SINCE", "RESTARTS", "CPU", "RSS", "NEXT")

INSTANTS = ("store_oldest", "index_until")
"""Figures of a worker that are unix seconds."""


@command(
    "status",
    examples=(
        "agentctl status",
        "agentctl status edge_capture",
        "agentctl status --json | jq -r '.services[] | select(.state == \"failed\") | .name'",
    ),
)
@click.argument("name", type=SERVICE, required=False)
def status(session: Session, name: str | None) -> None:
    """Show the agent and its services, or everything about the service NAME.

    The exit code says whether the agent answered, not how its services are: those are in the answer.
    """
    client = session.client()
    if name is None:
        answer = client.request("GET", "/v1/status")
        if session.json:
            output.document(answer)
        else:
            show_all(answer, time.time())
        return
    service = client.request("GET", f"/v1/services/{name}")
    if session.json:
        output.document(service)
    else:
        table.show_pairs(details(service, time.time()))


def show_all(answer: dict[str, Any], now: float) -> None:
    """The summary of the agent on top, then one line for each service."""
    for line in summary(answer["agent"], now):
        print(line)
    print()
    if answer["services"]:
        table.show(HEADS, [row(service, now) for service in answer["services"]], right=NUMBERS)
    else:
        print(text.safe(f"declare some in {answer['agent']['declaration']}, then: agentctl reload"))


def summary(agent: dict[str, Any], now: float) -> list[str]:
    """The agent in one line, and one more for each thing that a person should look at."""
    parts = [
        f"agent {agent['state']}: pid {agent['pid']}",
        f"up {text.ago(agent['since'], now)}",
        *([text.size(agent["rss_bytes"])] if agent.get("rss_bytes") else []),
        f"containment {agent['containment']}",
        f"version {agent['version']}",
        f"prefix {agent['prefix']}",
    ]
    lines = [", ".join(parts)]
    if agent.get("message"):
        lines.append(f"  {agent['message']}")
    if agent.get("storage", "ok") != "ok":
        lines.append(f"  storage: {agent['storage']}")
    return [text.safe(line) for line in lines]


def row(service: dict[str, Any], now: float) -> tuple[str, ...]:
    """One service as the cells of ``HEADS``."""
    return (
        service["name"],
        service["state"],
        readiness(service),
        text.optional(service.get("pid")),
        text.ago(service.get("since"), now),
        str(service.get("restarts", 0)),
        text.percent(service.get("cpu_percent")),
        text.size(service.get("rss_bytes")),
        _left(service.get("next_run"), now),
        message(service),
    )


def readiness(service: dict[str, Any]) -> str:
    """Whether it serves: what has no process is neither ready nor not, and ``unhealthy`` outranks ``yes``."""
    if service.get("pid") is None:
        return text.ABSENT
    return "unhealthy" if service.get("health") == "unhealthy" else text.yes(service["ready"])


def message(service: dict[str, Any]) -> str:
    """What the service says; failing that, its figures; failing those, how it ended last."""
    if service.get("message"):
        return str(service["message"])
    if service.get("figures"):
        return text.figures(service["figures"])
    return f"last exit: {service['last_exit']}" if service.get("last_exit") else ""


def details(service: dict[str, Any], now: float) -> list[tuple[str, str]]:
    """Everything known of one service, as names and values."""

    def at(when: float | None, distance: str) -> str:
        return text.ABSENT if when is None else f"{text.moment(when)} ({distance})"

    since, next_run = service.get("since"), service.get("next_run")
    pairs = [
        ("Name", service["name"]),
        ("Kind", service["kind"]),
        ("State", service["state"]),
        ("Message", text.optional(service.get("message"))),
        ("Enabled", text.yes(service.get("enabled", True))),
        ("Ready", readiness(service)),
        ("Health", service["health"]),
        ("PID", text.optional(service.get("pid"))),
        ("Since", at(since, f"{text.ago(since, now)} ago")),
        ("Restarts", str(service.get("restarts", 0))),
        ("Last exit", text.optional(service.get("last_exit"))),
        ("Heartbeat", _age(service.get("heartbeat_age"))),
        ("Next run", at(next_run, text.until(next_run, now))),
        ("CPU", text.percent(service.get("cpu_percent"))),
        ("Memory", text.size(service.get("rss_bytes"))),
        ("Processes", text.optional(service.get("processes"))),
        ("Threads", text.optional(service.get("threads"))),
        ("Open files", text.optional(service.get("open_files"))),
        ("Log dropped", text.size(service.get("log_dropped_bytes", 0))),
        ("Project", text.optional(service.get("project"))),
    ]
    pairs += _figures(service)
    return pairs + [(text.safe(name), text.figures(told)) for name, told in service.get("interfaces", {}).items()]


def _figures(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [(text.safe(name), _figure(name, value)) for name, value in service.get("figures", {}).items()]


def _figure(name: str, value: object) -> str:
    if name in INSTANTS and isinstance(value, int | float):
        return text.moment(value)
    return text.figures({name: value}).partition("=")[2]


def _left(when: float | None, now: float) -> str:
    return text.ABSENT if when is None else text.duration(when - now)


def _age(seconds: float | None) -> str:
    return text.ABSENT if seconds is None else f"{text.duration(seconds)} ago"
