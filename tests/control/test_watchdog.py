"""The watchdog is fed after a good answer, and after nothing else; and asking never holds up who is asked."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack, nullcontext, suppress
from pathlib import Path

import pytest

from agent.control.watchdog import answers, keep_watchdog
from agent.linux.notify import SystemdNotifier
from agent.linux.sockets import bind_unix
from tests.harness import notify_socket

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BAD = b"HTTP/1.1 500 Internal Server Error\r\n\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


class Answering:
    """A server on the control socket's path, as good or bad as it is told to be."""

    def __init__(self, path: Path, answer: bytes, delay: float = 0.0) -> None:
        self.answer = answer
        self._path = path
        self._delay = delay
        self._tasks: set[asyncio.Task[None] | None] = set()

    async def __aenter__(self) -> Answering:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        await asyncio.gather(*(task for task in self._tasks if task is not None), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(self._delay)
            writer.write(self.answer)
        finally:
            writer.close()


async def nobody() -> None:
    """Listens anew."""
    raise AssertionError("the socket is there")


async def ask(path: Path, answer: bytes, delay: float = 0.0, timeout: float = 2.0) -> bool:
    async with Answering(path, answer, delay):
        return await answers(path, timeout, nullcontext)


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (GOOD, True),
        (BAD, False),
        (b"HTTP/1.1 2", False),
        (b"", False),
    ],
)
def test_only_a_good_answer_counts(path: Path, answer: bytes, good: bool) -> None:
    assert asyncio.run(ask(path, answer)) is good


def test_an_answer_that_does_not_come_in_time_is_none(path: Path) -> None:
    assert not asyncio.run(ask(path, GOOD, delay=0.5, timeout=0.1))


def test_nobody_there_is_no_answer(path: Path) -> None:
    assert not asyncio.run(answers(path, 1.0, nullcontext))
    bind_unix(path, socket.SOCK_STREAM, 0o600).close()
    assert not asyncio.run(answers(path, 1.0, nullcontext))


def test_a_full_backlog_is_no_answer_and_blocks_nobody(path: Path) -> None:
    with bind_unix(path, socket.SOCK_STREAM, 0o600) as listening:
        listening.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(path))
        begun = time.monotonic()
        assert not asyncio.run(answers(path, 5.0, nullcontext))
        assert time.monotonic() - begun < 1
        waiting.close()


def test_systemd_hears_twice_in_its_time_and_soon_again_after_a_bad_answer(tmp_path: Path, path: Path) -> None:
    async def heard_within(seconds: float) -> int:
        loop = asyncio.get_running_loop()
        end, heard = loop.time() + seconds, 0
        while (left := end - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    heard += (await loop.sock_recv(listener, 100)).count(b"WATCHDOG=1")
        return heard

    async def live() -> list[int]:
        async with Answering(path, GOOD) as answering:
            keeping = asyncio.ensure_future(keep_watchdog(notifier, path, nullcontext, nobody))
            counts = [await heard_within(1.0)]
            answering.answer = BAD
            counts.append(await heard_within(0.6))
            answering.answer = GOOD
            counts.append(await heard_within(0.4))
            keeping.cancel()
            return counts

    with notify_socket(tmp_path) as (listener, name):
        notifier = SystemdNotifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "800000"})
        good, bad, again = asyncio.run(live())
        notifier.close()
    assert good in (2, 3)
    assert bad <= 1
    assert again >= 1


def test_a_socket_that_has_gone_is_made_anew_before_systemd_loses_patience(tmp_path: Path, path: Path) -> None:
    async def live() -> bytes:
        async with AsyncExitStack() as stack:

            async def renewal() -> None:
                await stack.enter_async_context(Answering(path, GOOD))

            keeping = asyncio.ensure_future(keep_watchdog(notifier, path, nullcontext, renewal))
            async with asyncio.timeout(5):
                heard = await asyncio.get_running_loop().sock_recv(listener, 100)
            keeping.cancel()
            return heard

    with notify_socket(tmp_path) as (listener, name):
        notifier = SystemdNotifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "800000"})
        assert asyncio.run(live()) == b"WATCHDOG=1"
        notifier.close()
