from __future__ import annotations

import json
import re

from agent.control.openapi import document
from agent.control.routes import ROUTES


def test_every_route_is_an_operation_with_its_parameters_and_access_class() -> None:
    made = document(ROUTES)
    found = {
        (method.upper(), path): operation
        for path, operations in made["paths"].items()
        for method, operation in operations.items()
    }
    assert set(found) == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        operation = found[route.method, route.path]
        assert operation["x-access"] == route.access
        named = {parameter["name"] for parameter in operation["parameters"]}
        assert named == {p.name for p in route.parameters} | set(re.findall(r"\{(\w+)\}", route.path))
    assert len({operation["operationId"] for operation in found.values()}) == len(ROUTES)


def test_the_document_is_json_whose_references_all_lead_somewhere() -> None:
    text = json.dumps(document(ROUTES))
    made = json.loads(text)
    assert made["openapi"] == "3.1.0"
    references = set(re.findall(r'"\$ref": "([^"]+)"', text))
    assert "#/components/schemas/Status" in references
    for reference in references:
        place = made
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place["type"] == "object"


def test_bounds_and_defaults_are_told() -> None:
    parameters = document(ROUTES)["paths"]["/v1/events"]["get"]["parameters"]
    limit = next(parameter for parameter in parameters if parameter["name"] == "limit")
    assert limit["schema"] == {"type": "integer", "minimum": 0, "maximum": 10_000, "default": 100}
    assert limit["in"] == "query"


def test_streams_are_told_from_documents() -> None:
    paths = document(ROUTES)["paths"]
    events = paths["/v1/events"]["get"]["responses"]["200"]["content"]
    assert events == {
        "application/x-ndjson": {
            "schema": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Event", "Gap", "Again")]}
        }
    }
    assert list(paths["/v1/status"]["get"]["responses"]["200"]["content"]) == ["application/json"]
