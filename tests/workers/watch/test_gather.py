"""The four sources, read: what can be, and why the rest cannot."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.declaration.model import Declared, Expect
from agent.errors import RuntimeFailure
from agent.workers.inventory.sighting import SERVICE, Sighting
from agent.workers.watch import gather as module
from agent.workers.watch.gather import MOST_IMPORTS, OLD_INVENTORY, Gathered, Watched, gather, stores
from tests.workers.watch.memories import imported, remember, up
from tests.workers.watch.scenes import port
from tests.workers.watch.test_from_capture import inventory

WEB = "10.20.0.10"


def gathered(spool: Path, *declared: Declared, expects: tuple[Expect, ...] = ()) -> Gathered:
    @contextmanager
    def seen(name: str) -> Iterator[Path]:
        yield spool / name

    return gather(Watched(expects, declared, "here"), seen, time.time(), stored=stores(spool))


def test_everything_that_is_there_is_read(tmp_path: Path) -> None:
    for name, site in (("near", "here"), ("far", "branch")):
        (tmp_path / name).mkdir()
        remember(tmp_path / name, [up("10.20.0.10", port("tcp/22"))], time.time() - 9, site=site)
    now = time.time_ns()
    inventory(
        tmp_path / "edge", Sighting(now, now, "flow", 0, "", "10.20.0.77", SERVICE, "tcp/22"), written=now // 10**9
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = gathered(
            tmp_path,
            Declared("near", "scan", site="here"),
            Declared("far", "scan", site="branch"),
            Declared("edge", "capture"),
            Declared("api", "command", listens="8000"),
            expects=(Expect("web", ("10.20.0.10", "localhost")),),
        )
        name = listening.getsockname()[1]
    sources = found.sources
    assert found.notes == []
    assert sources.blind == frozenset()
    assert {(one.service, one.site) for one in sources.scans} == {("near", ""), ("far", "branch")}
    assert [one.address for one in sources.sights or ()] == ["10.20.0.77"]
    assert [one.service for one in sources.services] == ["api"]
    assert {"10.20.0.10", "127.0.0.1"} <= sources.expectations[0].named
    assert name in {one.port for one in sources.listening or ()}
    assert "127.0.0.1" in sources.own
    for address in sources.own:  # and no MAC
        socket.getaddrinfo(address, None, flags=socket.AI_NUMERICHOST)


def test_what_cannot_be_read_is_blind_and_keeps_nobody_from_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> list[object]:
        raise RuntimeFailure("the sockets of this host cannot be listed: Operation not permitted")

    monkeypatch.setattr(module, "listeners", refused)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "hosts.json").write_text("{")
    inventory(tmp_path / "edge", written=int(time.time() - OLD_INVENTORY * 3))
    found = gathered(
        tmp_path,
        *(Declared(name, "capture") for name in ("core", "edge", "none")),
        Declared("near", "scan"),
        expects=(Expect("gone", ("nowhere.invalid",)), Expect("web", ("10.20.0.10",))),
    )
    assert found.sources.blind == {"listening", "capture core", "capture none", "scan near", "expect gone"}
    assert found.sources.listening is None
    assert [one.name for one in found.sources.expectations] == ["web"]
    assert len(found.notes) == 6
    assert "capture edge: it has seen nobody for 3 hours" in found.notes
    assert all("\n" not in note for note in found.notes)


def test_reports_that_were_imported_under_a_name_of_their_own_are_read(tmp_path: Path) -> None:
    for name in ("elsewhere", "branch_report", "removed", "far", "old", "broken", "Not A Name", "empty"):
        (tmp_path / name).mkdir()
    web, now = [up(WEB, port("tcp/22"))], time.time()
    imported(tmp_path / "elsewhere", web, now - 60, site=os.uname().nodename)
    imported(tmp_path / "branch_report", web, now - 60, site="branch")
    imported(tmp_path / "Not A Name", web, now - 60)
    remember(tmp_path / "removed", web, now - 60)  # a scan that nobody declares any more
    remember(tmp_path / "far", web, now - 60, site="branch")
    imported(tmp_path / "old", web, now - 9 * 86400)
    (tmp_path / "broken" / "scan.db").write_bytes(b"rubbish")
    (tmp_path / "file").touch()
    found = gathered(tmp_path, Declared("far", "scan", site="branch"))
    read = {(one.service, one.site, one.imported) for one in found.sources.scans}
    assert read == {("elsewhere", "", True), ("branch_report", "branch", True), ("far", "branch", False)}
    assert found.sources.blind == {"scan old", "scan broken"}
    assert found.notes[1:] == ["imported, and too old to be held against anything: old"]
    assert "broken/scan.db: not a database" in found.notes[0]


def test_no_more_of_them_than_so_many(tmp_path: Path) -> None:
    (tmp_path / "r0").mkdir()
    imported(tmp_path / "r0", [up(WEB)], time.time() - 60)
    for number in range(1, MOST_IMPORTS + 5):
        shutil.copytree(tmp_path / "r0", tmp_path / f"r{number:04}")
    found = gathered(tmp_path)
    assert len({one.service for one in found.sources.scans}) == MOST_IMPORTS
    assert found.notes == ["imported under more than 100 names; r0100 and what follows are left out"]
    assert stores(tmp_path / "none") == []
