"""A capture is watched through a real SSH connection that it captures itself, by both programs."""

from __future__ import annotations

import getpass
import json
import shlex
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.harness import Agent, wait_until

PATIENCE = 20.0
UDP = 17


@pytest.fixture
def server(agent: Agent) -> Iterator[int]:
    """The port of an sshd on the loopback interface that lets us in by a key."""
    place = Path(tempfile.mkdtemp(prefix="sshd-"))
    keys = {name: place / name for name in ("host", "ours")}
    for key in keys.values():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=PATIENCE)
    separated = Path("/run/sshd")  # where nothing is; systemd or the init script makes it
    made = not separated.exists()
    separated.mkdir(mode=0o755, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = {
        "HostKey": keys["host"],
        "AuthorizedKeysFile": f"{keys['ours']}.pub",
        "ListenAddress": f"127.0.0.1:{port}",
        "PidFile": "none",
        "StrictModes": "no",
        "PermitRootLogin": "prohibit-password",
    }
    settings = place / "sshd_config"
    settings.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    log = place / "log"
    with subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(settings), "-E", str(log)]) as sshd:
        try:
            wait_until(lambda: listening(port), lambda: log.read_text())
            agent.prefix.parent.joinpath("key").symlink_to(keys["ours"])
            yield port
        finally:
            sshd.terminate()
            sshd.wait(PATIENCE)
            shutil.rmtree(place)
            if made:
                separated.rmdir()


def listening(port: int) -> bool:
    with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port))):
        return True
    return False


@contextmanager
def watching(agent: Agent, port: int, *before: str) -> Iterator[IO[bytes]]:
    """What the stream gives at the other end of a connection. ``before``: what the command is started through."""
    settings = [f"{name}={value}" for name, value in agent.environment().items()]
    remote = ["env", *before, *settings, *agent.command("capture", "stream", "edge")]
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    command = ["ssh", "-F", "none", "-i", str(agent.prefix.parent / "key"), "-p", str(port)]
    command += [word for option in options for word in ("-o", option)]
    command += [f"{getpass.getuser()}@127.0.0.1", f"cd / && exec {shlex.join(remote)}"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as ssh:
        assert ssh.stdout
        yield ssh.stdout
        ssh.stdout.close()
        ssh.terminate()
        ssh.wait(PATIENCE)


def packet(stream: IO[bytes]) -> bytes:
    return stream.read(struct.unpack("=8xI4x", stream.read(16))[0])


@pytest.mark.parametrize("before", [(), ("-u", "SSH_CONNECTION")], ids=["told", "as behind sudo"])
def test_the_connection_that_a_stream_runs_in_is_not_in_it(agent: Agent, server: int, before: tuple[str, ...]) -> None:
    """It would feed itself: each packet of it that is shown makes another."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        port = service.getsockname()[1]
        agent.declare(
            f"""
            [service.edge]
            kind = "capture"
            interfaces = ["lo"]
            filter = "tcp port {server} or udp port {port}"
            """
        )
        agent.start()
        agent.until("edge", state="running")

        def stored(expression: str) -> int:
            done = agent.ctl("capture", "query", expression, "--last", "1m", "--json", "--limit", "1000000")
            return len(json.loads(done.stdout)["found"])

        service.sendto(b"first", service.getsockname())
        wait_until(lambda: stored(f"udp port {port}") == 1)
        with watching(agent, server, *before) as stream:
            assert stream.read(24)[:4] == struct.pack("=I", 0xA1B23C4D)
            seen: list[bytes] = []
            for number in range(20):
                service.sendto(b"%d" % number, service.getsockname())
                while not seen or not seen[-1].endswith(b"%d" % number):
                    seen.append(packet(stream))  # each comes alone, so each is carried by packets of its own
            carried = stored(f"tcp port {server}")
    assert {frame[23] for frame in seen} == {UDP}
    assert len(seen) in (20, 21)  # what was sent first may still be new to it
    assert carried >= len(seen)
