from __future__ import annotations

import grp
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.control.admission import Admission
from agent.control.server import TURNED_AWAY
from agent.errors import RuntimeFailure
from tests.linux.processes import open_fds

NOBODY = 65534
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


def curl(control: Any, path: str, *options: str, uid: int = 0, groups: str = "") -> tuple[int, Any]:
    """Status and body, as a user gets them who has that uid and these supplementary groups."""
    command = ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", "--unix-socket", str(control.path), *options]
    command.append(f"http://localhost{path}")
    if uid:
        ids = ["--reuid", str(uid), "--regid", str(uid), *(["--groups", groups] if groups else ["--clear-groups"])]
        command = ["setpriv", *ids, *command]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    body, _, status = output.rpartition("\n")
    return int(status), body


def problem(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], json.loads(answer[1])["error"]["message"]


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 8
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def test_curl_works(control: Any) -> None:
    status, body = curl(control, "/v1/status")
    assert status == 200
    assert [service["name"] for service in json.loads(body)["services"]] == ["api", "web"]
    status, body = curl(control, "/v1/services/api/stop", "-X", "POST")
    assert (status, json.loads(body)["state"]) == (200, "stopped")
    assert control.agent.acted == [("stop", "api", True)]
    status, body = curl(control, "/v1/services/web/start?wait=false", "-d", "{}")
    assert (status, json.loads(body)["state"]) == (200, "running")
    assert json.loads(curl(control, "/v1/openapi.json")[1])["openapi"] == "3.1.0"
    assert json.loads(curl(control, "/v1/config")[1]) == {"agent": {"server": "h"}}
    assert json.loads(curl(control, "/v1/timers")[1])["timers"][0]["name"] == "backup"
    assert curl(control, "/v1/ping", "--head")[0] == 200


def test_curl_is_answered_when_it_sends_far_too_much(control: Any, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(bytes(2_000_000))
    sent = curl(control, "/v1/reload", "--data-binary", f"@{tmp_path / 'body'}")
    assert problem(sent) == (413, "the body is longer than 65536 bytes")


def test_curl_follows_a_stream_and_resumes_it_by_its_cursor(control: Any) -> None:
    log = control.agent.log()
    log.write(b"one\ntwo\nthree\n")
    lines = [json.loads(line) for line in curl(control, "/v1/logs/api?n=2")[1].splitlines()]
    assert [line["line"] for line in lines] == ["two", "three"]
    log.write(b"four\n")
    [line] = [json.loads(line) for line in curl(control, f"/v1/logs/api?after={lines[-1]['cursor']}")[1].splitlines()]
    assert line["line"] == "four"
    command = ["curl", "-sSN", "--unix-socket", str(control.path), "http://localhost/v1/events?follow=true&limit=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        wait_until(lambda: control.do(lambda: len(control.agent.events._subscribers)) == 1)
        control.do(lambda: control.agent.events.append("tick", "tock"))
        assert json.loads(follower.stdout.readline())["message"] == "tock"
        follower.terminate()


def test_strangers_learn_only_that_they_may_not_talk(control: Any) -> None:
    for path in ("/v1/ping", "/v1/status", "/v1/nothing"):
        assert problem(curl(control, path, uid=NOBODY)) == (
            403,
            "user nobody (65534) may not talk to this agent: root and the agent's own user may"
            " (`[agent] group` in env.toml lets a group read)",
        )


def test_members_of_the_declared_group_may_read_and_only_read(control: Any) -> None:
    control.agent.group = grp.getgrgid(8).gr_name
    assert curl(control, "/v1/status", uid=NOBODY, groups="8")[0] == 200
    assert curl(control, "/v1/events", uid=NOBODY, groups="8")[0] == 200
    only_read = (403, "user nobody (65534) may only read: this takes root or the agent's own user")
    assert problem(curl(control, "/v1/config", uid=NOBODY, groups="8")) == only_read
    assert problem(curl(control, "/v1/services/api/stop", "-X", "POST", uid=NOBODY, groups="8")) == only_read
    assert problem(curl(control, "/v1/status", uid=NOBODY, groups="9"))[0] == 403
    assert control.agent.acted == []


def test_a_declared_group_that_does_not_exist_lets_nobody_in(control: Any) -> None:
    control.agent.group = "no_such_group"
    assert problem(curl(control, "/v1/status", uid=NOBODY))[0] == 403
    assert curl(control, "/v1/status")[0] == 200


def test_two_hundred_clients_at_once_are_all_answered(control: Any) -> None:
    def one(number: int) -> int:
        with control.connect() as connection:
            connection.sendall(GET % b"/v1/status")
            answer = b""
            while b'"services"' not in answer:
                answer += connection.recv(65536)
        return int(answer.split()[1])

    with ThreadPoolExecutor(200) as pool:
        assert list(pool.map(one, range(200))) == [200] * 200
    assert control.bugs == []


def test_half_open_connections_and_the_rest_of_a_crowd_leave_room_for_an_administrator(control: Any) -> None:
    script = f"""
import socket, sys
held = []
for _ in range(150):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect({str(control.path)!r})
    connection.sendall(b"GET /v1/ping HTTP/1.1")
    held.append(connection)
print("held", flush=True)
sys.stdin.read()
"""
    command = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "/usr/bin/python3", "-c"]
    with subprocess.Popen([*command, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
        assert crowd.stdout
        assert crowd.stdout.readline() == "held\n"
        wait_until(lambda: control.server._admission.taken == 32)
        assert curl(control, "/v1/ping")[0] == 200
        wait_until(lambda: control.server._turned_away == 0)
        assert problem(curl(control, "/v1/ping", uid=1234))[0] == 503
    wait_until(lambda: not control.server._connections)
    assert control.server._admission.taken == 0


def test_whoever_finds_no_place_is_told_with_503_and_those_beyond_are_closed(make_control: Callable[..., Any]) -> None:
    control = make_control(admission=Admission(total=3, reserved=1))
    with ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(control.connect())
            connection.sendall(GET % b"/v1/ping")
            assert b" 200 " in connection.recv(4096)
        assert problem(curl(control, "/v1/ping")) == (503, "all 3 connections are taken: try again later")
        wait_until(lambda: control.server._turned_away == 0)
        over = [stack.enter_context(control.connect()) for _ in range(TURNED_AWAY + 8)]
        assert sorted(connection.recv(12) for connection in over) == [b""] * 8 + [b"HTTP/1.1 503"] * TURNED_AWAY
    wait_until(lambda: not control.server._connections)
    assert curl(control, "/v1/ping")[0] == 200


def test_a_client_that_is_killed_in_the_middle_leaves_nothing_behind(control: Any) -> None:
    command = ["curl", "-sSN", "--unix-socket", str(control.path), "http://localhost/v1/events?follow=true"]
    followers = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(5)]
    wait_until(lambda: control.do(lambda: len(control.agent.events._subscribers)) == 5)
    for follower in followers:
        follower.send_signal(signal.SIGKILL)
        follower.wait()
    wait_until(lambda: not control.server._connections)
    assert control.server._admission.taken == 0
    assert control.do(lambda: control.agent.events._subscribers) == []


def test_a_crowd_of_requests_does_not_keep_the_loop_from_its_other_work(control: Any) -> None:
    control.agent.padding = "x" * 50_000
    stop = threading.Event()

    def pester() -> None:
        with control.connect() as connection:
            while not stop.is_set():
                connection.sendall((GET % b"/v1/status") * 20)
                connection.recv(1 << 20)

    worst = 0.0
    with ThreadPoolExecutor(10) as pool:
        for _ in range(10):
            pool.submit(pester)
        for _ in range(100):
            started = time.monotonic()
            control.do(lambda: None)
            worst = max(worst, time.monotonic() - started)
        stop.set()
        control.wait_for(control.server.stop(grace=0.5))
    assert worst < 1.0
    assert control.bugs == []


def test_a_server_that_nobody_talks_to_is_not_woken(control: Any) -> None:
    curl(control, "/v1/status")
    control.do(lambda: control.agent.events.append("tick", "tock"))
    control.do(lambda: control.agent.events.flush())
    wait_until(lambda: not control.server._connections)
    time.sleep(0.3)  # the commit that the event asked for
    status = Path(f"/proc/self/task/{control._thread.native_id}/status")

    def switches() -> int:
        return sum(int(line.split()[1]) for line in status.read_text().splitlines() if "ctxt_switches" in line)

    before = switches()
    time.sleep(0.7)
    assert switches() == before


def test_everybody_may_connect_and_the_file_is_gone_afterwards(control: Any) -> None:
    assert control.path.stat().st_mode & 0o777 == 0o666
    control.wait_for(control.server.stop())
    assert not control.path.exists()
    with pytest.raises(FileNotFoundError):
        control.connect()
    control.wait_for(control.server.stop())


def test_a_path_that_another_server_listens_on_is_left_alone(control: Any) -> None:
    from agent.control.server import ControlServer

    second = ControlServer(control.agent, control.path, on_bug=control.bugs.append)
    with pytest.raises(RuntimeFailure, match="listens there already"):
        control.wait_for(second.start())
    assert curl(control, "/v1/ping")[0] == 200


def test_a_socket_that_listens_already_is_served_and_its_file_left(control: Any, open_directory: Path) -> None:
    from agent.control.server import ControlServer

    path = open_directory / "given.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        given.setblocking(False)
        second = ControlServer(control.agent, given, on_bug=control.bugs.append)
        control.wait_for(second.start())
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(GET % b"/v1/ping")
            assert b" 200 " in connection.recv(4096)
        control.wait_for(second.stop())
    assert path.exists()


def test_where_its_file_was_removed_it_listens_anew_and_loses_nobody(control: Any) -> None:
    before = len(open_fds())
    with control.connect() as kept:
        control.path.unlink()
        with pytest.raises(FileNotFoundError):
            control.connect()
        assert control.wait_for(control.server.renew(control.path))
        assert curl(control, "/v1/ping")[0] == 200
        kept.sendall(GET % b"/v1/ping" + b"")
        assert kept.recv(100).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(RuntimeFailure, match="another process listens there already"):
            control.wait_for(control.server.renew(control.path))
        assert curl(control, "/v1/ping")[0] == 200
    wait_until(lambda: len(open_fds()) == before)
    control.wait_for(control.server.stop())
    assert not control.path.exists()
    assert not control.wait_for(control.server.renew(control.path))


def test_stopping_finishes_answers_ends_streams_and_drops_the_idle(control: Any) -> None:
    with control.connect() as idle, control.connect() as stream, control.connect() as change:
        idle.sendall(GET % b"/v1/ping")
        assert b" 200 " in idle.recv(4096)
        stream.sendall(GET % b"/v1/events?follow=true")
        assert b" 200 " in stream.recv(4096)
        change.sendall(b"POST /v1/services/web/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        wait_until(lambda: len(control.agent.acted) == 1)
        stopping = control.submit(control.server.stop(grace=5.0))
        assert idle.recv(4096) == b""
        ended = b""
        while data := stream.recv(4096):
            ended += data
        assert ended.endswith(b"0\r\n\r\n")
        assert not stopping.done()
        control.do(control.agent.gate.set)
        answer = b""
        while data := change.recv(4096):
            answer += data
        assert b"connection: close" in answer.lower()
        assert b'"state":"running"' in answer
        stopping.result(5)
    assert control.bugs == []


def test_stopping_waits_no_longer_than_its_grace(control: Any) -> None:
    with control.connect() as change:
        change.sendall(b"POST /v1/services/web/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        wait_until(lambda: len(control.agent.acted) == 1)
        started = time.monotonic()
        control.wait_for(control.server.stop(grace=0.2))
        assert time.monotonic() - started < 2
        assert change.recv(100) == b""


def test_it_serves_below_a_prefix_too_long_for_an_address(open_directory: Path, control: Any) -> None:
    from agent.control.client import Client
    from agent.control.server import ControlServer

    deep = open_directory / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    second = ControlServer(control.agent, deep / "agent.sock", on_bug=control.bugs.append)
    control.wait_for(second.start())
    assert Client(deep / "agent.sock").request("GET", "/v1/ping")["pid"] == os.getpid()
    control.wait_for(second.stop())
    assert not (deep / "agent.sock").exists()


# -- another program in this process ----------------------------------------------------------------------------------

START_WEB = b"POST /v1/services/web/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


def to_the_end(connection: socket.socket) -> bytes:
    found = b""
    while data := connection.recv(4096):
        found += data
    return found


def test_suspended_it_answers_whoever_was_there_and_lets_those_wait_who_come_later(control: Any) -> None:
    with ExitStack() as stack:
        idle, silent, change, stream = (stack.enter_context(control.connect()) for _ in range(4))
        idle.sendall(GET % b"/v1/ping")
        assert b" 200 " in idle.recv(4096)
        change.sendall(START_WEB)
        stream.sendall(GET % b"/v1/events?follow=true")
        assert b" 200 " in stream.recv(4096)
        wait_until(lambda: len(control.agent.acted) == 1)
        wait_until(lambda: len(control.server._connections) == 4)
        suspending = control.submit(control.server.suspend())
        assert idle.recv(4096) == b"", "who has had an answer and says nothing more can connect again"
        silent.sendall(GET % b"/v1/ping")  # it has connected, and is a little slow
        assert b" 200 " in to_the_end(silent)
        assert b'{"again":true,"cursor":' in to_the_end(stream)
        later = stack.enter_context(control.connect())
        later.sendall(GET % b"/v1/ping")
        assert not suspending.done()
        control.do(control.agent.gate.set)
        assert b'"state":"running"' in to_the_end(change)
        kept = suspending.result(5)
        later.settimeout(0.1)
        with pytest.raises(TimeoutError):
            later.recv(1)
        assert control.path.is_socket()
        control.wait_for(control.server.resume(kept))
        later.settimeout(5)
        assert b" 200 " in later.recv(4096)
    assert curl(control, "/v1/ping")[0] == 200
    assert control.bugs == []


def test_who_waits_for_longer_than_that_is_told_to_look_again(control: Any) -> None:
    with control.connect() as change:
        change.sendall(START_WEB)
        wait_until(lambda: len(control.agent.acted) == 1)
        kept = control.wait_for(control.server.suspend(grace=0.1))
        answer = to_the_end(change)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"becomes another version of itself and waits for this no longer" in answer
        control.wait_for(control.server.resume(kept))
    assert control.bugs == []


def test_one_who_has_only_connected_costs_half_a_second_and_no_more(control: Any) -> None:
    with control.connect() as silent:
        wait_until(lambda: len(control.server._connections) == 1)
        begun = time.monotonic()
        kept = control.wait_for(control.server.suspend())
        assert 0.4 < time.monotonic() - begun < 2
        assert silent.recv(1) == b""
        control.wait_for(control.server.resume(kept))


def test_a_server_of_another_program_serves_the_socket_and_removes_its_file(control: Any) -> None:
    from agent.control.server import ControlServer

    inherited = control.wait_for(control.server.suspend()).detach()
    with control.connect() as waiting:
        waiting.sendall(GET % b"/v1/ping")
        again = socket.socket(fileno=inherited)
        follows = ControlServer(control.agent, again, ours=control.path, on_bug=control.bugs.append)
        assert follows.ours == control.server.ours == control.path
        control.wait_for(follows.start())
        assert b" 200 " in waiting.recv(4096)
    control.wait_for(follows.stop())
    assert not control.path.exists()


def test_again_and_again_it_loses_nobody_and_leaves_nothing_open(control: Any) -> None:
    stop, failures = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            with control.connect() as connection:
                connection.sendall(b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if b" 200 " not in (answer := to_the_end(connection)):
                    failures.append(answer)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask)
        for _ in range(50):
            control.wait_for(control.server.resume(control.wait_for(control.server.suspend())))
        stop.set()
    assert failures == []
    wait_until(lambda: not control.server._connections)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        control.wait_for(control.server.resume(control.wait_for(control.server.suspend())))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert control.bugs == []


def test_without_a_descriptor_for_it_it_is_not_suspended_and_serves_on(control: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def without() -> None:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            await control.server.suspend()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(OSError, match="Too many open files"):
        control.wait_for(without())
    assert curl(control, "/v1/ping")[0] == 200


def test_what_does_not_serve_cannot_be_suspended(control: Any) -> None:
    from agent.control.server import ControlServer

    with pytest.raises(RuntimeError, match="has not been started"):
        control.wait_for(ControlServer(control.agent, control.path, on_bug=control.bugs.append).suspend())
