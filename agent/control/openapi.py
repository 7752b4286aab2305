"""The OpenAPI 3.1 document of the control socket, made from the table of routes and the types it names."""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from agent import __version__
from agent.control.api import ErrorReply

if TYPE_CHECKING:
    from agent.control.routes import Parameter, Route


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document (spec.openapis.org/oas/v3.1.0). Each operation has its access class in ``x-access``."""
    kinds = [_types(route.response) for route in routes]
    named = sorted({kind for group in kinds for kind in group} | {ErrorReply}, key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(named, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "agent",
            "version": __version__,
            "description": "The control socket of the agent: HTTP/1.1 and JSON over run/agent.sock.",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _types(response: Any) -> list[type[msgspec.Struct]]:
    members = get_args(response) if isinstance(response, types.UnionType) else (response,)
    return [member for member in members if isinstance(member, type) and issubclass(member, msgspec.Struct)]


def _operation(route: Route) -> dict[str, Any]:
    schemas = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in _types(route.response)]
    schema: dict[str, Any] = {"oneOf": schemas} if len(schemas) > 1 else schemas[0] if schemas else {"type": "object"}
    media = "application/x-ndjson" if route.stream else "application/json"
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorReply"}}}
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    return {
        "operationId": re.sub(r"[^a-z]+", "_", f"{route.method.lower()} {route.path.removeprefix('/v1/')}").strip("_"),
        "summary": route.summary,
        "x-access": route.access,
        "parameters": [*in_path, *map(_parameter, route.parameters)],
        "responses": {
            "200": {"description": "Done.", "content": {media: {"schema": schema}}},
            "default": {"description": "Refused or failed.", "content": refused},
        },
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.kind}
    if parameter.kind == "integer":
        schema |= {"minimum": parameter.minimum, "maximum": parameter.maximum}
    if parameter.pattern:
        schema["pattern"] = f"^{parameter.pattern}$"
    if parameter.default is not None:
        schema["default"] = parameter.default
    return {"name": parameter.name, "in": "query", "description": parameter.summary, "schema": schema}
