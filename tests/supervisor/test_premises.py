"""The agent and run-once take turns, and neither clears away what the other's run needs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from agent.declaration.model import Command, Heartbeat
from agent.errors import AlreadyRunning
from agent.paths import Paths
from agent.supervisor.premises import Premises, Tenancy
from tests.supervisor.conftest import descriptors

API = Command(name="api", command=("/bin/true",), group="nogroup", heartbeat=Heartbeat(), secrets=("token",))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths.of(tmp_path)
    for directory in (made.run, made.tmp, made.secrets):
        directory.mkdir(parents=True)
    (made.secrets / "token").write_text("swordfish")
    return made


def premises(loop: asyncio.AbstractEventLoop, paths: Paths) -> Premises:
    return Premises(loop, paths, "api", lambda notice: None)


def test_only_one_may_have_them_at_a_time(loop: asyncio.AbstractEventLoop, paths: Paths) -> None:
    ours, theirs = premises(loop, paths), premises(loop, paths)
    assert Path(ours.take(API)).is_socket()
    with pytest.raises(AlreadyRunning) as refusal:
        theirs.take(API)
    assert refusal.value.pid == os.getpid()
    assert ours.take(API)  # the next run of the same
    ours.leave(clear=True, heartbeat=True)
    assert theirs.take(API)
    for each in (ours, theirs):
        each.close()


def test_leaving_clears_what_it_is_told_to(loop: asyncio.AbstractEventLoop, paths: Paths) -> None:
    ours = premises(loop, paths)
    secret, heartbeat = paths.secret_copies("api") / "token", paths.heartbeat("api")
    left = []
    for clear, beat in ((False, False), (True, False), (True, True)):
        ours.take(API)
        ours.leave(clear=clear, heartbeat=beat)
        left.append((secret.exists(), heartbeat.exists()))
        assert ours.lock_fd < 0
    assert left == [(True, True), (False, True), (False, False)]
    ours.close()


def test_what_another_run_needs_is_left_alone(loop: asyncio.AbstractEventLoop, paths: Paths) -> None:
    ours, theirs = premises(loop, paths), premises(loop, paths)
    theirs.take(API)
    ours.leave(clear=True, heartbeat=True)
    ours.close()
    assert (paths.secret_copies("api") / "token").exists()
    assert paths.heartbeat("api").exists()
    assert paths.config("api").exists()
    theirs.close()


def test_closing_leaves_the_lock_file_alone_and_no_descriptor(loop: asyncio.AbstractEventLoop, paths: Paths) -> None:
    before = descriptors()
    ours = premises(loop, paths)
    ours.take(API)
    ours.close()
    ours.close()
    assert [path.name for path in paths.run.iterdir()] == ["api.lock"]
    assert not list(paths.tmp.iterdir())
    assert descriptors() == before


def test_another_program_holds_them_without_a_moment_in_which_somebody_else_could(
    loop: asyncio.AbstractEventLoop, paths: Paths
) -> None:
    before = descriptors()
    first = premises(loop, paths)
    assert first.freeze() == Tenancy(None, None)
    address = first.take(API)
    tenancy = msgspec.json.decode(msgspec.json.encode(first.freeze()), type=Tenancy)
    assert tenancy.lock == first.lock_fd
    assert tenancy.ear is not None
    loop.remove_reader(tenancy.ear.fd)
    assert first.listener._receiver is not None
    first.listener._receiver._socket.detach()  # as execve(2) leaves it
    second, third = premises(loop, paths), premises(loop, paths)
    second.thaw(tenancy)
    with pytest.raises(AlreadyRunning):
        third.take(API)
    assert second.take(API) == address
    second.leave(clear=False, heartbeat=False)
    assert second.freeze() == Tenancy(None, tenancy.ear), "who is at rest still listens"
    third.take(API)
    third.close()
    second.close()
    assert descriptors() == before


def test_another_program_takes_over_the_listening_alone_of_a_service_that_run_once_has(
    loop: asyncio.AbstractEventLoop, paths: Paths
) -> None:
    once, first, second = premises(loop, paths), premises(loop, paths), premises(loop, paths)
    first.take(API)
    first.leave(clear=False, heartbeat=False)
    once._lock.acquire()
    tenancy = first.freeze()
    assert tenancy.ear is not None
    loop.remove_reader(tenancy.ear.fd)
    assert first.listener._receiver is not None
    first.listener._receiver._socket.detach()
    second.thaw(tenancy)
    with pytest.raises(AlreadyRunning):
        second.take(API)
    once._lock.release()
    second.take(API)
    second.close()
