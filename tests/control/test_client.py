from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.control.client import Client, quote
from agent.control.routes import resolve
from agent.errors import EXIT_CONFIGURATION, EXIT_RUNTIME, DeclarationError, NotRunning, Problem, RequestRefused


@pytest.fixture
def client(control: Any) -> Client:
    return Client(control.path)


@pytest.fixture
def impostor(open_directory: Path) -> Iterator[Callable[[bytes], Path]]:
    """Something else that answers one connection, with the bytes given."""
    listening = socket.socket(socket.AF_UNIX)
    threads = []

    def start(answer: bytes) -> Path:
        path = open_directory / "other.sock"
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(5)
    listening.close()


def test_a_request_gives_the_answer_decoded(client: Client, control: Any) -> None:
    assert client.request("GET", "/v1/status")["services"][0]["name"] == "api"
    outcome = client.request("POST", "/v1/services/web/stop", {"wait": "false"})
    assert (outcome["ok"], outcome["state"]) == (True, "stopped")
    assert control.agent.acted == [("stop", "web", False)]


def test_a_stream_gives_lines_as_they_come_and_ends_with_the_agent(client: Client, control: Any) -> None:
    control.do(lambda: control.agent.events.append("tick", "one"))
    assert [event["message"] for event in client.stream("/v1/events")] == ["one"]
    followed = client.stream("/v1/events", {"follow": "true"})
    assert next(followed)["message"] == "one"
    control.do(lambda: control.agent.events.append("tick", "two"))
    assert next(followed)["message"] == "two"
    stopping = control.submit(control.server.stop())
    assert list(followed) == []
    stopping.result(5)


def test_a_stream_given_up_lets_the_server_go(client: Client, control: Any) -> None:
    control.do(lambda: control.agent.events.append("tick", "one"))
    followed = client.stream("/v1/events", {"follow": "true"})
    next(followed)
    del followed
    deadline = time.monotonic() + 5
    while control.server._connections:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_refusal_is_raised_with_its_status_and_the_agents_words(client: Client) -> None:
    with pytest.raises(RequestRefused, match="no service is named apu") as caught:
        client.request("GET", "/v1/services/apu")
    assert (caught.value.status, caught.value.exit_code) == (404, EXIT_CONFIGURATION)
    with pytest.raises(RequestRefused, match="no service is named apu"):
        next(client.stream("/v1/logs/apu"))


def test_mistakes_in_a_declaration_are_raised_as_such(client: Client, control: Any) -> None:
    control.agent.mistakes = [Problem("env.toml", 3, "service.api", "what is wrong")]
    with pytest.raises(DeclarationError) as caught:
        client.request("POST", "/v1/reload")
    assert caught.value.problems == control.agent.mistakes
    assert caught.value.exit_code == EXIT_CONFIGURATION


def test_nobody_there_is_said_in_one_line_with_the_path(open_directory: Path) -> None:
    path = open_directory / "agent.sock"
    with pytest.raises(NotRunning) as caught:
        Client(path).request("GET", "/v1/ping")
    assert str(caught.value) == f"the agent is not running: no answer on {path} (no such file or directory)"
    assert caught.value.exit_code == EXIT_RUNTIME
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with pytest.raises(NotRunning, match=r"\(connection refused\)"):
        list(Client(path).stream("/v1/events"))


def test_an_agent_that_hangs_is_not_waited_for_beyond_the_timeout(control: Any) -> None:
    started = time.monotonic()
    with pytest.raises(NotRunning, match=r"no answer within 0\.2 s"):
        Client(control.path, timeout=0.2).request("POST", "/v1/services/web/start")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("pause", [0.02, 0.0])
@pytest.mark.parametrize(
    ("header", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nx: ", b" "),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_who_never_ends_its_answer_is_not_listened_to_beyond_the_timeout(
    open_directory: Path, header: bytes, drop: bytes, pause: float
) -> None:
    path = open_directory / "other.sock"
    with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor() as pool:
        listening.bind(str(path))
        listening.listen()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection, suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(header)
                while True:
                    connection.sendall(drop)
                    time.sleep(pause)

        dripping = pool.submit(drip)
        begun = time.monotonic()
        with pytest.raises(NotRunning):
            Client(path, timeout=0.3).request("GET", "/v1/status")
        assert time.monotonic() - begun < 5
        dripping.result(5)


def test_a_queue_of_clients_that_is_full_is_waited_for(open_directory: Path) -> None:
    path = open_directory / "busy.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        held = socket.socket(socket.AF_UNIX)
        held.connect(str(path))
        with pytest.raises(NotRunning, match="too many others wait for it"):
            Client(path, timeout=0.2).request("GET", "/v1/ping")
        held.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "does not speak JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "its JSON is no object"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "went away in the middle of an answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "went away in the middle of an answer"),
        (b"", "without an answer"),
    ],
)
def test_what_is_no_agent_is_told_from_one(impostor: Callable[[bytes], Path], answer: bytes, reason: str) -> None:
    with pytest.raises(NotRunning, match=reason):
        Client(impostor(answer)).request("GET", "/v1/status")


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b"[]", b'{"error": 1}', b'{"error": {"message": "", "problems": 3}}']
)
def test_an_error_without_our_words_still_has_its_status(impostor: Callable[[bytes], Path], body: bytes) -> None:
    answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with pytest.raises(RequestRefused, match="status 502 and no reason") as caught:
        Client(impostor(answer)).request("GET", "/v1/status")
    assert caught.value.status == 502


def test_one_client_serves_several_threads(client: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.request("GET", "/v1/ping")["ok"], range(100)))
    assert answers == [True] * 100


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_quoted_name_comes_out_of_the_route_as_it_went_in(name: str) -> None:
    try:
        _, arguments = resolve(b"GET", b"/v1/services/" + quote(name).encode())
    except RequestRefused as refusal:
        assert refusal.status == 404
    else:
        assert arguments == {"name": name}


def test_importing_it_brings_in_neither_a_loop_nor_a_framework() -> None:
    script = """
import sys
import agent.control.client
heavy = {"asyncio", "http.client", "ssl", "msgspec", "sqlite3", "logging", "click", "psutil", "rich"}
sys.exit(", ".join(heavy & sys.modules.keys()) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
