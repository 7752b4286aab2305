"""The lifecycle of a worker: real processes with a real notify socket, and its corner cases in one loop."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.declaration.model import Capture, Heartbeat
from agent.errors import CaptureFailure, ConfigurationError, RuntimeFailure
from agent.linux.notify import SystemdNotifier
from agent.supervisor.notices import ChildEvent, understand
from agent.workers.runtime import FIELD_LIMIT, Context, context_from, live

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0

_PROGRAM = """
import asyncio, os, sys, time
from agent.errors import *
from agent.workers.runtime import run_worker

class Worker:
    def __init__(self, context):
        self.context = context
    async def start(self): ...
    async def run(self):
        while True:
            self.context.beat()
            await asyncio.sleep(self.context.beat_interval)
    async def stop(self):
        print("stopped", flush=True)

{body}
raise SystemExit(run_worker(Mine))
"""


class Agent:
    """What the agent provides: settings, a directory, a heartbeat file, a socket to be notified on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.heartbeat = directory / "heartbeat"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.bind(str(directory / "notify"))
        config = directory / "service.json"
        config.write_text(
            json.dumps(
                {"kind": "capture", "name": "edge", "interfaces": ["lo"], "heartbeat": {"interval": 0.1, "timeout": 1}}
            )
        )
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SERVICE_NAME": "edge",
            "SERVICE_CONFIG": str(config),
            "SERVICE_DATA": str(directory),
            "SERVICE_HEARTBEAT_FILE": str(self.heartbeat),
            "NOTIFY_SOCKET": str(directory / "notify"),
        }
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, body: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(body=body)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def message(self) -> dict[str, str]:
        """The next message."""
        return dict(line.split("=", 1) for line in self.socket.recv(8192).decode().split("\n"))

    def wait_for(self, name: str) -> str:
        """The value of a field in the next message that has it."""
        while True:
            fields = self.message()
            if name in fields:
                return fields[name]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.socket.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.close()


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors


def test_ready_is_said_when_start_has_returned_and_not_before(agent: Agent) -> None:
    agent.start("class Mine(Worker):\n async def start(self): self.context.status('starting')")
    assert [next(iter(fields)) for fields in (agent.message(), agent.message(), agent.message())] == [
        "WATCHDOG",
        "STATUS",
        "READY",
    ]


def test_the_run_loop_beats_by_message_and_by_file(agent: Agent) -> None:
    agent.start("Mine = Worker")
    agent.wait_for("READY")
    agent.wait_for("WATCHDOG")
    first = agent.heartbeat.stat().st_mtime_ns
    agent.wait_for("WATCHDOG")
    agent.wait_for("WATCHDOG")
    assert agent.heartbeat.stat().st_mtime_ns > first


def test_a_run_loop_that_hangs_goes_stale(agent: Agent) -> None:
    agent.start("class Mine(Worker):\n async def run(self): self.context.status('hanging'); time.sleep(60)")
    agent.wait_for("STATUS")
    agent.socket.settimeout(0.5)  # ten beats
    with pytest.raises(TimeoutError):
        agent.message()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_success_however_often_it_is_sent(agent: Agent, number: int) -> None:
    process = agent.start("Mine = Worker")
    agent.wait_for("READY")
    for _ in range(10):
        process.send_signal(number)
    assert end(process) == (0, "stopped\n", "")
    assert agent.wait_for("STOPPING") == "1"


def test_a_signal_during_start_ends_the_start_and_stops(agent: Agent) -> None:
    process = agent.start(
        "class Mine(Worker):\n async def start(self): self.context.status('starting'); await asyncio.sleep(60)"
    )
    agent.wait_for("STATUS")
    process.terminate()
    assert end(process) == (0, "stopped\n", "")


def test_a_worker_that_is_done_stops_and_succeeds(agent: Agent) -> None:
    assert end(agent.start("class Mine(Worker):\n async def run(self): pass")) == (0, "stopped\n", "")


@pytest.mark.parametrize("phase", ["start", "run"])
@pytest.mark.parametrize(
    ("error", "status"), [("ConfigurationError('wrong')", 1), ("CaptureFailure('broken')", 2), ("ScanFailure('x')", 2)]
)
def test_an_error_ends_as_one_line_and_its_exit_code_after_a_stop(
    agent: Agent, phase: str, error: str, status: int
) -> None:
    returncode, output, errors = end(agent.start(f"class Mine(Worker):\n async def {phase}(self): raise {error}"))
    assert (returncode, output) == (status, "stopped\n")
    assert errors == error.split("'")[1] + "\n"


def test_a_bug_ends_with_its_traceback_and_2_after_a_stop(agent: Agent) -> None:
    returncode, output, errors = end(agent.start("class Mine(Worker):\n async def run(self): 1 / 0"))
    assert (returncode, output) == (2, "stopped\n")
    assert errors.startswith("Traceback")
    assert errors.endswith("ZeroDivisionError: division by zero\n")


def test_of_two_errors_the_first_decides_and_both_are_told(agent: Agent) -> None:
    body = (
        "class Mine(Worker):\n"
        " async def run(self): raise ConfigurationError('first')\n"
        " async def stop(self): raise CaptureFailure('second')"
    )
    assert end(agent.start(body)) == (1, "", "and while stopping: second\nfirst\n")


def test_a_failing_stop_is_a_failure(agent: Agent) -> None:
    body = "class Mine(Worker):\n async def run(self): pass\n async def stop(self): raise CaptureFailure('not closed')"
    assert end(agent.start(body)) == (2, "", "not closed\n")


def test_a_worker_whose_parent_dies_stops_cleanly(agent: Agent) -> None:
    witness = agent.directory / "witness"
    body = (
        "class Mine(Worker):\n"
        " async def start(self): self.context.status(str(os.getpid()))\n"
        f" async def stop(self): open({str(witness)!r}, 'w').write('clean')"
    )
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', sys.argv[1]])\ntime.sleep(60)",
            _PROGRAM.format(body=body),
        ],
        env=agent.environment,
    )
    pidfd = os.pidfd_open(int(agent.wait_for("STATUS")))
    agent.wait_for("READY")
    parent.kill()
    parent.wait(PATIENCE)
    assert wait_exit(pidfd)
    assert witness.read_text() == "clean"


def wait_exit(pidfd: int) -> bool:
    """Whether the process of ``pidfd`` ended within patience."""
    try:
        return bool(select.select([pidfd], [], [], PATIENCE)[0])
    finally:
        os.close(pidfd)


def test_an_agent_that_takes_no_messages_does_not_hold_the_worker_up(agent: Agent) -> None:
    body = (
        "class Mine(Worker):\n"
        " async def run(self):\n"
        "  for number in range(2000): self.context.event('noise', str(number))"
    )
    began = time.monotonic()
    assert end(agent.start(body))[0] == 0  # nobody reads the socket, and its queue is short
    assert time.monotonic() - began < 10


def test_only_the_latest_status_is_sent_and_at_most_twice_a_second(agent: Agent) -> None:
    body = (
        "class Mine(Worker):\n"
        " async def run(self):\n"
        "  for number in range(100):\n"
        "   self.context.status(f'number {number}', {'number': number, 'ratio': 0.5, 'none': None})\n"
        "   await asyncio.sleep(0.006)"
    )
    process = agent.start(body)
    said = []
    while "STOPPING" not in (fields := agent.message()):
        if "STATUS" in fields:
            said.append((fields["STATUS"], json.loads(fields["X_FIGURES"])))
    assert end(process)[0] == 0
    assert said[0] == ("number 0", {"number": 0, "ratio": 0.5, "none": None})
    assert said[-1][0] == "number 99"
    assert 2 <= len(said) <= 4


def test_an_event_is_one_bounded_line_of_json(agent: Agent) -> None:
    body = (
        "class Mine(Worker):\n"
        " async def run(self):\n"
        "  self.context.event('small', 'two\\nlines \\U0001f600', packets=3)\n"
        "  self.context.event('large', '\\U0001f600' * 5000, blob='y' * 10000)"
    )
    agent.start(body)
    assert json.loads(agent.wait_for("X_EVENT")) == {
        "kind": "small",
        "message": "two lines \U0001f600",
        "data": {"packets": 3},
    }
    large = agent.wait_for("X_EVENT")
    assert len(large) <= FIELD_LIMIT
    assert json.loads(large)["data"] == {}
    assert json.loads(large)["message"].endswith("…")


def test_half_a_pair_of_surrogates_loses_no_event(agent: Agent) -> None:
    """As of a name that is no UTF-8, by ``os.fsdecode``."""
    body = (
        "class Mine(Worker):\n"
        " async def run(self):\n"
        "  self.context.event('odd', 'by \\udcff', name='\\udcff\\ud800 \\U0001f600 \\\\ud800', packets=3)\n"
    )
    agent.start(body)
    event = understand({"X_EVENT": agent.wait_for("X_EVENT")}).event
    assert event == ChildEvent("odd", "by", {"name": "?? \U0001f600 \\ud800", "packets": 3})


def test_a_program_that_the_worker_starts_does_not_inherit_the_notify_socket(agent: Agent) -> None:
    body = (
        "class Mine(Worker):\n"
        " async def run(self): print(os.environ.get('NOTIFY_SOCKET'), flush=True)\n"
        " async def stop(self): pass"
    )
    assert end(agent.start(body)) == (0, "None\n", "")


def test_started_by_hand_it_says_what_is_missing(agent: Agent) -> None:
    del agent.environment["SERVICE_CONFIG"]
    returncode, _, errors = end(agent.start("Mine = Worker"))
    assert (returncode, errors) == (1, "SERVICE_CONFIG is not set: a worker is started by the agent, not by hand\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"kind":"command","name":"x","command":["a"]}',
        b'{"kind":"capture"}',
        b'{"kind":"\xff"}',
    ],
)
def test_settings_that_are_none_are_a_mistake_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "service.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not the settings of a capture, a scan or the watch") as raised:
        context_from({"SERVICE_CONFIG": str(path), "SERVICE_DATA": str(tmp_path)})
    assert "\n" not in str(raised.value)


def test_settings_that_cannot_be_read_are_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="cannot be read: No such file"):
        context_from({"SERVICE_CONFIG": str(tmp_path / "none"), "SERVICE_DATA": str(tmp_path)})


class Recorder:
    """A worker that notes its phases. ``behave`` is awaited in each."""

    def __init__(self, behave: dict[str, Callable[[], object]] | None = None) -> None:
        self.phases: list[str] = []
        self._behave = behave or {}

    async def _phase(self, name: str) -> None:
        self.phases.append(name)
        if name in self._behave:
            await self._behave[name]()  # type: ignore[misc]  # tests pass coroutine functions
        self.phases.append(f"{name} ended")

    async def start(self) -> None:
        await self._phase("start")

    async def run(self) -> None:
        await self._phase("run")

    async def stop(self) -> None:
        await self._phase("stop")


def context(tmp_path: Path) -> Context:
    service = Capture(name="edge", interfaces=("lo",), heartbeat=Heartbeat())
    return Context(service, tmp_path, SystemdNotifier({}))


def test_stop_runs_to_its_end_exactly_once_through_any_number_of_cancellations(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        gate = asyncio.Event()
        worker = Recorder({"run": asyncio.Event().wait, "stop": gate.wait})
        life = asyncio.create_task(live(worker, context(tmp_path)))
        while worker.phases[-1:] != ["run"]:
            await asyncio.sleep(0)
        for _ in range(5):
            life.cancel()
            await asyncio.sleep(0)
        while worker.phases[-1:] != ["stop"]:
            await asyncio.sleep(0)
        life.cancel()
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await life
        return worker.phases

    assert asyncio.run(scenario()) == ["start", "start ended", "run", "stop", "stop ended"]


def test_a_cancellation_while_stopping_is_delivered_after_the_stop(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        gate = asyncio.Event()
        worker = Recorder({"stop": gate.wait})
        life = asyncio.create_task(live(worker, context(tmp_path)))
        while worker.phases[-1:] != ["stop"]:
            await asyncio.sleep(0)
        life.cancel()
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await life
        return worker.phases

    assert asyncio.run(scenario())[-1] == "stop ended"


def test_a_stop_that_was_asked_for_before_the_start_still_ends_in_one_stop(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        worker, given = Recorder({"run": asyncio.Event().wait}), context(tmp_path)
        given.stopping.set()
        await live(worker, given)
        return worker.phases

    phases = asyncio.run(scenario())
    assert phases.count("stop") == 1
    assert phases[-1] == "stop ended"


def test_a_start_that_fails_is_followed_by_a_stop(tmp_path: Path) -> None:
    async def fail() -> None:
        raise CaptureFailure("no")

    worker = Recorder({"start": fail})
    with pytest.raises(CaptureFailure, match="no"):
        asyncio.run(live(worker, context(tmp_path)))
    assert worker.phases == ["start", "stop", "stop ended"]
