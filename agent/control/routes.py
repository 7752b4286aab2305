"""The API of the control socket, as one table: what may be asked, by whom, with which parameters, and what answers.

Everything else is made from it: matching a request, checking its query, the access decision, and the OpenAPI document.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

from agent.control import streams
from agent.control.access import Access
from agent.control.api import Again, Agent, Gap, Pong, Timers
from agent.control.openapi import document
from agent.control.streams import Follow
from agent.errors import RequestRefused
from agent.supervisor.report import Action, HandoverReport, Outcome, ReloadReport, ServiceReport, Status
from agent.telemetry.events import Event
from agent.telemetry.logread import CURSOR, LogLine

NAME = "[A-Za-z0-9_.-]{1,128}"
"""What may stand for a service: more than a name can be, so that a near miss gets the engine's "did you mean"."""

Arguments = dict[str, Any]
Answer = Callable[[Agent, Arguments], Awaitable[object]]
Stream = Callable[[Agent, Arguments, Follow | None], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query: its type and bounds (both inclusive), or for a string its pattern."""

    name: str
    kind: Literal["integer", "boolean", "string"]
    summary: str
    default: int | bool | None = None
    minimum: int = 0
    maximum: int = 2**53 - 1
    pattern: str = ""

    def parse(self, text: str) -> int | bool | str:
        """The value; raises ``RequestRefused`` (400) saying what would be right."""
        if self.kind == "boolean" and text in ("true", "false"):
            return text == "true"
        if self.kind == "integer" and re.fullmatch("[0-9]{1,16}", text) and self.minimum <= int(text) <= self.maximum:
            return int(text)
        if self.kind == "string" and re.fullmatch(self.pattern, text):
            return text
        right = {
            "boolean": "true or false",
            "integer": f"a whole number from {self.minimum} to {self.maximum}",
            "string": f"text like {self.pattern}",
        }
        raise RequestRefused(400, f"{self.name}={text[:80]!r}: it must be {right[self.kind]}")


@dataclass(frozen=True, slots=True)
class Route:
    """One row: ``answer`` gives one JSON document of the type ``response``, ``stream`` lines of these types."""

    method: Literal["GET", "POST"]
    path: str
    access: Access
    summary: str
    response: Any
    answer: Answer | None = None
    stream: Stream | None = None
    parameters: tuple[Parameter, ...] = ()


class MethodNotAllowed(RequestRefused):
    """405, with the methods that the path does have."""

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        self.allowed = allowed
        super().__init__(405, f"{path} cannot be asked with {method}: it takes {' or '.join(allowed)}")


async def _ping(agent: Agent, arguments: Arguments) -> Pong:
    return Pong(pid=os.getpid())


async def _status(agent: Agent, arguments: Arguments) -> Status:
    return agent.status()


async def _service(agent: Agent, arguments: Arguments) -> ServiceReport:
    return agent.status(arguments["name"]).services[0]


async def _act(action: Action, agent: Agent, arguments: Arguments) -> Outcome:
    return await agent.act(action, arguments["name"], arguments["wait"])


async def _reload(agent: Agent, arguments: Arguments) -> ReloadReport:
    return await agent.reload()


async def _upgrade(agent: Agent, arguments: Arguments) -> HandoverReport:
    return await agent.upgrade()


async def _handover(agent: Agent, arguments: Arguments) -> HandoverReport:
    return agent.handover()


async def _timers(agent: Agent, arguments: Arguments) -> Timers:
    return agent.timers()


async def _config(agent: Agent, arguments: Arguments) -> dict[str, Any]:
    return agent.config()


async def _openapi(agent: Agent, arguments: Arguments) -> dict[str, Any]:
    return document(ROUTES)


def _events(agent: Agent, arguments: Arguments, follow: Follow | None) -> AsyncGenerator[bytes, None]:
    service = arguments["service"]
    if service is not None and not agent.events.last(1, service):  # one that is no longer declared may have some
        agent.status(service)
    return streams.events(agent.events, arguments["after"], arguments["limit"], service, follow)


def _logs(agent: Agent, arguments: Arguments, follow: Follow | None) -> AsyncGenerator[bytes, None]:
    return streams.log_lines(agent.log_path(arguments["name"]), arguments["after"], arguments["n"], follow)


_FOLLOW = Parameter("follow", "boolean", "Keep the stream open and send what comes.", default=False)
_WAIT = Parameter("wait", "boolean", "Answer when it is done; false: as soon as it has begun.", default=True)
_COUNT = "How many at most: the newest, or with `after` (and without `follow`) the next."

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/config", "admin", "The effective declaration, secrets masked.", dict[str, Any], _config),
    Route(
        "GET",
        "/v1/events",
        "read",
        "Events, oldest first.",
        Event | Gap | Again,
        stream=_events,
        parameters=(
            Parameter("after", "integer", "The cursor to go on after."),
            _FOLLOW,
            Parameter("limit", "integer", _COUNT, default=100, maximum=10_000),
            Parameter("service", "string", "Only the events of this service.", pattern=NAME),
        ),
    ),
    Route("GET", "/v1/handover", "read", "What became of the last upgrade.", HandoverReport, _handover),
    Route(
        "GET",
        "/v1/logs/{name}",
        "read",
        "What a service printed, line by line.",
        LogLine | Gap | Again,
        stream=_logs,
        parameters=(
            Parameter("after", "string", "The cursor to go on after.", pattern=CURSOR),
            _FOLLOW,
            Parameter("n", "integer", _COUNT, default=100, maximum=10_000),
        ),
    ),
    Route("GET", "/v1/openapi.json", "read", "This API as an OpenAPI 3.1 document.", dict[str, Any], _openapi),
    Route("GET", "/v1/ping", "read", "Whether somebody is at home.", Pong, _ping),
    Route("POST", "/v1/reload", "admin", "Read the declaration again and apply it.", ReloadReport, _reload),
    Route("GET", "/v1/services/{name}", "read", "One service.", ServiceReport, _service),
    Route(
        "POST",
        "/v1/services/{name}/end",
        "admin",
        "Have a scan end the run that is under way; the next one begins anew.",
        Outcome,
        partial(_act, "end"),
        parameters=(_WAIT,),
    ),
    Route(
        "POST",
        "/v1/services/{name}/now",
        "admin",
        "Have a scan run now, though it is not due.",
        Outcome,
        partial(_act, "now"),
        parameters=(_WAIT,),
    ),
    Route(
        "POST",
        "/v1/services/{name}/pause",
        "admin",
        "Have a scan pause, or wait when it is started.",
        Outcome,
        partial(_act, "pause"),
        parameters=(_WAIT,),
    ),
    Route(
        "POST",
        "/v1/services/{name}/restart",
        "admin",
        "Stop a service and start it again.",
        Outcome,
        partial(_act, "restart"),
        parameters=(_WAIT,),
    ),
    Route(
        "POST",
        "/v1/services/{name}/resume",
        "admin",
        "Have a paused scan go on.",
        Outcome,
        partial(_act, "resume"),
        parameters=(_WAIT,),
    ),
    Route(
        "POST",
        "/v1/services/{name}/rotate",
        "admin",
        "Have a capture close the segments that it is writing.",
        Outcome,
        partial(_act, "rotate"),
        parameters=(_WAIT,),
    ),
    Route(
        "POST",
        "/v1/services/{name}/start",
        "admin",
        "Start a service.",
        Outcome,
        partial(_act, "start"),
        parameters=(_WAIT,),
    ),
    Route(
        "POST",
        "/v1/services/{name}/stop",
        "admin",
        "Stop a service until it is started again.",
        Outcome,
        partial(_act, "stop"),
        parameters=(_WAIT,),
    ),
    Route("GET", "/v1/status", "read", "The agent and all services.", Status, _status),
    Route("GET", "/v1/timers", "read", "All jobs: when they run next and how they ended last.", Timers, _timers),
    Route("POST", "/v1/upgrade", "admin", "Become the program that is installed now.", HandoverReport, _upgrade),
)
"""Sorted by path, then method; a test holds it."""


def resolve(method: bytes, target: bytes) -> tuple[Route, Arguments]:
    """The route that a request means, and its arguments, checked.

    Raises ``RequestRefused``: 400 for a query that cannot be meant, 404, 405 (``MethodNotAllowed``).
    """
    text = target.decode("ascii", "replace")
    if not text.startswith("/"):
        raise RequestRefused(400, "the request target must be a path such as /v1/status")
    path, _, query = text.partition("?")
    verb = method.decode("ascii", "replace")[:20]
    here = [(route, arguments) for route in ROUTES if (arguments := _fit(route.path, path)) is not None]
    if not here:
        raise RequestRefused(404, f"there is nothing at {path[:200]}: /v1/openapi.json lists what there is")
    for route, arguments in here:
        if route.method == ("GET" if verb == "HEAD" else verb):
            return route, arguments | _query(route, query)
    methods = [route.method for route, _ in here]
    raise MethodNotAllowed(verb, path[:200], [*methods, "HEAD"] if "GET" in methods else list(methods))


def _fit(template: str, path: str) -> Arguments | None:
    """The arguments with which a path fits a template; ``None`` when it does not."""
    wanted, given = template.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    arguments = {}
    for expected, segment in zip(wanted, given, strict=True):
        if expected.startswith("{"):
            arguments[expected[1:-1]] = unquote(segment)
        elif expected != segment:
            return None
    if not all(re.fullmatch(NAME, value) for value in arguments.values()):
        raise RequestRefused(404, "no service can have that name: names are made of a-z, 0-9 and _")
    return arguments


def _query(route: Route, query: str) -> Arguments:
    """The parameters of a route with their defaults; raises ``RequestRefused`` (400)."""
    known = {parameter.name: parameter for parameter in route.parameters}
    arguments: Arguments = {parameter.name: parameter.default for parameter in route.parameters}
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=16)
    except ValueError:
        raise RequestRefused(400, "the query must be of the form name=value&name=value, percent-encoded") from None
    seen = set()
    for name, value in given:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise RequestRefused(400, f"{route.path} has no parameter {name[:80]!r}: {takes}")
        if name in seen:
            raise RequestRefused(400, f"{name} is given twice")
        seen.add(name)
        arguments[name] = known[name].parse(value)
    return arguments
