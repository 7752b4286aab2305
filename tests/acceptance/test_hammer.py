"""A storm: everything that can be done to one agent, at random, at once; and afterwards everything is in its place.

The storm draws from ``SEED``, so that what was asked for can be asked for again; how the threads interleave is up to
the kernel, and none of what is claimed afterwards depends on it. ``HAMMER_SEED`` in the environment chooses another.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import tomli_w

from agent.control.client import Client
from agent.errors import DeclarationError, NotRunning, RequestRefused
from agent.linux.sockets import connect_unix
from tests.harness import Agent, environment, marked, wait_until

SEED = int(os.environ.get("HAMMER_SEED", "20"))
STORM = 6.0
"""Seconds of storm."""
ENOUGH = 150
"""Deeds after which a storm is at its height."""
GROWTH = 4 * 1024 * 1024
"""Bytes that the agent may have grown by: its ring of the newest 1,000 events fills during the storm."""

Table = dict[str, Any]


def steady(number: int, **more: Any) -> Table:
    return {"kind": "command", "command": ["/bin/sleep", str(number)], "stop_timeout": "2s", **more}


def script(text: str, **more: Any) -> Table:
    # A dollar sign is written twice in a declaration.
    return {"kind": "command", "command": ["/bin/sh", "-c", text.replace("$", "$$")], "stop_timeout": "2s", **more}


SERVICES: dict[str, Table] = {
    "one": steady(86501, max_restarts=1000),
    "two": steady(86502, restart="unless-stopped"),
    "three": steady(86503, restart="on-failure"),
    "four": steady(86504, max_restarts=1000, environment={"COLOUR": "green"}),
    "crasher": script("sleep 0.05; exit 2", max_restarts=3),
    "quitter": script("exit 1"),
    "deaf": script("trap '' TERM; while :; do sleep 86505; done", stop_timeout="300ms"),
    "forker": script("(setsid sh -c 'sleep 86506 & sleep 86506 &' &) ; exec sleep 86507", max_restarts=1000),
    "polite": script("systemd-notify --ready --status=hello; exec sleep 86508", ready="notify", start_timeout="5s"),
    "pulse": script(
        "while :; do touch $SERVICE_HEARTBEAT_FILE; sleep 0.2; done",
        heartbeat={"interval": "200ms", "timeout": "1s"},
        ready="heartbeat",
        start_timeout="5s",
        max_restarts=1000,
    ),
    "tick": script("sleep 0.1", every="1s", timeout="1500ms"),
    "edge": {
        "kind": "capture",
        "interfaces": ["lo"],
        "filter": "udp port 9",
        "budget": "4MiB",
        "rotate": {"size": "1MiB", "every": "1s"},
        "start_timeout": "8s",
        "stop_timeout": "2s",
        "max_restarts": 1000,
    },
    "local": {
        "kind": "scan",
        "targets": ["127.0.0.1"],
        "ports": "9",
        "every": "1h",
        "start_timeout": "8s",
        "stop_timeout": "2s",
    },
}
STEADY = ("one", "two", "three", "four", "deaf", "forker", "polite", "pulse", "edge")
"""Services that run once they were asked to, whatever happened before."""

VARIATIONS: tuple[tuple[str, Table], ...] = (
    ("one", {"command": ["/bin/sleep", "86511"]}),
    ("two", {"enabled": False}),
    ("three", {"restart": "no"}),
    ("three", {"restart": "always", "stop_signal": "INT"}),
    ("four", {"environment": {"COLOUR": "blue"}}),
    ("four", {"log": {"size": "16KiB", "keep": 1}}),
    ("crasher", {"max_restarts": 1}),
    ("deaf", {"stop_timeout": "200ms"}),
    ("forker", {"enabled": False}),
    ("polite", {"ready": "immediate"}),
    ("pulse", {"heartbeat": {"interval": "100ms", "timeout": "700ms"}}),
    ("tick", {"every": "2s"}),
    ("edge", {"filter": "udp port 99"}),
)
MISTAKES = ("[service.one\n", '[service.bad-name]\nkind = "command"\n', "[service.one]\ncolour = 1\n", "\xff\0")


def declaration(rng: random.Random) -> str:
    """The services, some of them missing, some varied; now and then one that was never there, or a mistake."""
    if rng.random() < 0.2:
        return rng.choice(MISTAKES)
    services = {name: dict(table) for name, table in SERVICES.items()}
    for name, changes in rng.sample(VARIATIONS, rng.randint(0, 3)):
        services[name] |= changes
    for name in rng.sample(sorted(services), rng.choice((0, 0, 1, 2))):
        del services[name]
    if rng.random() < 0.3:
        services["guest"] = steady(86509)
    agent = {"agent": {"server": "elsewhere"}} if rng.random() < 0.05 else {}
    return tomli_w.dumps({**agent, "service": services})


# -- the storm --------------------------------------------------------------------------------------------------------


class Storm:
    """Threads that do their worst until they are told to calm down. What they find wrong is kept for the test."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.pid = agent.pid
        self.client = Client(agent.prefix / "run" / "agent.sock", timeout=30.0)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._calm = threading.Event()
        troubles = [self.command, self.command, self.command, self.reload, self.kill, self.kill]
        troubles += [self.run_once, self.follow, self.dawdle, self.ask]
        self._threads = [
            threading.Thread(target=self._go_on, args=(trouble, random.Random(SEED * 100 + number)))
            for number, trouble in enumerate(troubles)
        ]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def calm(self) -> None:
        """Begin nothing new; what goes wrong from now on is the agent's end, and no mistake."""
        self._calm.set()

    def join(self) -> None:
        """Wait for the last of it, and fail with everything that went wrong."""
        for thread in self._threads:
            thread.join()
        print(f"HAMMER_SEED={SEED}: {dict(self.done)}")
        assert not self.wrong, "\n".join([*self.wrong, self.agent.console()])

    def _go_on(self, trouble: Callable[[random.Random], None], rng: random.Random) -> None:
        while not self._calm.is_set():
            try:
                trouble(rng)
            except DeclarationError:
                self.done["declaration refused"] += 1
            except RequestRefused as refusal:
                # A service that a reload has just taken away; nothing else is a reason to say no.
                self.done[f"status {refusal.status}"] += 1
                if refusal.status != 404 and not self._calm.is_set():
                    self.wrong.append(f"{trouble.__name__}: {refusal.status} {refusal}")
            except Exception as error:
                if not self._calm.is_set():
                    self.wrong.append(f"{trouble.__name__}: {error!r}")
            else:
                self.done[trouble.__name__] += 1

    def command(self, rng: random.Random) -> None:
        action, name = rng.choice(("start", "stop", "restart")), rng.choice(sorted(SERVICES))
        query = {"wait": "false"} if rng.random() < 0.5 else None
        try:
            outcome = self.client.request("POST", f"/v1/services/{name}/{action}", query)
        except NotRunning as error:
            raise AssertionError(f"{action} {name} {query}: {error}") from error
        if not outcome["message"]:
            self.wrong.append(f"an outcome that says nothing: {outcome}")
        time.sleep(rng.random() * 0.05)

    def reload(self, rng: random.Random) -> None:
        self.agent.declare(declaration(rng))
        self.client.request("POST", "/v1/reload")
        time.sleep(rng.random() * 0.3)

    def kill(self, rng: random.Random) -> None:
        victims = workers(self.pid)
        if victims:
            victim, number = rng.choice(victims), rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP))
            # Only who has a mark has executed its program: stopped before that, it would hold up whoever started it.
            if victim.mark or number != signal.SIGSTOP:
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(victim.pid).send_signal(number)
        time.sleep(rng.random() * 0.1)

    def run_once(self, rng: random.Random) -> None:
        code = self.agent.ctl("run-once", "tick").returncode
        # 1: not declared at the moment, or a mistake in the declaration. 2: it runs already.
        if code not in (0, 1, 2):
            self.wrong.append(f"run-once exited {code}")
        time.sleep(rng.random())

    def follow(self, rng: random.Random) -> None:
        """Follow something for a moment, and hang up in the middle of it."""
        path = rng.choice(("/v1/events", "/v1/logs/four", "/v1/logs/edge"))
        with self.connected(f"GET {path}?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
            if rng.random() < 0.7:
                connection.recv(65536)
            time.sleep(rng.random() * 0.1)

    def dawdle(self, rng: random.Random) -> None:
        """Ask for a lot, and take it byte by byte."""
        with self.connected("GET /v1/events?after=0&follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
            for _ in range(rng.randint(0, 20)):
                connection.recv(1)
                time.sleep(0.02)

    def ask(self, rng: random.Random) -> None:
        path = rng.choice(("/v1/status", "/v1/timers", "/v1/config", "/v1/openapi.json", "/v1/services/deaf"))
        self.client.request("GET", path)
        time.sleep(rng.random() * 0.1)

    def connected(self, request: str) -> socket.socket:
        """A connection with something asked on it, to be used as the one who asked likes."""
        connection = connect_unix(self.agent.prefix / "run" / "agent.sock", 30.0)
        connection.sendall(request.encode())
        return connection


# -- the calm after it ------------------------------------------------------------------------------------------------


def descendants(pid: int) -> list[psutil.Process]:
    """Every live process below one. The agent is a subreaper, so nothing that it started is anywhere else."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Worker(NamedTuple):
    """One process as the kernel has it. ``mark`` is its AGENT_MARK, ``start`` its start time in clock ticks."""

    pid: int
    mark: str
    start: int
    command: str


def workers(pid: int) -> list[Worker]:
    """The agent's descendants, in one look."""
    found = []
    for process in descendants(pid):
        with suppress(psutil.NoSuchProcess, OSError):
            directory = Path(f"/proc/{process.pid}")
            start = int((directory / "stat").read_bytes().rpartition(b") ")[2].split()[19])  # proc_pid_stat(5)
            given = dict(entry.split(b"=", 1) for entry in environment(process.pid).split(b"\0") if b"=" in entry)
            mark = given.get(b"AGENT_MARK", b"").decode()
            found.append(Worker(process.pid, mark, start, " ".join(process.cmdline())))
    return found


class Scene(NamedTuple):
    """What the agent says, what the kernel says, and what the PID files say, at one moment."""

    services: dict[str, Table]
    workers: list[Worker]
    pid_files: dict[str, int]


def look(agent: Agent) -> Scene:
    """A scene during which nothing moved: what the agent says before and after it is the same."""
    scenes: list[Scene] = []

    def still() -> bool:
        before = stand(agent)
        files = {}
        for path in (agent.prefix / "run").glob("*.pid"):
            with suppress(FileNotFoundError):
                files[path.stem] = int(path.read_text())
        scene = Scene(agent_services(agent), workers(agent.pid), files)
        scenes[:] = [scene]
        return before == stand(agent)

    wait_until(still, lambda: f"never a moment of calm: {scenes[0].services}")
    return scenes[0]


def agent_services(agent: Agent) -> dict[str, Table]:
    return {service["name"]: service for service in agent.status()["services"]}


def stand(agent: Agent) -> dict[str, tuple[str, int | None, float]]:
    return {name: (one["state"], one["pid"], one["since"]) for name, one in agent_services(agent).items()}


def descriptors(pid: int) -> Counter[str]:
    """What the open descriptors of a process are, and how many of each."""
    found: Counter[str] = Counter()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found[re.sub(r"\[[0-9]+\]|[0-9]+", "", str(path.readlink()))] += 1
    return found


def memory(pid: int) -> int:
    """Proportional set size in bytes, proc_pid_smaps(5)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no PSS")


def act_on_all(agent: Agent, action: str) -> dict[str, Table]:
    """Everything at once, as ``agentctl start a b c`` would; outcomes by name."""
    outcomes: dict[str, Table] = {}
    threads = [
        threading.Thread(target=lambda name=name: outcomes.update({name: agent.act(action, name)})) for name in SERVICES
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def rest(agent: Agent) -> None:
    """Stop everything, and see that nothing is left of it."""
    for name, outcome in act_on_all(agent, "stop").items():
        assert outcome["ok"], (name, outcome)
    assert not descendants(agent.pid)


def history(agent: Agent) -> list[Table]:
    """All events there are, page by page."""
    found: list[Table] = []
    while page := agent.events(after=str(found[-1]["cursor"] if found else 1), limit="5000"):
        found += page
    return found


def test_after_a_storm_everything_is_in_its_place(agent: Agent, wrapper: tuple[str, ...], containment: str) -> None:
    agent.declare(tomli_w.dumps({"service": SERVICES}))
    agent.start(wrapper=wrapper)
    assert agent.status()["agent"]["containment"] == containment
    rest(agent)
    open_before = descriptors(agent.pid)
    act_on_all(agent, "start")
    memory_before = memory(agent.pid)

    storm = Storm(agent)
    storm.begin()
    time.sleep(STORM)
    storm.calm()
    storm.join()
    assert min(storm.done[name] for name in ("command", "reload", "kill", "run_once", "follow", "dawdle", "ask")) > 0

    agent.declare(tomli_w.dumps({"service": SERVICES}))
    agent.client.request("POST", "/v1/reload")
    act_on_all(agent, "start")
    assert_in_place(agent)
    assert_quick(agent)
    assert memory(agent.pid) - memory_before < GROWTH

    rest(agent)
    # What clients left open is closed in the server's own time.
    wait_until(lambda: descriptors(agent.pid) <= open_before, lambda: f"{descriptors(agent.pid) - open_before}")
    assert_told(history(agent))
    assert agent.stop() == 0
    assert_nothing_left(agent)


def test_killed_in_the_middle_of_a_storm_it_finds_everything_again_and_told_to_stop_in_another_it_leaves_nothing(
    agent: Agent, wrapper: tuple[str, ...]
) -> None:
    agent.declare(tomli_w.dumps({"service": SERVICES}))
    agent.start(wrapper=wrapper)
    storm = Storm(agent)
    storm.begin()
    wait_until(lambda: storm.done.total() > ENOUGH)
    storm.calm()
    agent.kill()
    storm.join()
    # It may have been in the middle of a write.
    scratch = {path.name for path in (agent.prefix / "run").glob(".*")}

    agent.declare(tomli_w.dumps({"service": SERVICES}))
    agent.start(wrapper=wrapper)
    act_on_all(agent, "start")
    assert_in_place(agent)

    storm = Storm(agent)
    storm.begin()
    wait_until(lambda: storm.done.total() > ENOUGH)
    with storm.connected("GET /v1/ping HTTP/1.1\r\nHost: localhost\r\n\r\n") as idle:
        assert idle.recv(65536)
        storm.calm()
        assert agent.stop() == 0, agent.console()[-2000:]
        storm.join()
    assert_nothing_left(agent, besides=scratch)


BUDGET = "scan.budget"
"""What scans have sent (docs/scan.md): an agent that is started again goes on with it."""


def assert_nothing_left(agent: Agent, besides: Collection[str] = ()) -> None:
    assert not marked(agent.prefix)
    left = {path.name for path in (agent.prefix / "run").iterdir() if path.suffix != ".lock"}
    assert left <= {BUDGET, *besides}
    assert not list((agent.prefix / "tmp").iterdir())
    assert not (agent.prefix / "log" / "agent.log").exists(), (agent.prefix / "log" / "agent.log").read_text()


def assert_in_place(agent: Agent) -> None:
    """Every service is where it should be, by one process tree of its own, as its PID file says."""

    def settled() -> bool:
        services = agent_services(agent)
        return all(services[name]["state"] == "running" for name in STEADY)

    wait_until(settled, lambda: f"not everything runs: {stand(agent)}\n{agent.console()[-4000:]}")
    scene = look(agent)
    assert scene.services.keys() == SERVICES.keys()
    running = {}
    for name, service in scene.services.items():
        assert service["state"] in ("running", "waiting", "completed") or service["message"], service
        if service["pid"] is not None:
            running[name] = service["pid"]
    assert scene.pid_files == {**running, "agent": agent.pid}
    instances = {worker.mark.partition(":")[0] for worker in scene.workers}
    assert len(instances) == 1, scene.workers
    for worker in scene.workers:
        name = worker.mark.partition(":")[2]
        assert name in running, f"a process of a service that does not run: {worker}"
        (main,) = [one for one in scene.workers if one.pid == running[name]]
        assert worker.start >= main.start, f"a process of an earlier run: {worker} is older than {main}"


def assert_quick(agent: Agent) -> None:
    for _ in range(20):
        begun = time.monotonic()
        agent.status()
        assert time.monotonic() - begun < 1.0


def assert_told(events: list[Table]) -> None:
    """Cursors only grow; a run that started has ended, with that number, before the next one of its service started."""
    assert all(before["cursor"] < after["cursor"] for before, after in itertools.pairwise(events))
    assert not [event for event in events if event["kind"] == "bug"]
    going: dict[str, int] = {}
    for event in events:
        name, kind = event["service"], event["kind"]
        if kind == "started":
            assert name not in going, f"started before run {going[name]} had ended: {event}"
            going[name] = event["data"]["run"]
        elif kind == "exited":
            assert going.pop(name, None) == event["data"]["run"], event
    assert not going, f"started, and never ended: {going}"
