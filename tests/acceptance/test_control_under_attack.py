"""The control socket under attack, while services die: whoever talks to it, and however, supervision goes on.

The attackers are processes of their own, forked here, with another user's credentials where that matters. What counts
is measured meanwhile from outside: how soon a killed worker is replaced, whether systemd would still see its
keep-alive, and whether an administrator still gets things done.
"""

from __future__ import annotations

import itertools
import json
import os
import pwd
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agent.linux.sockets import connect_unix
from tests.harness import PATIENCE, Agent, notify_socket, wait_until

SEED = int(os.environ.get("HAMMER_SEED", "7"))
SIEGE = 2.5
"""Seconds of each attack, at least."""
WATCHDOG = SIEGE
"""WatchdogSec= of the agent under attack: a longer silence would get it killed, and who is never heard is that long."""
SOON = 1.0
"""Seconds within which a killed worker is replaced."""
SERVED = 3.0
"""Seconds within which an administrator who restarts a service, and waits for it, is answered."""
VICTIMS = 24
NOBODY = pwd.getpwnam("nobody").pw_uid
GROUP = "games"
"""A group that every Debian has."""

Attack = Callable[[Path, random.Random], None]


@pytest.fixture
def agent(program: Path | None) -> Iterator[Agent]:
    """An agent whose socket everybody can reach, as below /srv; pytest's own directories are closed to others."""
    directory = Path(tempfile.mkdtemp(prefix="siege-"))
    directory.chmod(0o755)
    made = Agent(directory / "srv", program)
    yield made
    made.clean()
    shutil.rmtree(directory)


def declaration(prefix: Path) -> str:
    """Victims that say who they are the moment they run, somebody for the administrator, and a noisy neighbour."""
    told = prefix / "told"
    os.mkfifo(told)
    victims = "".join(
        f"""
[service.victim_{number}]
kind = "command"
command = ["/bin/sh", "-c", "echo $$$$ > {told}; exec sleep 86521"]
"""
        for number in range(VICTIMS)
    )
    return (
        f'[agent]\ngroup = "{GROUP}"\n{victims}'
        + """
[service.idle]
kind = "command"
command = ["/bin/sleep", "86522"]

[service.noisy]
kind = "command"
command = ["/bin/sh", "-c", '''
while :; do
    seq 2000
    systemd-notify 'X_EVENT={"kind": "noise", "message": "one more event"}'
    sleep 0.02
done
''']
log = { size = "256KiB", keep = 2 }
"""
    )


# -- the attackers ----------------------------------------------------------------------------------------------------


def garbage(path: Path, rng: random.Random) -> None:
    """Random bytes, and requests with random damage."""
    while True:
        request = bytearray(b"POST /v1/services/idle/restart?wait=true HTTP/1.1\r\nHost: localhost\r\n")
        request += rng.choice((b"Content-Length: 9", b"Transfer-Encoding: chunked", b"Expect: 100-continue"))
        request += b"\r\n\r\n" + rng.choice((b"", b"5\r\nhello\r\n", b"GET "))
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(request))
            request[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        with suppress(OSError), connect_unix(path, 0.2) as connection:
            connection.sendall(rng.choice((bytes(request), rng.randbytes(rng.randint(1, 4000)))))
            while connection.recv(65536):
                pass


def half_open(path: Path, rng: random.Random) -> None:
    """As many connections as there are, that say nothing or half of something, and stay."""
    held: list[socket.socket] = []
    while True:
        with suppress(OSError):
            connection = connect_unix(path, 1.0)
            connection.sendall(rng.choice((b"", b"GET /v1/status HTTP/1.1\r\nHost: loc", b"POST /v1/reload HTTP/1.1")))
            held.append(connection)
        held = [one for one in held if not hung_up(one)] if len(held) >= 60 else held
        if len(held) >= 60:
            time.sleep(0.05)


def hung_up(connection: socket.socket) -> bool:
    """Whether the other end has closed this; what it said is read and forgotten."""
    try:
        return not connection.recv(65536, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def crowd(path: Path, rng: random.Random) -> None:
    """Fifty clients at a time, each of which asks for everything."""
    while True:
        with ExitStack() as stack, suppress(OSError):
            clients = [stack.enter_context(connect_unix(path, 10.0)) for _ in range(50)]
            for client in clients:
                client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            for client in clients:
                while client.recv(65536):
                    pass


def deaf(path: Path, rng: random.Random) -> None:
    """Followers of everything that is noisy, who never read a byte."""
    held: list[socket.socket] = []
    while True:
        with suppress(OSError):
            connection = connect_unix(path, 1.0)
            what = rng.choice((b"/v1/events?after=1&follow=true", b"/v1/logs/noisy?n=10000&follow=true"))
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % what)
            held.append(connection)
        if len(held) >= 30:
            time.sleep(0.1)
            held.pop(rng.randrange(len(held))).close()


def glutton(path: Path, rng: random.Random) -> None:
    """Headers and bodies without end."""
    starts = (
        b"GET /v1/status HTTP/1.1\r\nX-Long: ",
        b"GET /v1/status?" + b"a=b&" * 3000,
        b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999\r\n\r\n",
        b"POST /v1/services/idle/stop HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    )
    while True:
        with suppress(OSError), connect_unix(path, 1.0) as connection:
            connection.sendall(rng.choice(starts))
            for _ in range(200):
                connection.sendall(b"x" * 65536)


def stranger(path: Path, rng: random.Random) -> None:
    """Ask again and again, without listening to the answer."""
    while True:
        with suppress(OSError), connect_unix(path, 1.0) as connection:
            connection.sendall(b"POST /v1/services/idle/stop HTTP/1.1\r\nHost: localhost\r\n\r\n" * rng.randint(1, 20))


def browser(path: Path, rng: random.Random) -> None:
    """A web page that found a way to the socket."""
    signs = (b"Host: evil.example", b"Host: localhost\r\nOrigin: null", b"Host: localhost\r\nReferer: http://a/")
    while True:
        with suppress(OSError), connect_unix(path, 1.0) as connection:
            for _ in range(20):
                sign = rng.choice(signs)
                connection.sendall(b"POST /v1/services/idle/stop HTTP/1.1\r\n%s\r\nContent-Length: 0\r\n\r\n" % sign)
                if not connection.recv(65536):
                    break


@contextmanager
def attacked(path: Path, attack: Attack, count: int, uid: int, groups: Sequence[int] = ()) -> Iterator[None]:
    """``count`` processes attack as that user, for as long as the block runs."""
    attackers = []
    for number in range(count):
        pid = os.fork()
        if not pid:
            try:
                os.setgroups(groups)
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                attack(path, random.Random(SEED * 100 + number))
            finally:
                os._exit(1)
        attackers.append(pid)
    try:
        yield
        gone = [pid for pid in attackers if os.waitpid(pid, os.WNOHANG)[0]]
        attackers = [pid for pid in attackers if pid not in gone]
        assert not gone, "an attacker gave up: this was no attack"
    finally:
        for pid in attackers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# -- the vital signs --------------------------------------------------------------------------------------------------


class KeepAlive(threading.Thread):
    """Stands for systemd: writes down when WATCHDOG=1 came."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(daemon=True)
        self.heard = [time.monotonic()]
        self._listener = listener

    def run(self) -> None:
        self._listener.settimeout(PATIENCE)
        with suppress(OSError):
            while message := self._listener.recv(65536):
                if b"WATCHDOG=1" in message.split(b"\n"):
                    self.heard.append(time.monotonic())

    def longest_silence(self, until: float) -> float:
        moments = [*self.heard, until]
        return max(after - before for before, after in itertools.pairwise(moments))


def kill(pid: int) -> float:
    """SIGKILL, and the moment at which the process is gone."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], PATIENCE)[0]
        return time.monotonic()
    finally:
        os.close(pidfd)


def next_told(told: int) -> int:
    """The PID that a victim reports as soon as it runs."""
    assert select.select([told], [], [], PATIENCE)[0], "no worker came in place of the killed one"
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(told, 1)
    return int(line)


ATTACKS: dict[str, tuple[Attack, int, int]] = {
    "malformed HTTP": (garbage, 2, 0),
    "half-open connections": (half_open, 3, 0),
    "half-open connections of a stranger": (half_open, 5, NOBODY),
    "two hundred clients": (crowd, 4, 0),
    "followers that never read": (deaf, 2, 0),
    "endless headers and bodies": (glutton, 2, 0),
    "a stranger that never gives up": (stranger, 2, NOBODY),
    "web pages": (browser, 2, 0),
}


@contextmanager
def besieged(agent: Agent, listener: socket.socket, address: str) -> Iterator[int]:
    """The agent with its victims up; the block gets the pipe in which they tell that they run."""
    agent.declare(declaration(agent.prefix))
    told = os.open(agent.prefix / "told", os.O_RDWR)
    try:
        agent.start(environ={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}, wait=False)
        assert b"READY=1" in await_ready(listener)
        yield told
        states = {service["name"]: service["state"] for service in agent.status()["services"]}
        assert set(states.values()) == {"running"}, states
        assert agent.stop() == 0
    finally:
        os.close(told)
    log = agent.prefix / "log" / "agent.log"
    assert not log.exists(), log.read_text()


def await_ready(listener: socket.socket) -> bytes:
    """Everything that the agent has told systemd until it was ready."""
    listener.settimeout(PATIENCE)
    message = b""
    while b"READY=1" not in message:
        message = listener.recv(65536)
    return message


@pytest.mark.parametrize("name", ATTACKS)
def test_under_attack_workers_are_replaced_systemd_is_told_and_the_administrator_is_served(
    agent: Agent, name: str
) -> None:
    attack, count, uid = ATTACKS[name]
    with notify_socket(agent.prefix) as (listener, address), besieged(agent, listener, address) as told:
        living = [next_told(told) for _ in range(VICTIMS)]
        agent.status()  # opens what the first question opens
        descriptors = open_descriptors(agent.pid)
        replaced, served = [], []
        with attacked(agent.prefix / "run" / "agent.sock", attack, count, uid):
            keep_alive = KeepAlive(listener)
            keep_alive.start()
            begun = time.monotonic()
            while time.monotonic() - begun < SIEGE:
                gone = kill(living.pop())
                next_told(told)
                replaced.append(time.monotonic() - gone)
                asked = time.monotonic()
                assert agent.act("restart", "idle")["ok"]
                served.append(time.monotonic() - asked)
            silence = keep_alive.longest_silence(time.monotonic())
        print(f"{name}: replaced {max(replaced):.3f}, served {max(served):.3f}, silence {silence:.3f}")
        assert max(replaced) < SOON
        assert max(served) < SERVED
        assert silence < WATCHDOG
        wait_until(
            lambda: open_descriptors(agent.pid) <= descriptors,
            lambda: f"left open: {open_descriptors(agent.pid) - descriptors}",
        )


def open_descriptors(pid: int) -> Counter[str]:
    """What the open descriptors of a process are, and how many of each; but for logs, which the first line opens."""
    found: Counter[str] = Counter()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[re.sub("[0-9]+", "", str(path.readlink()))] += 1
    return Counter({name: count for name, count in found.items() if ".log" not in name})


def curl(agent: Agent, who: Sequence[str], *request: str) -> tuple[int, dict[str, Any]]:
    """Status and body, as a user with these credentials (options of setpriv(1)) gets them."""
    path = str(agent.prefix / "run" / "agent.sock")
    command = [
        "setpriv",
        *who,
        "curl",
        "-sS",
        "--max-time",
        "10",
        "-w",
        "%{http_code}",
        "--unix-socket",
        path,
        *request,
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    body, _, status = output.rpartition("\n")
    return int(status), json.loads(body)


ROOT = ("--reuid=0",)
STRANGER = ("--reuid=nobody", "--regid=nogroup", "--clear-groups")
READER = ("--reuid=nobody", "--regid=nogroup", f"--groups={GROUP}")
STATUS = "http://localhost/v1/status"
STOP = "http://localhost/v1/services/idle/stop"
REFUSALS: tuple[tuple[Sequence[str], tuple[str, ...], int, str], ...] = (
    (STRANGER, (STATUS,), 403, f"members of the group {GROUP} may"),
    (STRANGER, ("-XPOST", STOP), 403, "may not talk to this agent"),
    (STRANGER, ("http://localhost/nowhere",), 403, "may not talk to this agent"),
    (READER, ("-XPOST", STOP), 403, "may only read"),
    (READER, ("http://localhost/v1/config",), 403, "may only read"),
    (ROOT, ("-XPOST", "-HHost: evil.example", STOP), 421, "to no other"),
    (ROOT, ("-XPOST", "-HOrigin: http://localhost", STOP), 403, "Origin"),
    (ROOT, ("-XPOST", "-HReferer: http://localhost/", STOP), 403, "Referer"),
    (ROOT, ("-HHost: localhost:80", STATUS), 421, "to no other"),
)


def test_while_workers_die_everybody_gets_what_he_may_have_and_else_a_clear_refusal(agent: Agent) -> None:
    with notify_socket(agent.prefix) as (listener, address), besieged(agent, listener, address) as told:
        living = [next_told(told) for _ in range(VICTIMS)]
        idle = agent.service("idle")["pid"]
        for who, request, expected, words in REFUSALS:
            kill(living.pop())
            status, body = curl(agent, who, *request)
            assert (status, body["error"]["status"]) == (expected, expected)
            assert words in body["error"]["message"]
            next_told(told)
        status, body = curl(agent, READER, STATUS)
        assert status == 200
        assert {service["name"] for service in body["services"]} >= {"idle", "noisy", "victim_0"}
        assert agent.service("idle")["pid"] == idle
