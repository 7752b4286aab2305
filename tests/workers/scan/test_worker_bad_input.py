"""Whatever is wrong with what a scan is given: one line, the exit code as agreed, and earlier runs as they were.

Each row is a worker of its own, with a real nmap or a program in its place that fails as nmap has been seen to; once
where it finds out who is there, and once where it says what answers.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from agent.declaration.model import Scan
from tests.workers.scan.bench import ENTRY, NMAP, Bench, Ended

SSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"


class Earlier(NamedTuple):
    """A scan that has run once, well."""

    spool: Path
    scan: Scan


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Earlier]:
    """Of a port of this host that really listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_greet, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        scan = Scan(name="lan", targets=("127.0.0.1",), ports=str(port), profile="services")
        first = Bench(tmp_path_factory.mktemp("earlier"))
        try:
            ended = first.run(scan)
            assert ended.code == 0, ended.stderr
            assert [host.ports[0].product for host in first.found()] == ["OpenSSH"]
            yield Earlier(first.data, scan)
        finally:
            first.close()
            listener.shutdown(socket.SHUT_RDWR)


def _greet(listener: socket.socket) -> None:
    with suppress(OSError):  # it is over
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # who scans hangs up
                connection.sendall(SSH)


@pytest.fixture
def later(bench: Bench, earlier: Earlier) -> Iterator[Bench]:
    """The next run of the same service; whatever becomes of it, the first is as it was."""
    shutil.copytree(earlier.spool, bench.data)
    before = bench.everything(run=1)
    yield bench
    assert bench.everything(run=1) == before
    assert bench.rows("SELECT status FROM runs WHERE id = 1") == [("finished",)]


def failed(ended: Ended, message: str, code: int = 2) -> None:
    """In one line, which is told as an event too."""
    assert (ended.code, ended.stderr.count("\n")) == (code, 1), ended.stderr
    assert ended.stderr.startswith(message)


STAGES = {"discovery": "-sn", "services": "-sV"}

FAILURES = {
    "crashing": ("kill -SEGV $$", "nmap was killed by SIGSEGV"),
    # A real one: it waits for the end of a list that nobody writes.
    "killed": (
        'mkfifo $HERE/list; (sleep 0.3; kill -KILL $$) & exec "$NMAP" "$@" --excludefile $HERE/list',
        "nmap was killed by SIGKILL, by hand or for want of memory",
    ),
    "refusing": ("echo 'Strange error' >&2; exit 1", "nmap failed (exited 1): Strange error"),
    "garbage": ("head -c 100000 /dev/urandom >$XML", "nmap wrote something that is not its XML"),
    "truncated": ('"$NMAP" "$@" -oX - | head -c 700 >$XML', "nmap's XML stops before its end"),
    "nothing scanned": ('exec "$NMAP" -n -oX - -iL /dev/null >$XML', "nmap scanned 0 of 1 addresses"),
    "nothing said": ("exit 0", "nmap wrote nothing"),
    "too old": (
        """echo '<?xml version="1.0"?><nmaprun scanner="nmap" version="5.51">' >$XML; exec sleep 60""",
        "nmap 5.51 is too old: 6.25 or newer is needed",
    ),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("failure", FAILURES)
def test_an_nmap_that_fails(later: Bench, earlier: Earlier, stage: str, failure: str) -> None:
    script, message = FAILURES[failure]
    ended = later.run(earlier.scan, path=fake(later, stage, script))
    where = "services of 127.0.0.1: " if stage == "services" else ""
    failed(ended, f"{where}{message}")
    told = f"127.0.0.1: {ended.stderr.removesuffix(chr(10))}; the next run continues"
    assert ended.events["scan_failed"]["message"] == told
    assert later.rows("SELECT id, status FROM runs ORDER BY id") == [(1, "finished"), (2, "failed")]
    assert not ended.events.keys() & {"host_gone", "port_closed", "service_changed"}


def fake(later: Bench, stage: str, script: str) -> str:
    """A script in place of nmap in one stage, with nmap's own data beside it; in the other it is nmap itself."""
    assert NMAP is not None
    (data := later.directory / "share").mkdir()
    (data / "nmap").symlink_to(Path(NMAP).resolve().parent.parent / "share" / "nmap")
    return later.fake(f'case " $* " in *" {STAGES[stage]} "*) ;; *) exec "$NMAP" "$@" ;; esac\n{script}')


def test_no_nmap_at_all(later: Bench, earlier: Earlier) -> None:
    (empty := later.directory / "empty").mkdir()
    failed(later.run(earlier.scan, path=str(empty)), "nmap is not installed: apt-get install nmap\n")


DECLARED: dict[str, tuple[dict[str, Any], int, str]] = {
    "unresolvable": (
        {"targets": ("127.0.0.1", "no-such-host.invalid")},
        2,
        "targets: no-such-host.invalid cannot be resolved: ",
    ),
    "unresolvable and excluded": (
        {"exclude": ("no-such-host.invalid",)},
        2,
        "exclude: no-such-host.invalid cannot be resolved: ",
    ),
    "a million": (
        {"targets": ("10.0.0.0-10.15.66.63",)},
        1,
        "targets: without those excluded they are 1000000 addresses, at most 65536 can be scanned\n",
    ),
    "excluded": (
        {"targets": ("127.0.0.1", "127.0.0.0/30"), "exclude": ("127.0.0.0-127.0.0.2", "127.0.0.3")},
        1,
        "targets: without those excluded they leave nothing to scan\n",
    ),
    "public": ({"targets": ("127.0.0.1", "8.8.8.8")}, 1, "targets: 8.8.8.8 is public: allow_public does not name it\n"),
}


@pytest.mark.parametrize("what", DECLARED)
def test_targets_that_cannot_be_scanned(later: Bench, earlier: Earlier, what: str) -> None:
    settings, code, message = DECLARED[what]
    failed(later.run(msgspec.structs.replace(earlier.scan, **settings)), message, code)
    assert later.rows("SELECT id FROM runs") == [(1,)]


def test_targets_that_overlap_are_scanned_once(later: Bench, earlier: Earlier) -> None:
    targets = ("127.0.0.1", "127.0.0.0/30", "127.0.0.1-127.0.0.2", "127.0.0.1")
    ended = later.run(msgspec.structs.replace(earlier.scan, targets=targets, profile="ports"))
    assert (ended.code, ended.events["scan_finished"]["data"]["hosts_total"]) == (0, 4)
    assert [host.address for host in later.found()] == [f"127.0.0.{number}" for number in range(4)]


@pytest.fixture
def full(bench: Bench, earlier: Earlier) -> Iterator[Bench]:
    """What runs later has a file system of 2 MiB."""
    bench.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", bench.data], check=True)
    try:
        shutil.copytree(earlier.spool, bench.data, dirs_exist_ok=True)
        before = bench.everything(run=1)
        yield bench
        (bench.data / "filler").unlink()
        assert bench.everything(run=1) == before
        ended = bench.run(earlier.scan)
        assert ended.code == 0, ended.stderr
    finally:
        subprocess.run(["umount", "--lazy", bench.data], check=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_fills_up_while_nmap_runs(full: Bench, earlier: Earlier, stage: str) -> None:
    script = f'cat /dev/zero > {full.data}/filler 2>/dev/null; exec "$NMAP" "$@"'
    ended = full.run(earlier.scan, path=fake(full, stage, script))
    assert "the disk is full" in ended.stderr
    failed(ended, str(full.data))
    assert "the disk is full" in ended.events["scan_failed"]["message"]


FULL_AT_THE_END = f"""
import os, pathlib
from contextlib import suppress
from agent.workers.scan.store import ScanStore
end = ScanStore.end

def fill(self, *words, **more):
    with suppress(OSError), open(os.environ["SERVICE_DATA"] + "/filler", "wb", 0) as filler:
        while filler.write(bytes(4096)):
            pass
    return end(self, *words, **more)

ScanStore.end = fill
{ENTRY}
"""


def test_a_disk_that_is_full_when_all_is_done(full: Bench, earlier: Earlier) -> None:
    ended = full.run(earlier.scan, entry=FULL_AT_THE_END)
    assert "the disk is full" in ended.stderr
    failed(ended, str(full.data))


def test_a_database_of_a_newer_program(later: Bench, earlier: Earlier) -> None:
    database = later.data / "scan.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = database.read_bytes()
    ended = later.run(earlier.scan)
    failed(ended, f"{database}: written by a newer version of this program (schema 99, this one knows ")
    assert "written by a newer version" in ended.events["scan_failed"]["message"]
    assert database.read_bytes() == before
