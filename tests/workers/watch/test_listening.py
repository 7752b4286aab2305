"""Sockets of this host with who holds them: real listeners, in a real cgroup, seen by root and by somebody else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.linux.cgroup_place import home
from agent.workers.watch import listening
from agent.workers.watch.listening import Listener, listeners

SERVER = """
import os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
tcp = socket.create_server(("127.0.0.1", 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(20900, 21000):
    try:
        udp.bind(("127.0.0.1", port))
        break
    except OSError:
        pass
print(tcp.getsockname()[1], udp.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """As systemd makes it for a unit."""
    mount, _ = home()
    directory = mount.point / f"drift-{uuid.uuid4().hex[:8]}.slice" / "web.service"
    directory.mkdir(parents=True)
    yield directory
    directory.rmdir()
    directory.parent.rmdir()


@pytest.fixture
def server(cgroup: Path) -> Iterator[tuple[int, int, int]]:
    """A process of a unit that listens: its PID, and its ports of TCP and UDP."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(cgroup)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        tcp, udp = map(int, process.stdout.readline().split())
        yield process.pid, tcp, udp
        process.communicate()


def found(protocol: str, port: int) -> Listener:
    (one,) = (one for one in listeners() if (one.protocol, one.port) == (protocol, port))
    return one


def test_who_listens_is_told_with_process_and_unit(server: tuple[int, int, int]) -> None:
    pid, tcp, udp = server
    for protocol, port in (("tcp", tcp), ("udp", udp)):
        one = found(protocol, port)
        assert (one.address, one.uid, one.owner.unit) == ("127.0.0.1", os.getuid(), "web.service")
        assert [process.pid for process in one.processes] == [pid]
        assert one.processes[0].name.startswith("python")
        assert abs(one.since - Path(f"/proc/{pid}").stat().st_ctime) < 5
        assert one.loopback
        assert not one.wildcard


def test_somebody_else_learns_the_user_and_the_unit(server: tuple[int, int, int]) -> None:
    _, tcp, _ = server
    seen = asked_as_nobody(tcp)
    assert seen == {"pids": [], "uid": os.getuid(), "unit": "web.service", "since": 0.0}


def asked_as_nobody(port: int) -> Any:
    ask = (
        "import json, os, sys\nfrom agent.workers.watch.listening import listeners\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "(one,) = [one for one in listeners() if (one.protocol, one.port) == ('tcp', int(sys.argv[1]))]\n"
        "print(json.dumps({'pids': [process.pid for process in one.processes], 'uid': one.uid,"
        " 'unit': one.owner.unit, 'since': one.since}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, str(port)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ASK = """
import json, os, sys
from agent.workers.watch.listening import listeners
if "nobody" in sys.argv:
    os.setgid(65534); os.setuid(65534)
(one,) = [one for one in listeners() if not one.space]
print(json.dumps([[process.name for process in one.processes], one.owner.container]), flush=True)
"""
ODD = r"""
import ctypes, os, subprocess, sys
import socket
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
ctypes.CDLL(None).prctl(15, b"\xff\xfe\x1bbad", 0, 0, 0)
kept = socket.create_server(("127.0.0.1", 4444))
for who in ("root", "nobody"):
    subprocess.run([sys.executable, "-c", sys.argv[2], who], check=True)
"""


def test_names_of_any_bytes_are_shown_and_stop_nobody() -> None:
    """Any user may name a process so, and a cgroup below his own. In a network without addresses, so that nobody else
    who looks at this host meets it.
    """
    odd = home()[0].point / os.fsdecode(b"lxc.payload.w\xff\x1b")
    odd.mkdir()
    try:
        words = ["unshare", "--net", sys.executable, "-c", ODD, os.fspath(odd), ASK]
        done = subprocess.run(words, capture_output=True, check=False, timeout=30)
    finally:
        odd.rmdir()
    assert done.returncode == 0, done.stderr
    container = r"lxc/w\xff\x1b"  # somebody else learns it by the number of the cgroup
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told == [[[r"\xff\xfe\x1bbad"], container], [[], container]]


def test_a_process_is_called_what_the_kernel_calls_it_whatever_its_own_memory_says(tmp_path: Path) -> None:
    program = tmp_path / "fifteen-letters"
    program.symlink_to(sys.executable)
    serve = "import socket, sys; one = socket.create_server(('127.0.0.1', 0)); print(one.getsockname()[1], flush=True)"
    words = ["fifteen-letters-and-a-lie", "-c", f"{serve}; sys.stdin.read()"]
    with subprocess.Popen(words, executable=program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        one = found("tcp", int(process.stdout.readline()))
        process.communicate()
    assert [process.name for process in one.processes] == ["fifteen-letters"]


def test_without_the_kernels_list_psutil_tells_nearly_the_same(server: tuple[int, int, int]) -> None:
    pid, tcp, udp = server
    told = {(one.protocol, one.port): one for one in listening._by_psutil()}
    for key in (("tcp", tcp), ("udp", udp)):
        one = told[key]
        assert ([process.pid for process in one.processes], one.owner.unit) == ([pid], "web.service")


def test_clients_of_udp_do_not_listen() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))  # as the kernel does for who sends first
        low, high = listening.ephemeral()
        port = client.getsockname()[1]
        assert low <= port <= high
        assert ("udp", port) not in {(one.protocol, one.port) for one in listeners()}


def test_sockets_that_share_a_port_are_one() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as first,
        socket.create_server(first.getsockname(), reuse_port=True),
    ):
        one = found("tcp", first.getsockname()[1])
    assert [process.pid for process in one.processes] == [os.getpid()]


@pytest.mark.parametrize(
    ("address", "dual", "taken", "not_taken"),
    [
        ("0.0.0.0", False, "10.0.0.1", "fd00::1"),
        ("::", True, "10.0.0.1", None),
        ("::", True, "fd00::1", None),
        ("::", False, "fd00::1", "10.0.0.1"),
        ("10.0.0.1", False, "10.0.0.1", "10.0.0.2"),
    ],
)
def test_what_comes_to_a_listener(address: str, dual: bool, taken: str, not_taken: str | None) -> None:
    one = Listener("tcp", address, 80, dual)
    assert one.takes(taken)
    assert not_taken is None or not one.takes(not_taken)


INSIDE = """
import os, socket, subprocess, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
for command in (
    "link set lo up", "link add inner type veth peer name outer", "address add 198.51.100.7/24 dev inner",
    "address add 2001:db8:51::7/64 dev inner nodad", "link set inner up", "link set outer up",
):
    subprocess.run(["ip", *command.split()], check=True)
kept = [socket.create_server(("0.0.0.0", 8081)), socket.create_server(("127.0.0.1", 8082))]
kept.append(socket.create_server(("::", 8083), family=socket.AF_INET6))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("198.51.100.7", 8084))
client = socket.create_connection(("198.51.100.7", 8081))
print(os.getpid(), flush=True)
sys.stdin.read()
"""
ID = "0123456789ab" + "cd" * 26


@pytest.fixture(
    params=[
        (f"system.slice/docker-{ID}.scope", "docker/0123456789ab", f"docker-{ID}.scope"),
        (f"machine.slice/libpod-{ID}.scope/container", "podman/0123456789ab", f"libpod-{ID}.scope"),
        ("lxc.payload.web", "lxc/web", ""),
        (os.fsdecode(b"lxc.payload.w\xff\x1b"), r"lxc/w\xff\x1b", ""),
        ("machine.slice/systemd-nspawn@web.service/payload", "nspawn/web", "systemd-nspawn@web.service"),
    ],
    ids=["docker", "podman", "lxc", "any bytes", "nspawn"],
)
def contained(request: pytest.FixtureRequest) -> Iterator[tuple[int, str, str]]:
    """A process in a cgroup and a network as that program makes them: its PID, and what container and unit it is."""
    path, container, unit = request.param
    top = home()[0].point / f"drift-{uuid.uuid4().hex[:8]}"
    (top / path).mkdir(parents=True)
    words = ["unshare", "--net", sys.executable, "-c", INSIDE, str(top / path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield int(process.stdout.readline()), container, unit
        process.communicate()
    for directory in [top / path, *(top / path).parents]:
        directory.rmdir()
        if directory == top:
            break


def test_who_listens_in_a_container_is_told_with_it_and_reached_by_its_addresses(
    contained: tuple[int, str, str],
) -> None:
    pid, container, unit = contained
    inside = [one for one in listeners() if one.space == container]
    assert [(one.protocol, one.address, one.port) for one in inside] == [
        ("tcp", "0.0.0.0", 8081),
        ("tcp", "::", 8083),
        ("udp", "198.51.100.7", 8084),
    ]
    for one in inside:
        assert (one.owner.container, one.owner.unit, one.uid) == (container, unit, 0)
        assert [process.pid for process in one.processes] == [pid]
        assert one.addresses == {"198.51.100.7", "2001:db8:51::7"}
        assert one.takes("198.51.100.7") == (one.address != "::" or one.dual)
        assert not one.takes("127.0.0.1")
        assert not one.takes("192.0.2.1")
    assert not [one for one in listeners() if not one.space and one.port in (8081, 8083, 8084)]
    # Somebody else learns of the container by its network alone.
    ask = (
        "import json, os, sys\nfrom agent.workers.watch.listening import listeners\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "inside = [one for one in listeners() if one.space == sys.argv[1]]\n"
        "print(json.dumps([[one.port, one.owner.container, len(one.processes)] for one in inside]))"
    )
    words = [sys.executable, "-c", ask, container]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    assert json.loads(done.stdout) == [[port, container, 0] for port in (8081, 8083, 8084)]
