"""What names and files of targets mean when a scan begins."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from agent.declaration.model import Scan
from agent.errors import AgentError, ConfigurationError, ScanFailure
from agent.workers.scan.memory.reading import Memory
from agent.workers.scan.pinned import MOST_OF_A_NAME, Pinned, pin
from tests.workers.scan import lab
from tests.workers.scan.bench import Bench


def pinned(targets: Iterable[str], key: Literal["targets", "exclude"] = "targets") -> Pinned:
    return asyncio.run(pin(targets, key))


def failure(targets: Iterable[str], kind: type[AgentError], key: Literal["targets", "exclude"] = "targets") -> str:
    with pytest.raises(kind) as error:
        pinned(targets, key)
    return str(error.value)


def test_names_and_files_become_addresses(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("10.0.0.1-3  # desks\nlocalhost\n10.9.0.0/24\n")
    found = pinned(["10.0.0.7", f"file:{tmp_path}/hosts"])
    assert found.targets[:2] == ("10.0.0.7", "10.0.0.1-10.0.0.3")
    assert set(found.targets[2:]) <= {"127.0.0.1", "::1", "10.9.0.0/24"}
    assert "10.9.0.0/24" in found.targets
    assert found.single == {"10.0.0.7", *(found.targets[2:-1])}
    assert set(found.names.values()) == {"localhost"}


def test_a_file_is_read_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("10.0.0.1\n")
    assert pinned([f"file:{tmp_path}/hosts"]).targets == ("10.0.0.1",)
    (tmp_path / "hosts").write_text("10.0.0.2\n")
    assert pinned([f"file:{tmp_path}/hosts"]).targets == ("10.0.0.2",)


def test_the_mark_of_utf_8_and_odd_characters_in_a_comment_are_no_target(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_bytes("\ufeff10.0.0.1\r\n# was\f10.9.9.9\u202810.8.8.8\r\n10.0.0.2".encode())
    assert pinned([f"file:{tmp_path}/hosts"]).targets == ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize("content", ["", "# all of it is to be written anew\n\n"])
def test_a_file_that_names_nothing_when_it_is_read_fails(tmp_path: Path, content: str) -> None:
    """A program that writes it anew empties it first: nothing would be left out in that moment."""
    (tmp_path / "hosts").write_text(content)
    for key in ("targets", "exclude"):
        told = failure(["10.0.0.1", f"file:{tmp_path}/hosts"], ConfigurationError, key)
        assert told == f"{key}: {tmp_path}/hosts names no target"


def test_what_cannot_be_known_fails_in_one_line_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("10.0.0.1\n-oN /tmp/x\n")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2 * 1024 * 1024)
    for key in ("targets", "exclude"):
        assert failure(["no-such-host.invalid"], ScanFailure, key).startswith(
            f"{key}: no-such-host.invalid cannot be resolved: "
        )
        assert failure([f"file:{tmp_path}/wrong"], ConfigurationError, key).startswith(
            f'{key}: {tmp_path}/wrong:2: "-oN /tmp/x" is no address'
        )
        assert failure([f"file:{tmp_path}/huge"], ConfigurationError, key).endswith("has more than 1048576 bytes")
        assert failure([f"file:{tmp_path}"], ConfigurationError, key).startswith(f"{key}: {tmp_path} ")
        assert failure([f"file:{tmp_path}/none"], ConfigurationError, key).endswith("No such file or directory")


def test_a_link_local_address_without_its_interface_can_be_excluded_and_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts").write_text("fe80::2%eth0\nfe80::1\n")
    told = failure([f"file:{tmp_path}/hosts"], ConfigurationError)
    assert told == "targets: fe80::1 is link-local; name its interface: fe80::1%eth0"
    assert pinned([f"file:{tmp_path}/hosts", "fe80::/120"], "exclude").targets[1:] == ("fe80::1", "fe80::/120")
    answers = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 0, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_words, **_more: answers)  # no resolver here has such a name
    assert failure(["nas.example.org"], ScanFailure) == (
        "targets: nas.example.org stands for fe80::1, which is link-local; name its interface: fe80::1%eth0"
    )
    assert pinned(["nas.example.org"], "exclude").targets == ("fe80::1",)


def test_of_an_excluded_name_all_addresses_are(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{number}", 0)) for number in range(1, 40)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_words, **_more: answers)  # no resolver here has such a name
    assert len(pinned(["many.example.org"]).targets) == MOST_OF_A_NAME
    assert len(pinned(["many.example.org"], "exclude").targets) == 39


@contextmanager
def named(net: lab.Network, directory: Path) -> Iterator[tuple[tuple[str, ...], subprocess.Popen[bytes]]]:
    """The prefix of a command where the name server that is asked is one of our own. It knows what ``hosts`` says, and
    reads that again on SIGHUP."""
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-resolv"]
    options += ["--no-hosts", f"--addn-hosts={directory}/hosts", "--listen-address=127.0.0.1", "--log-facility=-"]
    command = net.inside("setpriv", "--pdeathsig", "KILL", "dnsmasq", "--bind-interfaces", *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        while b"read " not in server.stderr.readline():
            assert server.poll() is None
        script = f'mount --bind {directory}/resolv.conf /etc/resolv.conf && exec "$@"'
        try:
            yield tuple(net.inside("unshare", "--mount", "sh", "-c", script, "sh")), server
        finally:
            server.terminate()


def says(directory: Path, server: subprocess.Popen[bytes] | None, *lasts: int) -> None:
    (directory / "hosts").write_text("".join(f"10.97.0.{last} many.test\n" for last in lasts))
    if server is not None:
        assert server.stderr is not None
        server.send_signal(signal.SIGHUP)
        while b"read " not in server.stderr.readline():
            assert server.poll() is None


def test_a_run_goes_on_with_the_addresses_that_its_names_had_when_it_began(net: lab.Network, bench: Bench) -> None:
    service = Scan(name="lan", targets=("many.test", "10.97.0.99"), ports="1-2000", rate=2000)
    says(bench.directory, None, 1, 2)
    with named(net, bench.directory) as (prefix, server):
        process = bench.start(service, prefix=prefix)
        while not (bench.data / "sweep-0.tcp").exists():
            time.sleep(0.01)
        process.kill()
        bench.finish(process)
        says(bench.directory, server, 3, 4)
        fast = msgspec.structs.replace(service, rate=50_000, ports="1-2000")
        ended = bench.run(fast, prefix=prefix)
        assert ended.code == 0, ended.stderr
        assert "continuing run 1" in ended.stderr
        assert [(host.address, host.names) for host in bench.found()] == [
            ("10.97.0.1", ("many.test",)),
            ("10.97.0.2", ("many.test",)),
            ("10.97.0.99", ()),
        ]
        ended = bench.run(fast, prefix=prefix)
        assert ended.code == 0, ended.stderr
        assert [host.address for host in bench.found()] == ["10.97.0.3", "10.97.0.4", "10.97.0.99"], "a run of its own"
    assert bench.rows("SELECT id, status FROM runs") == [(1, "finished"), (2, "finished")]


def test_of_a_name_with_many_addresses_the_same_ones_are_scanned_each_time_and_it_says_so(
    net: lab.Network, bench: Bench
) -> None:
    service = Scan(name="lan", targets=("many.test",), ports="1-3", rate=5000)
    lasts, dice = list(range(1, 21)), random.Random(3)
    says(bench.directory, None, *lasts)
    with named(net, bench.directory) as (prefix, server):
        for _ in range(2):
            dice.shuffle(lasts)
            says(bench.directory, server, *lasts)
            ended = bench.run(service, prefix=prefix)
            assert ended.code == 0, ended.stderr
            line = "targets: many.test has 20 addresses: 4 are not scanned, from 10.97.0.17 on"
            assert ended.stderr.splitlines() == [line]
            assert [host.address for host in bench.found()] == [f"10.97.0.{last}" for last in range(1, 17)]
    with Memory(bench.data / "scan.db") as memory:
        assert [run.declared["notes"] for run in memory.runs()] == [[line], [line]], "as scan show tells it"
        assert len({run.plan_hash for run in memory.runs()}) == 1
