"""The four sources, read: what can be, and why the rest cannot."""

from __future__ import annotations

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
from agent.workers.watch.gather import OLD_INVENTORY, Gathered, Watched, gather
from tests.workers.watch.memories import remember, up
from tests.workers.watch.scenes import port
from tests.workers.watch.test_from_capture import inventory


def gathered(spool: Path, *declared: Declared, expects: tuple[Expect, ...] = ()) -> Gathered:
    @contextmanager
    def seen(name: str) -> Iterator[Path]:
        yield spool / name

    return gather(Watched(expects, declared, "here"), seen, time.time())


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
