from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.errors import Problem, SpawnFailed, UsageError

GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSE = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def split(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest)
    return int(first.split()[1]), headers, body


def message(answer: bytes) -> tuple[int, str]:
    status, headers, body = split(answer)
    error = json.loads(body)["error"]
    assert error["status"] == status
    assert headers["content-type"] == "application/json"
    return status, error["message"]


def receive(connection: socket.socket, marker: bytes) -> bytes:
    """Read until ``marker`` has come."""
    found = b""
    while marker not in found:
        data = connection.recv(65536)
        assert data, f"ended without {marker!r}: {found!r}"
        found += data
    return found


def test_an_answer_is_json_with_its_length_and_a_date(control: Any) -> None:
    status, headers, body = split(control.ask(CLOSE % b"/v1/ping"))
    assert status == 200
    assert json.loads(body)["ok"] is True
    assert headers["content-length"] == str(len(body))
    assert headers["cache-control"] == "no-store"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d gmt", headers["date"])


def test_a_connection_serves_many_requests_and_pipelined_ones_in_order(control: Any) -> None:
    with control.connect() as connection:
        for _ in range(20):
            connection.sendall(GET % b"/v1/ping")
            assert receive(connection, b'"ok":true}\n').startswith(b"HTTP/1.1 200 ")
        connection.sendall((GET % b"/v1/services/api") + (GET % b"/v1/nothing") + (CLOSE % b"/v1/timers"))
        answers = receive(connection, b'"timers"')
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)] == [200, 404, 200]


def test_an_http_1_0_client_is_served_and_hung_up_on(control: Any) -> None:
    status, _, body = split(control.ask(b"GET /v1/ping HTTP/1.0\r\n\r\n"))
    assert (status, json.loads(body)["ok"]) == (200, True)
    control.do(lambda: control.agent.events.append("tick", "tock"))
    _, headers, body = split(control.ask(b"GET /v1/events HTTP/1.0\r\n\r\n"))
    assert "transfer-encoding" not in headers
    assert json.loads(body)["kind"] == "tick"


def test_head_gives_the_header_alone(control: Any) -> None:
    status, headers, body = split(control.ask((CLOSE % b"/v1/status").replace(b"GET", b"HEAD")))
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 100
    status, headers, body = split(control.ask((CLOSE % b"/v1/events?follow=true").replace(b"GET", b"HEAD")))
    assert (status, headers["content-type"], body) == (200, "application/x-ndjson", b"")


def test_a_client_that_asks_before_sending_its_body_is_told_to_go_on(control: Any) -> None:
    with control.connect() as connection:
        connection.sendall(
            b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert receive(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert b'"restarted":["api"]' in receive(connection, b"}\n")


def test_a_client_that_asks_first_is_refused_before_it_sends_its_body(control: Any) -> None:
    answer = control.ask(
        b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    )
    assert message(answer)[0] == 404


@pytest.mark.parametrize(
    ("request_bytes", "status", "text"),
    [
        (GET % b"/v1/nothing", 404, "there is nothing at /v1/nothing"),
        (GET % b"/v1/services/apu", 404, "no service is named apu"),
        (GET % b"/v1/logs/apu", 404, "no service is named apu"),
        (GET % b"/v1/events?limit=x", 400, "limit='x'"),
        (GET % b"/v1/logs/api?after=1:2", 400, "after='1:2'"),
        (GET % b"/v1/reload", 405, "it takes POST"),
        (b"GET /v1/ping HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "localhost, and to no other"),
        (b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n", 403, "Origin"),
        (b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\nReferer: http://localhost/\r\n\r\n", 403, "Referer"),
    ],
)
def test_a_refusal_is_json_and_the_connection_goes_on(
    control: Any, request_bytes: bytes, status: int, text: str
) -> None:
    with control.connect() as connection:
        connection.sendall(request_bytes)
        found = message(receive(connection, b"}\n"))
        assert found[0] == status
        assert text in found[1]
        connection.sendall(GET % b"/v1/ping")
        assert b" 200 " in receive(connection, b"}\n")
    assert control.bugs == []


def test_a_wrong_method_is_told_which_are_right(control: Any) -> None:
    _, headers, _ = split(control.ask(b"DELETE /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    assert headers["allow"] == "get, head"


@pytest.mark.parametrize(
    ("request_bytes", "status", "text"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "malformed HTTP"),
        (b"GET /v1/ping HTTP/1.1\r\n\r\n", 400, "malformed HTTP"),
        (b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400, "malformed HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
        (b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400, "malformed HTTP"),
        (
            b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            400,
            "malformed HTTP",
        ),
        (b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431, ""),
        (b"GET /v1/ping?" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, ""),
        (b"GET /v1/ping HTTP/1.1\r\n" + b"X: y\r\n" * 4000, 431, ""),
        (
            b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n" + b"x" * 500_000,
            413,
            "longer than 65536 bytes",
        ),
        (
            b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n%s\r\n" % (b"x" * 0x8000) * 4,
            413,
            "longer than 65536 bytes",
        ),
        (
            b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"zz\r\n",
            400,
            "malformed HTTP",
        ),
    ],
)
def test_what_cannot_be_read_to_its_end_is_answered_and_hung_up_on(
    control: Any, request_bytes: bytes, status: int, text: str
) -> None:
    found = message(control.ask(request_bytes))
    assert found[0] == status
    assert text in found[1]
    assert control.bugs == []


def test_a_header_of_just_under_its_limit_is_read(control: Any) -> None:
    request = b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"x" * 16_200 + b"\r\n\r\n"
    assert split(control.ask(request))[0] == 200


TOKENS = st.sampled_from(
    [b"GET ", b"POST ", b"/v1/ping", b"/v1/events?follow=true", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: localhost",
     b"Content-Length: ", b"5", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"\x00", b"%", b":", b" "]
)  # fmt: skip


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.one_of(st.binary(max_size=40), TOKENS), max_size=20))
@example(pieces=[b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 40])
@example(pieces=[b"GET /v1/ping HTTP/1.1\r\nHost: \xff\r\n\r\n"])
def test_any_bytes_are_answered_or_hung_up_on_and_are_never_a_bug(control: Any, pieces: list[bytes]) -> None:
    with control.connect(timeout=5) as connection:
        with suppress(BrokenPipeError):  # it may have been hung up on already
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        found = b""
        with suppress(ConnectionResetError):
            while data := connection.recv(65536):
                found += data
    assert found == b"" or found.startswith(b"HTTP/1.1 ")
    assert control.bugs == []


def test_a_declaration_with_mistakes_is_told_mistake_by_mistake(control: Any) -> None:
    control.agent.mistakes = [Problem("env.toml", 4, "service.b", "two"), Problem("env.toml", 3, "service.a", "one")]
    status, _, body = split(control.ask(b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    assert status == 422
    assert json.loads(body) == {
        "error": {
            "status": 422,
            "message": "the declaration has 2 mistakes, so nothing was changed",
            "problems": [
                {"file": "env.toml", "line": 3, "where": "service.a", "text": "one"},
                {"file": "env.toml", "line": 4, "where": "service.b", "text": "two"},
            ],
        }
    }


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [(SpawnFailed("no such program", permanent=True), 500, "no such program"), (UsageError("no"), 400, "no")],
)
def test_an_error_of_the_agent_is_told_in_its_words(control: Any, error: Exception, status: int, text: str) -> None:
    control.agent.bug = error
    assert message(control.ask(CLOSE % b"/v1/status")) == (status, text)
    assert control.bugs == []


def test_a_bug_is_reported_to_the_agent_and_leaks_nothing_to_the_client(control: Any) -> None:
    control.agent.bug = ZeroDivisionError("secret detail")
    answer = control.ask(CLOSE % b"/v1/status")
    assert message(answer) == (500, "internal error, see the log")
    assert b"secret" not in answer
    assert control.bugs == [control.agent.bug]
    control.agent.bug = None
    assert split(control.ask(CLOSE % b"/v1/status"))[0] == 200


def test_a_bug_in_the_middle_of_a_stream_breaks_it_off_visibly(control: Any) -> None:
    control.agent.log_path = lambda name: None
    answer = control.ask(CLOSE % b"/v1/logs/api")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not answer.endswith(b"0\r\n\r\n")
    assert len(control.bugs) == 1


def test_the_socket_is_left_after_too_slow_a_header_and_the_client_told(make_control: Callable[..., Any]) -> None:
    control = make_control(header_seconds=0.3)
    with control.connect() as connection:
        started = time.monotonic()
        with suppress(BrokenPipeError):
            for byte in b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\nX-Slow: very":
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        assert message(receive(connection, b"}\n"))[0] == 408
        assert connection.recv(100) == b""
        assert time.monotonic() - started < 3


def test_too_slow_a_body_is_the_same(make_control: Callable[..., Any]) -> None:
    control = make_control(body_seconds=0.2)
    answer = control.ask(b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
    assert message(answer)[0] == 408
    assert control.agent.acted == []


def test_silence_is_ended_without_a_word(make_control: Callable[..., Any]) -> None:
    control = make_control(header_seconds=0.2, idle_seconds=0.2)
    assert control.ask(b"") == b""
    assert control.ask(GET % b"/v1/ping").endswith(b'"ok":true}\n')


def test_a_request_whose_sender_has_stopped_sending_is_answered(control: Any) -> None:
    with control.connect() as connection:
        connection.sendall(GET % b"/v1/ping")
        connection.shutdown(socket.SHUT_WR)
        assert b'"ok":true' in receive(connection, b"}\n")
        assert connection.recv(100) == b""


def test_a_client_that_does_not_read_its_answer_is_dropped(make_control: Callable[..., Any]) -> None:
    control = make_control(progress_seconds=0.3)
    control.agent.padding = "x" * 3_000_000
    with control.connect() as connection:
        connection.sendall(GET % b"/v1/status")
        wait_until(lambda: not control.server._connections)
    assert control.bugs == []


def test_a_client_that_never_reads_a_stream_is_dropped_and_costs_no_memory(make_control: Callable[..., Any]) -> None:
    control = make_control(progress_seconds=0.3)
    with control.connect() as connection:
        connection.sendall(GET % b"/v1/events?follow=true")
        receive(connection, b"\r\n\r\n")

        def burst() -> None:
            for _ in range(100):
                control.agent.events.append("noise", "x" * 4000)

        for _ in range(30):
            control.do(burst)
        wait_until(lambda: not control.server._connections)
        assert control.do(lambda: control.agent.events._subscribers) == []
    assert control.bugs == []


def test_a_slow_reader_that_goes_on_reading_gets_every_line(control: Any) -> None:
    def burst() -> None:
        for number in range(500):
            control.agent.events.append("noise", "x" * 2000, number=number)

    with control.connect() as connection:
        connection.sendall(GET % b"/v1/events?follow=true&after=0")
        control.do(burst)
        found = b""
        while b'"number":499' not in found:
            data = connection.recv(40_000)
            assert data
            found += data
    assert [int(n) for n in re.findall(rb'"number":(\d+)', re.sub(rb"\r\n[0-9a-f]+\r\n", b"", found))] == [*range(500)]


def test_a_stream_is_chunked_lines_that_come_as_things_happen(control: Any) -> None:
    with control.connect() as connection:
        connection.sendall(GET % b"/v1/events?follow=true&limit=0")
        head = receive(connection, b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        assert b"application/x-ndjson" in head
        for number in range(3):
            control.do(lambda number=number: control.agent.events.append("tick", str(number), "api"))
            assert b'"message":"%d"' % number in receive(connection, b"}\n")
    wait_until(lambda: not control.server._connections)
    assert control.do(lambda: control.agent.events._subscribers) == []


def test_a_long_answer_reaches_a_patient_reader_whole(control: Any) -> None:
    control.agent.padding = "x" * 2_000_000
    status, headers, body = split(control.ask(CLOSE % b"/v1/status"))
    assert (status, int(headers["content-length"])) == (200, len(body))
    assert len(json.loads(body)["services"][1]["message"]) == 2_000_000


def test_a_client_that_hangs_up_does_not_undo_what_it_asked_for(control: Any) -> None:
    with control.connect() as connection:
        connection.sendall(b"POST /v1/services/web/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        wait_until(lambda: control.agent.acted == [("start", "web", True)])
    control.do(control.agent.gate.set)
    wait_until(lambda: control.agent.running["web"])
    assert control.bugs == []


def test_nobody_waits_for_a_change_that_somebody_else_waits_for(control: Any) -> None:
    with control.connect() as waiting:
        waiting.sendall(b"POST /v1/services/web/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        wait_until(lambda: len(control.agent.acted) == 1)
        assert split(control.ask(CLOSE % b"/v1/status"))[0] == 200
        answer = control.ask(
            b"POST /v1/services/web/stop?wait=false HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert json.loads(split(answer)[2])["ok"] is True
        control.do(control.agent.gate.set)
        assert b'"state":"running"' in receive(waiting, b"}\n")


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for what another thread is about to do."""
    for _ in polls():
        if condition():
            return
    raise AssertionError("it did not come about")


def polls() -> Iterator[None]:
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        yield
        time.sleep(0.01)
