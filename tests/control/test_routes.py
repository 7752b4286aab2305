from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.control.routes import ROUTES, MethodNotAllowed, resolve
from agent.errors import RequestRefused


def test_the_table_is_sorted_complete_and_names_each_access_class() -> None:
    assert list(ROUTES) == sorted(ROUTES, key=lambda route: (route.path, route.method))
    assert [(route.method, route.path, route.access) for route in ROUTES] == [
        ("GET", "/v1/config", "admin"),
        ("GET", "/v1/events", "read"),
        ("GET", "/v1/handover", "read"),
        ("GET", "/v1/logs/{name}", "read"),
        ("GET", "/v1/openapi.json", "read"),
        ("GET", "/v1/ping", "read"),
        ("POST", "/v1/reload", "admin"),
        ("GET", "/v1/services/{name}", "read"),
        ("POST", "/v1/services/{name}/end", "admin"),
        ("POST", "/v1/services/{name}/now", "admin"),
        ("POST", "/v1/services/{name}/pause", "admin"),
        ("POST", "/v1/services/{name}/restart", "admin"),
        ("POST", "/v1/services/{name}/resume", "admin"),
        ("POST", "/v1/services/{name}/rotate", "admin"),
        ("POST", "/v1/services/{name}/start", "admin"),
        ("POST", "/v1/services/{name}/stop", "admin"),
        ("GET", "/v1/status", "read"),
        ("GET", "/v1/timers", "read"),
        ("POST", "/v1/upgrade", "admin"),
    ]


def test_what_changes_something_takes_an_admin_and_every_route_answers_in_one_way() -> None:
    for route in ROUTES:
        assert route.method == "GET" or route.access == "admin"
        assert (route.answer is None) != (route.stream is None)
        names = [parameter.name for parameter in route.parameters]
        assert names == sorted(set(names))
        assert (route.stream is not None) == ("follow" in names)


@pytest.mark.parametrize(
    ("method", "target", "path", "arguments"),
    [
        (b"GET", b"/v1/status", "/v1/status", {}),
        (b"HEAD", b"/v1/status?", "/v1/status", {}),
        (b"GET", b"/v1/services/lan_scan", "/v1/services/{name}", {"name": "lan_scan"}),
        (b"GET", b"/v1/services/lan%5Fscan", "/v1/services/{name}", {"name": "lan_scan"}),
        (b"POST", b"/v1/services/api/stop?wait=false", "/v1/services/{name}/stop", {"name": "api", "wait": False}),
        (b"POST", b"/v1/services/api/stop", "/v1/services/{name}/stop", {"name": "api", "wait": True}),
        (
            b"GET",
            b"/v1/events?follow=true&after=17&service=api",
            "/v1/events",
            {"after": 17, "follow": True, "limit": 100, "service": "api"},
        ),
        (
            b"GET",
            b"/v1/logs/api?after=12%3A34%3A0badcafe&n=0",
            "/v1/logs/{name}",
            {"name": "api", "after": "12:34:0badcafe", "follow": False, "n": 0},
        ),
    ],
)
def test_a_request_means_a_route_and_checked_arguments(
    method: bytes, target: bytes, path: str, arguments: dict[str, object]
) -> None:
    route, found = resolve(method, target)
    assert (route.path, found) == (path, arguments)


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [
        (b"/", 404, "there is nothing at /: /v1/openapi.json lists what there is"),
        (b"/v1/status/", 404, "there is nothing at /v1/status/: /v1/openapi.json lists what there is"),
        (b"/v1/services/%1b%5b31m", 404, "no service can have that name: names are made of a-z, 0-9 and _"),
        (b"/v1/services/a%2Fb", 404, "no service can have that name: names are made of a-z, 0-9 and _"),
        (b"http://localhost/v1/status", 400, "the request target must be a path such as /v1/status"),
        (b"*", 400, "the request target must be a path such as /v1/status"),
        (b"/v1/status?x=1", 400, "/v1/status has no parameter 'x': it takes none"),
        (b"/v1/events?n=1", 400, "/v1/events has no parameter 'n': it takes after, follow, limit, service"),
        (b"/v1/events?limit=1&limit=2", 400, "limit is given twice"),
        (b"/v1/events?limit=10001", 400, "limit='10001': it must be a whole number from 0 to 10000"),
        (b"/v1/events?limit=-1", 400, "limit='-1': it must be a whole number from 0 to 10000"),
        (b"/v1/events?limit=%D9%A1", 400, "limit='\u0661': it must be a whole number from 0 to 10000"),
        (b"/v1/events?follow=yes", 400, "follow='yes': it must be true or false"),
        (b"/v1/events?follow", 400, "the query must be of the form name=value&name=value, percent-encoded"),
        (b"/v1/events?service=%ff", 400, "the query must be of the form name=value&name=value, percent-encoded"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_would_be_right(target: bytes, status: int, message: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        resolve(b"GET", target)
    assert (caught.value.status, str(caught.value)) == (status, message)


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        (b"DELETE", b"/v1/status", ["GET", "HEAD"]),
        (b"GET", b"/v1/reload", ["POST"]),
        (b"HEAD", b"/v1/services/api/stop", ["POST"]),
        (b"OPTIONS", b"/v1/services/api", ["GET", "HEAD"]),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method: bytes, target: bytes, allowed: list[str]) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        resolve(method, target)
    assert caught.value.allowed == allowed


@settings(deadline=None)
@given(method=st.binary(max_size=30), target=st.binary(max_size=200))
@example(b"GET", b"/v1/services/%ED%A0%80")
@example(b"GET", b"/v1/events?after=" + b"9" * 150)
@example(b"GET", b"/v1/events?" + b"&" * 150)
@example(b"GET", b"/v1/events?%=%")
def test_any_bytes_are_a_route_or_a_refusal_in_one_printable_line(method: bytes, target: bytes) -> None:
    try:
        resolve(method, target)
    except RequestRefused as refusal:
        assert 400 <= refusal.status < 500
        assert len(str(refusal)) < 600
